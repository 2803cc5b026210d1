"""The data card: terms of slides and teachers, what is seen of patients; names from files cannot write markup."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard
from support.command_lines import as_read, lines_of, refusal, shell_blocks

from pipeline.store.store import Store
from stages.publishing.data_card import data_card, patients_note, store_terms_in_the_way, terms_of_store


def test_terms_that_do_not_allow_are_listed(good_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(good_store)
    monkeypatch.setitem(store.first.attributes["teacher"], "licence", "apache-2.0")
    monkeypatch.setitem(store.first.attributes["teacher"], "gated", False)
    assert store_terms_in_the_way(store, "CC0-1.0") == []
    assert store_terms_in_the_way(store, "CC-BY-NC-4.0") == ["Slides: CC-BY-NC-4.0"]
    assert DatasetCard(data_card(store, "Apache-2.0")).data.license == "apache-2.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(store.first.attributes["teacher"], "gated", True)
    assert "Gated" in store_terms_in_the_way(store, "CC0-1.0")[0]
    assert "Gated" in terms_of_store([store.first], "x")


def test_what_is_seen_of_patients_is_said(good_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(good_store)
    slide = replace(store.plan.slides[0], has_case=True, center="A", labels={"<b>grade</b>": "2"})
    monkeypatch.setitem(store.__dict__, "plan", replace(store.plan, slides=(slide,)))
    note = patients_note(store)
    assert "case ids" in note
    assert "centres" in note
    assert "&lt;b&gt;grade&lt;/b&gt; of each slide" in note
    assert "The pixels of the patches" in note


def test_the_commands_of_the_card_are_understood(
    good_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = shell_blocks(data_card(Store(good_store), "CC0-1.0"))
    lines = [as_read("the card", text, in_block=True) for text in lines_of(block)]
    read = [line for line in lines if line is not None]
    assert [line.words[0] for line in read] == ["verify", "train-student"]
    assert [refusal(line) for line in read] == ["", ""]
