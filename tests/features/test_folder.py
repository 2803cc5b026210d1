"""The folder of embeddings: only what made it continues it, and failures are remembered from run to run."""

import csv
import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import EmbedError
from pipeline.base.versions import versions
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.disk.tables import table_text, write_records
from pipeline.features.embed_names import FAILURES_FILE, FINISHED_FILE, OPTIONS_FILE, RECORD_FILE
from pipeline.features.embedding import WHOLE_SLIDE, Failure
from pipeline.features.folder import EmbedFolder
from pipeline.features.layouts import Mark

RECORD: dict[str, Any] = {"made_by": {"model": {"architecture": "x"}, "settings": {"mpp": 0.5}}, "batch_size": 8}


def mark(failed: int) -> Mark:
    """Of a finished slide of ten patches."""
    return Mark({}, {}, 10 - failed, failed, {}, {})


def lines_of(folder: Path) -> list[tuple[str, str, str]]:
    with open(folder / FAILURES_FILE, newline="") as f:
        return [(line["slide_id"], line["x"], line["status"]) for line in csv.DictReader(f)]


# --- start and continue ---


def test_a_new_folder_is_made_with_its_records_and_the_same_continues_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    folder = EmbedFolder(out)
    assert folder.require_usable() is None
    assert folder.start_or_continue(RECORD, {"layout": "pt"}) == []
    assert json.loads((out / RECORD_FILE).read_text()) == RECORD
    assert tomllib.loads((out / OPTIONS_FILE).read_text()) == {"embed": {"layout": "pt"}}
    old = folder.require_usable()
    assert old is not None
    assert (old["made_by"], old["batch_size"], old["full_float32"]) == (RECORD["made_by"], 8, False)
    (out / FINISHED_FILE).touch()
    (out / f"a.h5.x{ASIDE_SUFFIX}").touch()
    EmbedFolder(out).start_or_continue(RECORD | {"batch_size": 4}, {"layout": "clam"})
    assert sorted(path.name for path in out.iterdir()) == [RECORD_FILE, OPTIONS_FILE]
    assert json.loads((out / RECORD_FILE).read_text())["batch_size"] == 8  # as it was begun
    assert tomllib.loads((out / OPTIONS_FILE).read_text()) == {"embed": {"layout": "clam"}}


def test_another_model_is_refused_before_anything_changes(tmp_path: Path) -> None:
    EmbedFolder(tmp_path).start_or_continue(RECORD, {"layout": "pt"})
    (tmp_path / FINISHED_FILE).write_text("kept")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = {"made_by": {"model": {"architecture": "y"}, "settings": {"mpp": 0.5}}, "batch_size": 8}
    with pytest.raises(EmbedError, match=r"(?s)another model .*\n  model\.architecture: 'x' -> 'y'\nChoose") as caught:
        EmbedFolder(tmp_path).start_or_continue(other, {"layout": "clam"})
    assert "mpp" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_versions_are_noted(tmp_path: Path) -> None:
    EmbedFolder(tmp_path).start_or_continue(RECORD | {"versions": {"torch": "0.1"}}, {})
    (note,) = EmbedFolder(tmp_path).start_or_continue(RECORD, {})
    assert note.startswith(f"note: {tmp_path} is continued under other versions")
    assert "torch 0.1 -> " in note


def test_tissue_of_another_version_is_noted(tmp_path: Path) -> None:
    EmbedFolder(tmp_path).start_or_continue(RECORD | {"versions": {"g2l": "0.1.0"}}, {})
    (note,) = EmbedFolder(tmp_path).start_or_continue(RECORD, {})
    assert f"{tmp_path} was begun by another version of G2L (g2l 0.1.0 -> {versions()['g2l']}), which may" in note


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"x{ASIDE_SUFFIX}").touch()
    assert EmbedFolder(tmp_path).require_usable() is None  # nothing but what a killed run left
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(
        EmbedError, match="holds something else than embeddings of g2l embed, and nothing is overwritten"
    ):
        EmbedFolder(tmp_path).start_or_continue(RECORD, {})
    with pytest.raises(EmbedError, match="holds something else"):
        EmbedFolder(tmp_path / "thesis.tex").require_usable()  # a file


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"made_by": {}}',
        '{"made_by": [], "batch_size": 8}',
        '{"made_by": {}, "batch_size": "8"}',
        '{"made_by": {}, "batch_size": 8, "versions": 3}',
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(EmbedError, match=r"embed\.json: damaged \("):
        EmbedFolder(tmp_path).require_usable()


def test_the_record_of_a_finished_folder_has_the_bytes_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "h5_files").mkdir()
    (tmp_path / "h5_files" / "b.h5").write_bytes(b"123")
    (tmp_path / "a.h5").write_bytes(b"1")
    files = [tmp_path / "h5_files" / "b.h5", tmp_path / "a.h5", tmp_path / "gone.h5"]
    EmbedFolder(tmp_path).note_finished({"slides": 2}, files)
    assert json.loads((tmp_path / FINISHED_FILE).read_text()) == {"slides": 2, "files": {"a.h5": 1, "h5_files/b.h5": 3}}


# --- failures ---


def test_failures_are_written_at_once_by_slide_and_go_when_they_are_mended(tmp_path: Path) -> None:
    folder = EmbedFolder(tmp_path)
    folder.note_failures("b", [Failure("b", None, None, WHOLE_SLIDE, "no tissue")])
    folder.note_failures("a", [Failure("a", 0, 64, "UNREADABLE", "x"), Failure("a", 64, 64, "UNREADABLE", 'x, "y"')])
    assert lines_of(tmp_path) == [("a", "0", "UNREADABLE"), ("a", "64", "UNREADABLE"), ("b", "", WHOLE_SLIDE)]
    folder.note_failures("a", [])
    assert lines_of(tmp_path) == [("b", "", WHOLE_SLIDE)]
    folder.note_failures("b", [])
    assert not (tmp_path / FAILURES_FILE).exists()
    folder.note_failures("c", [])
    assert not (tmp_path / FAILURES_FILE).exists()


def test_failures_of_a_slide_are_formatted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2,000 failed slides all lines were formatted for each: 54 s of a core."""
    folder, num_rows = EmbedFolder(tmp_path), 0

    def counted(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
        nonlocal num_rows
        num_rows += len(rows)
        return table_text(columns, rows)

    monkeypatch.setattr("pipeline.features.folder.table_text", counted)
    failed = [Failure(f"s{number:02d}", number, 64, "UNREADABLE", '=x, "y"\n\udcff') for number in range(40)]
    for failure in reversed(failed):
        folder.note_failures(failure.slide_id, [failure])
    folder.note_failures("s07", [failed[7], failed[7]])
    folder.note_failures("s08", [])
    assert num_rows == 40 + 2
    rows = [asdict(failure) for failure in [*failed[:8], failed[7], *failed[9:]]]
    write_records(tmp_path / "expected.csv", rows)
    assert (tmp_path / "failures.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_failures_of_finished_slides_are_taken_over(tmp_path: Path) -> None:
    """Not those of slides that are to be done again; and where the list is gone, their number."""
    first = EmbedFolder(tmp_path)
    first.note_failures("a", [Failure("a", 0, 64, "UNREADABLE", "x"), Failure("a", 1, 64, "NOT_FINITE", "y")])
    first.note_failures("gone", [Failure("gone", None, None, WHOLE_SLIDE, "no such slide")])
    before = (tmp_path / FAILURES_FILE).read_text().splitlines()
    again = EmbedFolder(tmp_path)
    again.read_failures({"a": mark(2), "whole": mark(0)})
    again.write_failures()
    assert (tmp_path / FAILURES_FILE).read_text().splitlines() == before[:3]
    for spoil in (lambda path: path.unlink(), lambda path: path.write_text("no\ntable\n")):
        spoil(tmp_path / FAILURES_FILE)
        other = EmbedFolder(tmp_path)
        other.read_failures({"a": mark(2)})
        other.write_failures()
        assert lines_of(tmp_path) == [("a", "", "PATCHES")]
        assert "2 patches were left out" in (tmp_path / FAILURES_FILE).read_text()


@pytest.mark.parametrize("num", [1, 2])
def test_a_finished_slide_that_cannot_be_used_now_keeps_what_is_known_of_its_patches(tmp_path: Path, num: int) -> None:
    """However many there are, and however often it is said."""
    marks = {"a": mark(num)}
    EmbedFolder(tmp_path).note_failures("a", [Failure("a", x, 64, "UNREADABLE", "x") for x in range(num)])
    before, patches = (tmp_path / FAILURES_FILE).read_bytes(), lines_of(tmp_path)
    for _ in range(2):
        away = EmbedFolder(tmp_path)
        away.read_failures(marks)
        for _ in range(2):
            away.note_failures("a", [Failure("a", None, None, WHOLE_SLIDE, "no such slide")])
            assert lines_of(tmp_path) == [*patches, ("a", "", WHOLE_SLIDE)]
    back = EmbedFolder(tmp_path)
    back.read_failures(marks)
    back.write_failures()
    assert (tmp_path / FAILURES_FILE).read_bytes() == before
    back.note_failures("a", [])  # tried again, all of them are there
    assert not (tmp_path / FAILURES_FILE).exists()


def test_a_whole_slide_s_line_stands_for_no_patch_of_a_finished_slide(tmp_path: Path) -> None:
    (tmp_path / FAILURES_FILE).write_text(f"slide_id,x,y,status,reason\na,,,{WHOLE_SLIDE},no such slide\n")
    folder = EmbedFolder(tmp_path)
    folder.read_failures({"a": mark(1)})
    folder.write_failures()
    assert lines_of(tmp_path) == [("a", "", "PATCHES")]


def test_a_line_that_was_changed_by_hand_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / FAILURES_FILE).write_text("slide_id,x,y,status,reason\na,left,64,UNREADABLE,x\nb,3,64,UNREADABLE,x\n")
    folder = EmbedFolder(tmp_path)
    folder.read_failures({"a": mark(1), "b": mark(1)})
    folder.write_failures()
    assert lines_of(tmp_path) == [("a", "", "PATCHES"), ("b", "3", "UNREADABLE")]
