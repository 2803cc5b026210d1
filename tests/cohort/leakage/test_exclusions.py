"""Cases that must not be trained on: found by case, slide, file and barcode; a list that cannot be used is refused."""

from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError, G2LError
from pipeline.cohort.leakage.exclusions import Listed, exclude_rows, listed_ids, part_by_lists
from pipeline.cohort.manifest.rows import ManifestRow

ROWS = (
    ManifestRow("a", "brca/TCGA-3C-AALI-01Z-00-DX1.F6E9.svs", "TCGA-3C-AALI"),
    ManifestRow("b", "TCGA-3C-AALI-01Z-00-DX2.CF44.svs", "b", has_case=False),
    ManifestRow("c", "plain/three.svs", "Patient 3"),
    ManifestRow("d", "plain/four.svs", "Patient 3"),
    ManifestRow("e", "five.svs", "e", has_case=False),
    ManifestRow("f", "TCGA-3C-AALJ-01Z-00-DX1.777C.svs", "private 7"),
    ManifestRow("g", "seven.svs", "private 7"),
    ManifestRow("h", "x/scan.svs", "Case #3"),
    ManifestRow("i", "y/scan.svs", "12/345"),
    ManifestRow("j", "z/normal_001.ome.TIFF", "private 8"),
)
NUMBERED = ("0012", "7", "120", "007.svs", "1.5")
"""Cases, each of a slide of its own."""
UUID = "378778d2-b331-4867-a93b-c64028c8b4c7"


def excluded_by(folder: Path, text: str, name: str = "list.txt") -> set[str]:
    (folder / name).write_text(text)
    return set(exclude_rows(ROWS, [str(folder / name)]).excluded_ids)


@pytest.mark.parametrize(
    ("text", "excluded"),
    [
        ("12", "0012"),  # as a spreadsheet saves it
        ("12.0", "0012"),  # as pandas does where another cell is empty
        ("012.000\n7.0", "0012 7"),
        ("case_id\n120.0\n", "120"),
        ("1", ""),
        ("12.5\n-12\n1 2\n0\n", ""),
        ("1.50", ""),
    ],
)
def test_numbers_count_without_the_zeros_that_tables_take_off_or_add(tmp_path: Path, text: str, excluded: str) -> None:
    rows = [ManifestRow(f"s{place}", f"s{place}.svs", case_id) for place, case_id in enumerate(NUMBERED)]
    (tmp_path / "list.txt").write_text(text)
    found = exclude_rows(rows, [str(tmp_path / "list.txt")])
    assert [row.case_id for row, _ in found.excluded] == excluded.split()


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
        ('"case_id"\n"e"\n', "e"),  # R's write.csv
        ("\u200be\nPatient\u00a03\n", "cde"),  # out of a web page, or of Word
        ("case_id,n\nTCGA-\u200b3C-AALJ,1\npatient  3\u200b,2\n", "cdfg"),
        ('"Patient 3"\ne\n', "cde"),
        ('"case_id"\n"TCGA-3C-AALJ"\n', "fg"),
        ("e # why, and; where", "e"),
        ("e\t# why", "e"),
        ('"e" # why', "e"),
        ("e # unlike b\nTCGA-3C-AALJ # see the table, line 3", "efg"),
        ("case_id # of the paper\ne\n", "e"),
        ("Case #3", "h"),
        ("12/345", "i"),
        ("nobody\ne,a note", "e"),
        ("nobody\ne;a note\nc\tanother", "cde"),
        ("images/three.svs", "cd"),
        ("/tmp/x/Three.SVS", "cd"),
        (r"C:\slides\three.svs", "cd"),
        (r"plain\three.svs", "cd"),
        ("/data/TCGA-BRCA/three.svs", "cd"),
        ("s3://bucket/TCGA-3C-AALJ/three.svs", "cdfg"),
        ("scan.svs", "hi"),
        ("/data/x/scan.svs", "h"),  # as many folders as a slide's path has
        ("y/scan.svs", "i"),
        ("z/scan.svs", "hi"),
        ("normal_001", "j"),  # by the name of its file, which is neither its id nor its case
        ("Normal_001.svs", "j"),  # the file before it was converted
        ("z/normal_001.svs", "j"),
        ("y/scan.tif", "i"),
        ("normal_001.txt", ""),
        ("normal_0", ""),
        ("e.ndpi", "e"),
        ("private 8.svs", "j"),
    ],
)
def test_a_text_names_cases_in_many_ways(tmp_path: Path, text: str, excluded: str) -> None:
    assert excluded_by(tmp_path, text) == set(excluded)


@pytest.mark.parametrize(
    ("text", "excluded"),
    [
        ("subset,slide_id,patch_id\nID,TCGA-3C-AALI-01Z-00-DX1,0_0\nID,TCGA-3C-AALI-01Z-00-DX1,0_1\n", "ab"),
        ("slide_id,case_id\ne,Patient 3\n", "cde"),
        ("slide_id,case_id\ne,\n", "e"),
        ("File Name\tsize\nfive.svs\t3\n", "e"),
        (f"case_id\tcase_submitter_id\tproject_id\n{UUID}\tTCGA-3C-AALI\tTCGA-BRCA\n", "ab"),  # GDC's clinical.tsv
        (f"project.project_id\tcases.case_id\tcases.submitter_id\nTCGA-BRCA\t{UUID}\tTCGA-3C-AALI\n", "ab"),  # newer
        ("case_id,slide_id\nfoo,B\n", "b"),
        ("slide_id,filename\nfoo,bar/three.svs\n", "cd"),
        ("case_id,Case ID\nfoo,e\n", "e"),
        ("case_id,barcode\ne,TCGA-3C-AALI TCGA-3C-AALJ\n", "abefg"),
        ("case_id,filename\ne,tcga_0001.png\n", "e"),
        ("filename,x\nC:\\slides\\three.svs,1\n", "cd"),
        ("filename,x\n/data/TCGA-BRCA/three.svs,1\n", "cd"),
        ('"case_id","x"\n"e","1"\n', "e"),
        ("# x\ncase_id,site\ne,X\n", "e"),
        ("# x, y\n\n# z\ncase_id,site\ne,X\n", "e"),
        ("# cases, patient\ncase_id,site\ne,X\n", "e"),
        ('# an open " quote\ncase_id\tsite\ne\tX\n', "e"),
        ("#,case_id,type\n1,e,slide\n", "e"),
        ("#case_id\tsite\ne\tX\n", "e"),
        ("# x,case_id\nfoo,e\n", "e"),
        ("case_id,site\n# note,b\n#3,X\ne,X\n", "e"),
        ("case_id,slide_id\n#3,e\n", "e"),
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
        (b"case_id;site\ne;X\n", "line 1: its cells are separated by semicolons; save it with commas instead"),
        (b"# x\nsubmitter_id;x\nTCGA-3C-AALI;1\ne;2\n", "line 2: its cells are separated by semicolons; save it with"),
        (b"e;X\nb;Y\n", "line 1: its cells are separated by semicolons"),
        (b"case_id|site\ne|X\n", "line 1: its cells are separated by vertical bars"),
        (b'"case_id" "site"\n"1" "e" "X"\n', "line 1: its cells are separated by blanks"),
        (b'"case_id"\n"1" "e"\n', "line 2: its cells are separated by blanks"),
        (b"\tcase_id\n1\te\n", "unnamed columns"),
        (b"case_id,case_submitter_id\nfoo,TCGA-3C\n", "line 2: 'TCGA-3C' is no TCGA barcode"),
        (b"# a\ncase_id,age\n1,2\n3\n", "line 4: 1 cells where"),
        (b"# TCGA\ncase_id,age\nTCGA-3C,2\n", "line 3: 'TCGA-3C' is no TCGA barcode"),
        (b"TCGA-3C-AALI/TCGA-3C-AALJ/x.svs\n", "no TCGA barcode"),
        (b"#cases,patient\ncase_id,site\ne,X\n", "both line 1 and line 2 may name the columns"),
        (b"# x, y\nage,weight\n3,4\n", "without a column .*it has age, weight"),
        (b"case_id,x\nn/a,1\n", "lists no case"),
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


def test_a_row_counts_once_and_is_found_by_any_of_its_cells(tmp_path: Path) -> None:
    rows = (f"{UUID},TCGA-3C-AALI,x.svs", f"{UUID},TCGA-3C-AALI,y.svs", "foo,,five.svs", "bar,,gone.svs", "foo,,z.svs")
    (tmp_path / "mine.csv").write_text("\n".join(["case_id,case_submitter_id,file_name", *rows]))
    assert listed_ids(str(tmp_path / "mine.csv")) == ["TCGA-3C-AALI", "foo", "bar"]
    parted = exclude_rows(ROWS, [str(tmp_path / "mine.csv")])
    assert [(row.slide_id, reason) for row, reason in parted.excluded] == [
        ("a", "--exclude-cases: TCGA-3C-AALI is in mine.csv"),
        ("b", "--exclude-cases: TCGA-3C-AALI is in mine.csv"),
        ("e", "--exclude-cases: five.svs is in mine.csv"),
    ]
    assert parted.notes == (
        "--exclude-cases: 3 slides of 3 cases left out of the plan, by 3 listed",
        "--exclude-cases: of 1 listed there is no slide: bar",
    )


def test_rows_that_name_one_slide_are_all_found(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("case_id,slide_id\nfoo,B\nbar,B\n")
    assert len(exclude_rows(ROWS, [str(tmp_path / "mine.csv")]).notes) == 1


def test_the_reason_names_a_path_as_it_is_listed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("images/five.svs\n")
    ((_, reason),) = exclude_rows(ROWS, [str(tmp_path / "mine.txt")]).excluded
    assert reason == "--exclude-cases: images/five.svs is in mine.txt"


def test_lists_without_any_slide_are_suspicious() -> None:
    notes = part_by_lists(ROWS, [Listed(("nobody",), "x"), Listed(("no one",), "x")]).notes
    assert "one kind of id?" in notes[1]
    assert part_by_lists(ROWS, []).kept == ROWS


def test_the_order_of_rows_does_not_matter() -> None:
    listed = [Listed(("c",), "x"), Listed(("TCGA-3C-AALJ", "d"), "y")]
    forth, back = part_by_lists(ROWS, listed), part_by_lists(ROWS[::-1], listed)
    assert forth.excluded == back.excluded[::-1]
    assert forth.notes == back.notes
