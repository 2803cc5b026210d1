"""Bags of a slide benchmark: what is left without broken slides, and sets that give no number."""

from pathlib import Path

import pytest
from support.slide_sets import bags_of, make

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.slide_benchmark.bags import Bag, named
from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.report.content import Exclusion


def test_broken_slides_leave_for_all_models(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,mut\ns2,A,mut\ns3,B,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"], "conch": ["s1", "s2", "s3"]}))
    left = found.without({"s3": "uni: NaN", "s1": "conch: unreadable"})
    assert bags_of(left) == {"A": ("A", "mut", ("s2",))}
    assert {model: list(files) for model, files in left.files.items()} == {"uni": ["s2"], "conch": ["s2"]}
    assert left.exclusions == (
        Exclusion("slide s1 of case A", "conch: unreadable"),
        Exclusion("slide s3 of case B", "uni: NaN"),
        Exclusion("case B", "no slide of it is left"),
    )
    assert (found.incomplete, left.incomplete) == ((), ("A",))
    assert left.without({}).incomplete == ("A",)
    assert left.without({"s2": "conch: unreadable"}).incomplete == ()


def test_a_centre_of_left_out_slides_alone_is_not_the_case_s(tmp_path: Path) -> None:
    """The report counted it, and the case was of several centres, in no row of the table by centre."""
    csv = "slide_id,case_id,tp53,center\ns1,A,mut,north\ns2,A,mut,south\ns3,B,wt,north\ns4,B,wt,east\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s3", "s4"]}))
    assert [bag.centers for bag in found.bags] == [("north",), ("east", "north")]
    assert [bag.centers for bag in found.without({"s3": "uni: NaN"}).bags] == [("north",), ("east",)]
    (tmp_path / "cases").mkdir()
    of_cases = make(tmp_path / "cases", "case_id,tp53,center\nA,mut,north\nB,wt,\n", {"uni": ["A-1", "A-2", "B-1"]})
    left = read_slide_set(*of_cases).without({"A-1": "uni: NaN"})
    assert [bag.centers for bag in left.bags] == [("north",), ()]


def test_sets_that_give_no_number(tmp_path: Path) -> None:
    csv = "case_id,tp53,kind\nA,mut,x\nB,wt,x\nC,wt,x\nD,mut,x\n"
    path, _, features = make(tmp_path, csv, {"uni": ["A", "B", "C", "D"]})
    read_slide_set(path, "tp53", features).require_scorable(2)
    with pytest.raises(BenchmarkError, match=r"3 folds.*'mut' has 2, 'wt' has 2\. Take fewer with --folds"):
        read_slide_set(path, "tp53", features).require_scorable(3)
    read_slide_set(path, "tp53", features).require_scorable(None)
    with pytest.raises(BenchmarkError, match=r"all 4 cases that are left have the label 'x'"):
        read_slide_set(path, "kind", features).require_scorable(2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "E.h5").touch()
    none = read_slide_set(path, "tp53", [("other", tmp_path / "other")])
    with pytest.raises(BenchmarkError, match=r"no case has both.*4 are left out:\n  case A: no feature file"):
        none.require_scorable(2)


def test_cases_are_counted_where_slides_are_predicted(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,mut\ns2,A,wt\ns3,A,mut\ns4,B,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3", "s4"]}))
    with pytest.raises(BenchmarkError, match="'mut' has 1"):
        found.require_scorable(2)


def test_a_bag_of_several_centres_is_of_no_centre_that_there_is() -> None:
    bags = [Bag("A", "A", "mut", centers, "", ("s1",)) for centers in ((), ("north",), ("north", "south"))]
    assert [bag.center for bag in bags] == ["", "north", "north + south"]


def test_a_slide_that_is_its_own_case_is_named_once() -> None:
    assert (named("s1", "s1"), named("s1", "A")) == ("slide s1", "slide s1 of case A")


def test_a_slide_that_is_predicted_by_itself_leaves_alone(tmp_path: Path) -> None:
    csv = "slide_id,case_id,tp53\ns1,A,mut\ns2,A,wt\ns3,B,wt\n"
    found = read_slide_set(*make(tmp_path, csv, {"uni": ["s1", "s2", "s3"]}))
    left = found.without({"s2": "uni: NaN"})
    assert left.exclusions == (Exclusion("slide s2 of case A", "uni: NaN"),)
    assert (left.slides, left.incomplete) == (["s1", "s3"], ())
    assert found.slides == ["s1", "s2", "s3"]  # the set itself stays
