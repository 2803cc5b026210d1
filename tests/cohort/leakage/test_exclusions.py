"""Cases that must not be trained on: found by case, slide, file and barcode; a list that cannot be used is refused."""

from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError, G2LError
from pipeline.cohort.leakage.exclusions import exclude_rows, listed_ids, part_by_lists
from pipeline.cohort.manifest import ManifestRow

ROWS = (
    ManifestRow("a", "brca/TCGA-3C-AALI-01Z-00-DX1.F6E9.svs", "TCGA-3C-AALI"),
    ManifestRow("b", "TCGA-3C-AALI-01Z-00-DX2.CF44.svs", "b", has_case=False),
    ManifestRow("c", "plain/three.svs", "Patient 3"),
    ManifestRow("d", "plain/four.svs", "Patient 3"),
    ManifestRow("e", "five.svs", "e", has_case=False),
    ManifestRow("f", "TCGA-3C-AALJ-01Z-00-DX1.777C.svs", "private 7"),
    ManifestRow("g", "seven.svs", "private 7"),
)


def excluded_by(folder: Path, text: str, name: str = "list.txt") -> set[str]:
    (folder / name).write_text(text)
    return set(exclude_rows(ROWS, [str(folder / name)]).excluded_ids)


@pytest.mark.parametrize(
    ("text", "excluded"),
    [
        ("TCGA-3C-AALI", "ab"),
        ("TCGA-3C-AALI-01A", "ab"),
        ("tcga-3c-aali-01Z-00-DX9.whatever.svs", "ab"),
        ("patient 3\n", "cd"),
        ("c", "cd"),
        ("three.svs", "cd"),
        ("plain/four.svs", "cd"),
        ("e", "e"),
        ("TCGA-3C-AALJ", "fg"),
        ("# a note\n\ncase_id\ne\n TCGA-3C-AALJ \n", "efg"),
        ("\ufeffe\r\nb\r\n", "be"),
    ],
)
def test_a_text_names_cases_in_many_ways(tmp_path: Path, text: str, excluded: str) -> None:
    assert excluded_by(tmp_path, text) == set(excluded)


@pytest.mark.parametrize(
    ("text", "excluded"),
    [
        ("subset,slide_id,patch_id\nID,TCGA-3C-AALI-01Z-00-DX1,0_0\nID,TCGA-3C-AALI-01Z-00-DX1,0_1\n", "ab"),
        ("slide_id,case_id\ne,Patient 3\n", "cd"),
        ("slide_id,case_id\ne,\n", "e"),
        ("File Name\tsize\nfive.svs\t3\n", "e"),
    ],
)
def test_a_table_has_a_column_of_cases_or_slides(tmp_path: Path, text: str, excluded: str) -> None:
    assert excluded_by(tmp_path, text, "list.csv") == set(excluded)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "lists no case"),
        (b"# nothing\n\n", "lists no case"),
        (b"case_id\n", "lists no case"),
        (b"n/a\n", "lists no case"),
        (b"TCGA-3C\n", "no TCGA barcode"),
        (b"TCGA-3C-AALI TCGA-3C-AALJ\n", "no TCGA barcode"),
        (b"age,weight\n3,4\n", "without a column"),
        (b"case_id,age\n3\n", "cells where"),
        (b"\xff\xfe\x00", "not a list of cases"),
        (
            b"\x89HDF\r\n\x1a\n",
            r"not UTF-8 text from byte 1 on\)\. Give a text file with a case a line, or a CSV or TSV",
        ),
        (b"a\0b", "not a list of cases"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(G2LError, match=words) as error:
        exclude_rows(ROWS, [str(tmp_path / "list")])
    assert "list" in str(error.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for source, words in ((tmp_path, "folder|directory"), (tmp_path / "no.txt", "No such file"), ("tp5", "mean tp53")):
        with pytest.raises(ConfigError, match=words):
            listed_ids(str(source))


def test_a_list_of_the_project_is_named() -> None:
    assert len(listed_ids("tp53")) == 1048
    assert exclude_rows(ROWS, ["tp53"]).excluded_ids == {"a", "b", "f", "g"}


def test_the_reason_names_case_and_list_and_notes_count(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("TCGA-3C-AALI\nnobody\n")
    exclusion = exclude_rows(ROWS, [str(tmp_path / "mine.txt")])
    assert [reason for _, reason in exclusion.excluded] == ["--exclude-cases: TCGA-3C-AALI is in mine.txt"] * 2
    assert exclusion.kept == ROWS[2:]
    assert exclusion.notes == (
        "--exclude-cases: 2 slides of 2 cases left out of the plan, by 2 listed",
        "--exclude-cases: of 1 listed there is no slide: nobody",
    )


def test_lists_without_any_slide_are_suspicious() -> None:
    notes = part_by_lists(ROWS, {"nobody": "x", "no one": "x"}).notes
    assert "one kind of id?" in notes[1]
    assert part_by_lists(ROWS, {}).kept == ROWS


def test_the_order_of_rows_does_not_matter() -> None:
    listed = {"c": "x", "TCGA-3C-AALJ": "y"}
    forth, back = part_by_lists(ROWS, listed), part_by_lists(ROWS[::-1], listed)
    assert forth.excluded == back.excluded[::-1]
    assert forth.notes == back.notes
