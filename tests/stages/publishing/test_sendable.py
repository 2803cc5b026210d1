"""Only a whole export is sent, and only its own files."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.limits import unlisted

from pipeline.base.errors import EncoderError, ExportError
from stages.publishing.sendable import files_to_send, in_the_way


def test_every_file_of_an_export_is_sent_and_no_other(student: Path) -> None:
    expected = {p.relative_to(student).as_posix(): p.stat().st_size for p in student.rglob("*") if p.is_file()}
    assert files_to_send(student) == expected
    assert {"README.md", "LICENSE.md", "model.safetensors", "adapters/eva.yaml"} <= expected.keys()


def add(name: str, content: str = "x") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert re.search(old, text)
        (folder / name).write_text(re.sub(old, new, text, count=1))

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (add("slides.csv"), "slides.csv: not of the export"),
        (add("adapters/notes.py"), "adapters/notes.py: not of the export"),
        (add(".env"), r"\.env: not of the export"),
        (add("config.json"), "config.json: not the file that the card names"),
        (add("adapters/eva.yaml"), r"adapters/eva\.yaml: not the file that the card names"),
        (add("adapters/trident_encoder.py"), r"adapters/trident_encoder\.py: not the file that the card names"),
        (add("LICENSE.md"), r"LICENSE\.md: not the file that the card names"),
        (lambda folder: (folder / "LICENSE.md").unlink(), r"LICENSE\.md: not the file that the card names"),
        (edit("README.md", r"    \w{64}  adapters/eva_student.py\n", ""), "no SHA-256 of adapters/eva_student.py"),
        (edit("README.md", r"    \w{64}  config.json\n", ""), "no SHA-256 of config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "a link"),
        (lambda folder: shutil.rmtree(folder / "projector"), "no such file"),
        (edit("README.md", "license_name.*\n", ""), "has not the hub's header"),
        (edit("README.md", "tags:", "tags: ["), "the hub would not read its header"),
        (edit("README.md", "# ", "# TCGA-A1-A0SB-01Z-00-DX1 "), "patient's barcode"),
        (edit("README.md", "---\n", ""), "has not the hub's header"),
    ],
)
def test_what_is_no_whole_export_is_refused(student: Path, change: Callable[[Path], object], fault: str) -> None:
    change(student)
    with pytest.raises((ExportError, EncoderError), match=fault):
        files_to_send(student)


def test_an_export_of_an_earlier_version_is_sent_with_a_note(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its card has no hashes of the adapters and the terms; the others must be there."""
    files_to_send(student)
    assert capsys.readouterr().err == ""
    card = student / "README.md"
    card.write_text(re.sub(r"    \w{64}  (adapters/.*|LICENSE\.md)\n", "", card.read_text()))
    assert "adapters/eva.yaml" in files_to_send(student)
    said = capsys.readouterr().err
    assert "note: " in said
    assert "no SHA-256 of LICENSE.md, adapters/eva.yaml, " in said
    edit("README.md", r"    \w{64}  model.safetensors\n", "")(student)
    with pytest.raises(ExportError, match=r"no SHA-256 of model\.safetensors\."):
        files_to_send(student)


def test_a_folder_that_is_no_student_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ExportError, match="neither an exported student nor a store"):
            files_to_send(folder)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("Apache-2.0. <https://huggingface.co/a/b>", True),
        ("MIT.", True),
        ("random weights, no terms.", True),
        ("Apache-2.0. Gated: access goes to those who accept its terms.", False),
        ("cc-by-nc-nd-4.0. Non-commercial: ...", False),
        ("cc-by-nd-4.0.", False),
        ("unknown. Read its terms before you use or share the student.", False),
    ],
)
def test_terms_stand_in_the_way_unless_they_allow_it(tmp_path: Path, line: str, allowed: bool) -> None:
    (tmp_path / "README.md").write_text(f"## Terms\n\nwords\n\n- Teacher: {line}\n\nend\n")
    assert in_the_way(tmp_path) == ([] if allowed else [f"Teacher: {line}"])


def test_a_card_without_terms_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Title\n")
    assert in_the_way(tmp_path) == ["The card says nothing of terms."]


def test_an_export_with_a_folder_that_may_not_be_listed_is_not_sent_in_part(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", unlisted(student / "adapters"))
    with pytest.raises(ExportError, match=r"adapters: the folder cannot be listed"):
        files_to_send(student)
