"""The data card: terms of slides and teachers, what is seen of patients; names from files cannot write markup."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard
from support.command_lines import as_read, lines_of, refusal, shell_blocks
from support.stores import copy_with_teacher

from pipeline.encoders.build import OF_A_FILE
from pipeline.store.store import Store
from pipeline.student.card import model_terms, terms_page
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


def test_the_card_of_several_teachers_names_them(
    good_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines are run as far as they ask for a teacher; each array's place is there."""
    folder = copy_with_teacher(good_store, tmp_path / "store.zarr", "the second")
    monkeypatch.chdir(tmp_path)
    card = data_card(Store(folder), "CC0-1.0")
    first = Store(folder).first.name
    (block,) = shell_blocks(card)
    trained = next(line for line in lines_of(block) if "train-student" in line)
    assert f"--teacher {first} --teacher 'the second'" in trained
    line = as_read("the card", trained, in_block=True)
    assert line is not None
    assert refusal(line) == ""
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.S)
    given: dict[str, Any] = {}
    exec(snippet, given)
    assert given["store"].teacher == first
    (place,) = re.findall(r"further ones have their own in `(.*?)`", card)
    assert (folder / place / "embedding" / "zarr.json").is_file()


def test_terms_of_a_users_file_lead_to_no_page_of_other_weights(good_store: Path) -> None:
    teacher = Store(good_store).first
    record = {**teacher.record, "licence": OF_A_FILE}
    assert terms_page({**record, "licence": "apache-2.0"}).startswith("https://")
    assert terms_page(record) == ""
    assert "https://" not in model_terms("Teacher", record)
