"""Which slides a benchmark has: matching of ids and files, labels, and what is left out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.slide_sets import bags_of, make

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.slide_benchmark.data import case_of_stem, read_slide_set
from pipeline.report.content import Exclusion


def test_cases_have_the_slides_that_are_named_after_them(tmp_path: Path) -> None:
    csv = "case_id,tp53,center\nTCGA-3C-AALI,mut,3C\nTCGA-3C-AALJ,wt,3C\nTCGA-A1-0001,wt,A1\n"
    stems = ["TCGA-3C-AALI-01Z-00-DX1.0AF1", "TCGA-3C-AALI-01Z-00-DX2.0AF2", "TCGA-3C-AALJ", "TCGA-A1-00012-01Z", "X"]
    found = read_slide_set(*make(tmp_path, csv, {"uni": stems}))
    assert found.unit == "case"
    assert bags_of(found) == {
        "TCGA-3C-AALI": ("TCGA-3C-AALI", "mut", tuple(stems[:2])),
        "TCGA-3C-AALJ": ("TCGA-3C-AALJ", "wt", ("TCGA-3C-AALJ",)),
    }
    assert found.exclusions == (Exclusion("case TCGA-A1-0001", "no feature file is named after it"),)
    assert found.notes == ("uni: 2 feature files belong to no row of the CSV.",)
    assert [bag.center for bag in found.bags] == ["3C", "3C"]


def test_a_file_belongs_to_the_longest_case_labelled_or_not(tmp_path: Path) -> None:
    csv = "case_id,tp53\nA,mut\nA-1,wt\nA-2,NA\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["A-1-x", "A-2-x", "A_x"]}))
    assert bags_of(found) == {"A": ("A", "mut", ("A_x",)), "A-1": ("A-1", "wt", ("A-1-x",))}


@given(st.text("ab-. ", min_size=1, max_size=8), st.sets(st.text("ab-. ", min_size=1, max_size=4), max_size=6))
def test_matching_equals_trying_every_case(stem: str, cases: set[str]) -> None:
    fitting = [case for case in cases if stem == case or (stem.startswith(case) and not stem[len(case)].isalnum())]
    assert case_of_stem(stem, cases) == max(fitting, key=len, default=None)


def test_slides_of_a_case_make_one_bag(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53,center,split\ns2,A,mut,north,train\ns1,A,mut,south,train\ns3,B,wt,,test\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    assert bags_of(found) == {"A": ("A", "mut", ("s1", "s2")), "B": ("B", "wt", ("s3",))}
    assert [(bag.centers, bag.split) for bag in found.bags] == [(("north", "south"), "train"), ((), "test")]
    assert (found.unit, found.exclusions) == ("case", ())
    (note,) = found.notes
    assert note.startswith("1 of 2 cases are of several centres: 'A' (north, south). If numbers start again")
    np.testing.assert_array_equal(found.labels, ["mut", "wt"])
    assert found.slides == ["s1", "s2", "s3"]


def test_labels_that_differ_within_a_case_make_the_slide_the_unit(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,mut\ns2,A,wt\ns3,B,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    assert found.unit == "slide"
    assert bags_of(found) == {"s1": ("A", "mut", ("s1",)), "s2": ("A", "wt", ("s2",)), "s3": ("B", "wt", ("s3",))}
    assert "each slide is predicted by itself" in found.notes[0]
    np.testing.assert_array_equal(found.cases, ["A", "A", "B"])


def test_slides_without_a_case_are_cases_and_the_reader_is_told(tmp_path: Path) -> None:
    found = read_slide_set(*make(tmp_path, "slide_id,tp53\ns1,mut\ns2,wt\n", {"uni": ["s1", "s2"]}))
    assert bags_of(found) == {"s1": ("s1", "mut", ("s1",)), "s2": ("s2", "wt", ("s2",))}
    assert "a case of its own" in found.notes[0]


def test_all_models_are_scored_on_the_same_slides(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,mut\ns2,A,mut\ns3,B,wt\ns4,C,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s4"], "conch": ["s1", "s3", "s4"]}))
    assert bags_of(found) == {"A": ("A", "mut", ("s1",)), "C": ("C", "wt", ("s4",))}
    assert {model: list(files) for model, files in found.files.items()} == {"uni": ["s1", "s4"], "conch": ["s1", "s4"]}
    assert found.exclusions == (
        Exclusion("slide s2 of case A", "no feature file for conch"),
        Exclusion("slide s3 of case B", "no feature file for uni"),
        Exclusion("case B", "no slide of it has features of every model"),
    )
    assert found.incomplete == ("A",)


@pytest.mark.parametrize("word", ["", "  ", "NA", "nan", "Unknown", "[Not Available]", "'--", "not reported"])
def test_unknown_labels_are_exclusions(tmp_path: Path, word: str) -> None:
    csv = f"case_id,tp53\nA,mut\nB,{word}\nC,absent\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["A", "B", "C"]}))
    assert list(bags_of(found)) == ["A", "C"]
    (exclusion,) = found.exclusions
    assert exclusion.what == "case B"
    assert "line 3" in exclusion.why


def test_a_slide_without_label_leaves_its_case_incomplete(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,mut\ns2,A,NA\ns3,B,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    assert [exclusion.what for exclusion in found.exclusions] == ["slide s2 of case A"]
    assert found.incomplete == ("A",)


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("case_id,tp53\nA,mut\nB,wt\nA,wt\n", r"case A has several labels: 'mut' \(line 2\), 'wt' \(line 4\)"),
        ("slide_id,case_id,tp53\ns1,A,mut\ns1,A,mut\n", "slide_id s1 is given on lines 2, 3"),
        ("slide_id,tp53,split\ns1,mut,train\n,wt,test\n", "line 3: slide_id is empty"),
        ("case_id,tp53\nA,mut\n,wt\n", "line 3: case_id is empty"),
        ("slide_id,case_id,tp53\ns1,A,mut\ns2,nan,wt\n", "line 3: case_id 'nan' stands for a missing value"),
        ("slide_id,case_id,tp53,split\ns1,A,mut,train\ns2,A,mut,test\n", "case A has several splits: test, train"),
        ("slide_id,case_id,tp53,split\ns1,A,mut,train\ns2,A,mut,\n", "case A has several splits: none, train"),
        ("case_id,label\nA,mut\n", "lacks the column tp53"),
        ("subject,tp53\nA,mut\n", "no column slide_id or case_id"),
        ("case_id,tp53\n", "no rows"),
        ("case_id,tp53\nA,mut,1\n", "3 cells where the header has 2"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path: Path, csv: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "A", "B"]}))


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"gone\.csv: No such file"):
        read_slide_set(tmp_path / "gone.csv", "tp53", [])


def test_the_slide_table_of_stamp_and_names_of_slide_files(tmp_path: Path) -> None:
    csv = "FILENAME,PATIENT,tp53\nsub/s1.h5,A,mut\ns2.0AF1.svs,B,wt\ns3.svs,C,wt\ns4.tar,D,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2.0AF1", "s3.svs", "s3", "s4"]}))
    assert {name: slides for name, (_, _, slides) in bags_of(found).items()} == {
        "A": ("s1",),
        "B": ("s2.0AF1",),
        "C": ("s3.svs",),
    }
    assert [exclusion.what for exclusion in found.exclusions] == ["slide s4.tar of case D", "case D"]


def test_two_names_of_one_slide_are_an_error(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1.svs,A,mut\ns1,B,wt\n"
    with pytest.raises(BenchmarkError, match="slide_id s1 is given on lines 2, 3"):
        read_slide_set(*make(tmp_path, csv, {"uni": ["s1"]}))


def test_files_are_matched_by_the_case_though_a_patient_is_given(tmp_path: Path) -> None:
    csv = "case_id,patient,tp53\nA1,P,mut\nA2,P,mut\nB1,Q,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["A1-x", "A2-x", "B1-x"]}))
    assert bags_of(found) == {
        "A1": ("P", "mut", ("A1-x",)),
        "A2": ("P", "mut", ("A2-x",)),
        "B1": ("Q", "wt", ("B1-x",)),
    }
    assert found.notes == (
        "The column case_id divides patients, so that folds and intervals go by patient, not by it.",
    )
    splits = "case_id,patient,tp53,split\nA1,P,mut,train\nA2,P,mut,test\nB1,Q,wt,test\n"
    (tmp_path / "labels.csv").write_text(splits)
    with pytest.raises(BenchmarkError, match="case P has several splits: test, train"):
        read_slide_set(tmp_path / "labels.csv", "tp53", [("uni", tmp_path / "uni")])


def test_a_case_that_another_row_labels_is_not_left_out(tmp_path: Path) -> None:
    csv = "PATIENT_ID,SAMPLE_ID,tp53\nA,A-00,NA\nA,A-01,mut\nB,B-01,wt\nC,C-01,NA\nC,C-02,NA\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["A", "B", "C"]}))
    assert list(bags_of(found)) == ["A", "B"]
    assert [(e.what, e.by_rule) for e in found.exclusions] == [("case C", True)] * 2
    assert found.notes[0] == "1 row has no label, but is of cases that other rows label, and counts for nothing."


def test_a_patient_of_several_cases_is_told(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,TCGA-3C-AALI-01A,mut\ns2,TCGA-3C-AALI-11A,mut\ns3,TCGA-3C-AALK,wt\n"
    (note,) = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]})).notes
    assert "1 patient has several names among the cases: TCGA-3C-AALI (TCGA-3C-AALI-01A, TCGA-3C-AALI-11A)" in note


def test_cases_that_are_missing_are_counted(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,mut\ns2,,mut\ns3,,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    assert found.notes == ("2 of 3 slides have no case_id, and each counts as a case of its own.",)
    (tmp_path / "labels.csv").write_text("slide_id,case_id,tp53\ns1,,mut\ns2,,wt\n")
    (note,) = read_slide_set(tmp_path / "labels.csv", "tp53", [("uni", tmp_path / "uni")]).notes[:1]
    assert "every slide counts as a case of its own" in note


def test_words_that_may_not_be_meant(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,Mut\ns2,B,mut\ns3,b,wild type\ns4,7,wildtype\ns5,7.0,mut\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3", "s4", "s5"]}))
    assert found.notes == (
        "These labels differ only in spelling (capitals, blanks, zeros, ...) and count as different: "
        "'Mut' and 'mut'; 'wild type' and "
        "'wildtype'.",
        "These cases differ only in spelling (capitals, blanks, zeros, ...) and count as different: "
        "'7' and '7.0'; 'B' and 'b'.",
    )
    ages = "case_id,age\n" + "".join(f"c{i},{40.5 + i}\n" for i in range(11))
    (tmp_path / "labels.csv").write_text(ages)
    (tmp_path / "ages").mkdir()
    for i in range(11):
        (tmp_path / "ages" / f"c{i}.h5").touch()
    (note,) = read_slide_set(tmp_path / "labels.csv", "age", [("uni", tmp_path / "ages")]).notes
    assert note.startswith("The label age looks like a number: each of its 11 values counts as a class.")
    (tmp_path / "labels.csv").write_text(ages.replace("50.5", "40.5"))  # ten may be grades
    assert read_slide_set(tmp_path / "labels.csv", "age", [("uni", tmp_path / "ages")]).notes == ()
