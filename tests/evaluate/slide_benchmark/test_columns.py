"""Columns of a table of slides: other names, capitals and blanks, and which slides are of one case or patient."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.slide_sets import bags_of, make

from pipeline.base.errors import BenchmarkError
from pipeline.disk.tables import Problem
from pipeline.evaluate.slide_benchmark.columns import find_columns
from pipeline.evaluate.slide_benchmark.data import read_slide_set


@pytest.mark.parametrize(
    ("case", "center"), [("patient", "centre"), ("patient_id", "medical_center"), ("case", "centre")]
)
def test_other_names_of_the_columns_count(tmp_path: Path, case: str, center: str) -> None:
    csv = f"slide_id,{case},tp53,{center}\ns1,A,mut,north\ns2,A,mut,north\ns3,B,wt,NA\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    assert bags_of(found) == {"A": ("A", "mut", ("s1", "s2")), "B": ("B", "wt", ("s3",))}
    assert [bag.center for bag in found.bags] == ["north", ""]


def test_columns_without_a_meaning_are_told(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(14)]
    csv = f"slide_id,patient,splt,tp53,{','.join(names)}\ns1,A,test,mut{',x' * 14}\ns2,B,train,wt{',x' * 14}\n"
    (note,) = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2"]})).notes
    listed = ", ".join(repr(name) for name in ["splt", *names[:11]])
    assert note == f"Unused columns of the CSV: {listed} and 3 more."


def test_a_label_may_be_called_as_another_name_of_a_column(tmp_path: Path) -> None:
    csv = "case_id,centre\nA,north\nB,south\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["A", "B"]}, label="centre"))
    assert [bag.label for bag in found.bags] == ["north", "south"]


@pytest.mark.parametrize("case", ["PATIENT", "Case_ID", "Patient_Id"])
def test_columns_may_be_in_capitals(tmp_path: Path, case: str) -> None:
    csv = f"Slide_ID,{case},tp53,Centre,SPLIT\ns1,A,mut,n,Train\ns2,A,mut,n,train\ns3,B,wt,s,TEST\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    assert bags_of(found) == {"A": ("A", "mut", ("s1", "s2")), "B": ("B", "wt", ("s3",))}
    assert [(bag.center, bag.split) for bag in found.bags] == [("n", "train"), ("s", "test")]
    assert found.notes == ()


def test_columns_that_are_spelled_alike_are_an_error(tmp_path: Path) -> None:
    csv = "slide_id,patient,PATIENT,tp53\ns1,A,B,mut\n"
    with pytest.raises(BenchmarkError, match="columns patient, PATIENT are spelled alike"):
        read_slide_set(*make(tmp_path, csv, {"uni": ["s1"]}))


def test_a_patient_holds_its_cases(tmp_path: Path) -> None:
    csv = "slide_id,case_id,patient,tp53\ns1,A1,P,mut\ns2,A2,P,mut\ns3,B1,Q,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    assert bags_of(found) == {"P": ("P", "mut", ("s1", "s2")), "Q": ("Q", "wt", ("s3",))}
    assert found.notes == (
        "The column case_id divides patients, so that folds and intervals go by patient, not by it.",
    )
    (tmp_path / "labels.csv").write_text("slide_id,case_id,patient,tp53\ns1,A1,P,mut\ns2,A1,Q,wt\n")
    with pytest.raises(BenchmarkError, match="case_id 'A1' is of patient 'P' and 'Q'"):
        read_slide_set(tmp_path / "labels.csv", "tp53", [("uni", tmp_path / "uni")])


ROW = st.tuples(*[st.integers(0, 2)] * 3, *[st.booleans()] * 3)


@pytest.mark.slow
@given(st.lists(ROW, min_size=4, max_size=12), st.permutations([0, 1, 2]))
def test_slides_that_share_a_case_or_a_patient_are_never_parted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, ...]], order: list[int]
) -> None:
    """Of patients with cases with parts, three columns in any order and with gaps: none is parted, none are mixed."""
    ids = [
        [f"P{p}" if has_p else "", f"P{p}C{c}" if has_c else "", f"P{p}C{c}D{d}" if has_d else ""]
        for p, c, d, has_p, has_c, has_d in rows
    ]
    names = ["patient", "case_id", "case"]
    header = ["slide_id", *(names[j] for j in order), "tp53"]
    lines = [[f"s{i}", *(cells[j] for j in order), "xy"[i % 2]] for i, cells in enumerate(ids)]
    csv = "\n".join(",".join(cells) for cells in [header, *lines]) + "\n"
    folder = tmp_path_factory.mktemp("sets")
    found = read_slide_set(*make(folder, csv, {"uni": [f"s{i}" for i in range(len(rows))]}))
    case_of = {slide: bag.case_id for bag in found.bags for slide in bag.slides}
    assert len(case_of) == len(rows)
    patients: dict[str, int] = {}
    for i, row in enumerate(rows):
        assert patients.setdefault(case_of[f"s{i}"], row[0]) == row[0]
    for column in range(3):
        of: dict[str, str] = {}
        for i, cells in enumerate(ids):
            if cells[column]:
                assert of.setdefault(cells[column], case_of[f"s{i}"]) == case_of[f"s{i}"]


@pytest.mark.parametrize(
    ("csv", "cases", "words"),
    [
        ("case_id,patient\nC0,P0\nC0,P0\n,P1\n,P1\n", ["P0", "P0", "P1", "P1"], ""),
        ("case_id,patient\nC0,Q\nC1,Q\nC2,\nC2,\n", ["Q", "Q", "C2", "C2"], "2 of 4 rows have no patient and go by"),
        ("case_id,patient\nC0,Q\nC0,\nC1,R\n,\n", ["C0", "C0", "C1", "s3"], "1 of 4 slides have no case_id or patient"),
        ("case_id,patient\nC0,Q\nC0,\nC1,Q\nC2,R\n", ["Q", "Q", "Q", "R"], "1 of 4 rows have no patient, and that of"),
        ("Case ID,patient\nC0,nan\nC0,NA\nC1,\nC1,\n", ["C0", "C0", "C1", "C1"], ""),
    ],
)
def test_gaps_of_one_column_are_filled_by_the_other(tmp_path: Path, csv: str, cases: list[str], words: str) -> None:
    head, *lines = csv.splitlines()
    table = [f"slide_id,{head},tp53", *(f"s{i},{line},{'xy'[i % 2]}" for i, line in enumerate(lines))]
    found = read_slide_set(*make(tmp_path, "\n".join(table) + "\n", {"uni": [f"s{i}" for i in range(4)]}))
    case_of = {slide: bag.case_id for bag in found.bags for slide in bag.slides}
    assert [case_of[f"s{i}"] for i in range(4)] == cases
    assert words in " ".join(found.notes)
    assert sum("rows have no" in note or "slides have no" in note for note in found.notes) == bool(words)


@pytest.mark.parametrize("slide", ["slide", "Slide ID", "slide-id", "FILENAME"])
@pytest.mark.parametrize("case", ["Patient ID", "Case ID", "patient-id"])
def test_names_of_columns_may_have_blanks_and_dashes(tmp_path: Path, slide: str, case: str) -> None:
    csv = f"{slide},{case},tp53,Medical Center\ns1,A,mut,n\ns2,A,mut,n\ns3,B,wt,s\n"
    path, label, features = make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]})
    found = read_slide_set(path, label, features)
    assert bags_of(found) == {"A": ("A", "mut", ("s1", "s2")), "B": ("B", "wt", ("s3",))}
    assert ([bag.center for bag in found.bags], found.notes) == (["n", "s"], ())
    path.write_text(csv.replace("s2,A", ",A"))
    with pytest.raises(BenchmarkError, match=f"line 3: {slide} is empty"):
        read_slide_set(path, label, features)
    path.write_text(csv.replace("s2,A", "s2,nan"))
    with pytest.raises(BenchmarkError, match=f"line 3: {case} 'nan' stands for a missing value"):
        read_slide_set(path, label, features)
    path.write_text(f"{case},tp53\nA,mut\n,wt\n")
    with pytest.raises(BenchmarkError, match=f"line 3: {case} is empty; fill it in on every line"):
        read_slide_set(path, label, features)


def records_of(text: str) -> list[tuple[int, dict[str, str]]]:
    """Lines and cells of a table without quotes."""
    header, *lines = [line.split(",") for line in text.splitlines()]
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in enumerate(lines, start=2)]


def test_columns_come_under_their_first_names_and_the_others_under_their_own() -> None:
    problems: list[Problem] = []
    records = records_of("Slide-ID,PATIENT,tp53,Centre,age\n s1 ,A,mut,n,40\ns2,B,wt,s,50")
    found = find_columns(records, "tp53", problems)
    assert problems == []
    assert found.written == {"slide_id": "Slide-ID", "case_id": "PATIENT", "center": "Centre"}
    assert (found.case_columns, found.groups, found.unused, found.note) == (("PATIENT",), ("A", "B"), ("age",), "")
    assert found.records == [
        (2, {"tp53": "mut", "age": "40", "slide_id": "s1", "case_id": "A", "center": "n"}),
        (3, {"tp53": "wt", "age": "50", "slide_id": "s2", "case_id": "B", "center": "s"}),
    ]


def test_words_for_a_missing_case_are_problems_unless_another_column_has_it() -> None:
    problems: list[Problem] = []
    find_columns(records_of("slide_id,case_id,patient,y\ns1,nan,P,a\ns2,NA,,b\ns3,,,b"), "y", problems)
    assert [line for line, _ in problems] == [3]
    assert problems[0][1].startswith("case_id 'NA' stands for a missing value; give the case")


def test_a_label_that_is_a_column_of_cases_groups_nothing() -> None:
    found = find_columns(records_of("slide_id,case_id\ns1,A\ns2,B"), "case_id", [])
    assert (found.case_columns, found.groups, "case_id" in found.written) == ((), ("", ""), False)
    assert [cells["case_id"] for _, cells in found.records] == ["A", "B"]


def test_a_table_without_rows_has_no_columns() -> None:
    found = find_columns([], "y", [])
    assert (found.records, found.written, found.groups, found.unused) == ([], {}, (), ())
