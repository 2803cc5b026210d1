"""What each case gives: counted by hand, all of few, both ends of many, and a file with those that give nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from support.commands import succeed
from support.extraction import made_up_plan

from pipeline.cohort.audit import EXCLUDED, AuditRow
from pipeline.cohort.plan import SlidePlan
from pipeline.disk.tables import read_table
from pipeline.sampling import TRAIN, VAL
from stages.reports.plan_cases import MOST_CASES, case_table, write_cases


def slide(number: int, case: str, rows: int, *, center: str | None = None, has_case: bool = True) -> SlidePlan:
    split = np.full(rows, TRAIN, np.uint8)
    split[: rows // 10] = VAL
    coords, known = np.zeros((rows, 2), np.int64), made_up_plan().slides[0]
    name = f"slide {number}"
    return replace(
        known, slide_id=name, case_id=case, center=center, coords_l0_px=coords, split=split, has_case=has_case
    )


def test_all_of_few_cases_and_both_ends_of_many() -> None:
    few = [slide(0, "one", 1000), slide(1, "two", 40), slide(2, "one", 500)]
    head, _, *lines = [line.split() for line in case_table(few).splitlines()]
    assert head[:3] == ["case", "slides", "patches"]
    assert lines == [["one", "2", "1,500", "1,350", "150"], ["two", "1", "40", "36", "4"]]
    many = [slide(number, f"case {number:02}", 100 + number) for number in range(MOST_CASES + 7)]
    _, _, *lines = case_table(many).splitlines()
    assert len(lines) == MOST_CASES + 1
    assert lines[0].startswith("case 26")
    assert lines[MOST_CASES // 2].split() == ["...", "7", "more", "791"]
    assert lines[-1].startswith("case 00")


def test_unknown_cases_are_no_table() -> None:
    assert case_table([slide(0, "slide 0", 10, has_case=False)]) == ""


def test_the_file_has_cases_that_give_nothing(tmp_path: Path) -> None:
    slides = (slide(0, "one", 20, center="north"), slide(1, "one", 20, center="south"), slide(2, "two", 10))
    audit = [AuditRow(each.slide_id, "ok", case_id=each.case_id) for each in slides]
    audit += [AuditRow("x", "failed", case_id="two"), AuditRow("y", EXCLUDED, case_id="=three", center="west")]
    write_cases(replace(made_up_plan(), slides=slides, audit=tuple(audit)), tmp_path / "cases.csv")
    records, problems = read_table(tmp_path / "cases.csv", (), ",")
    assert problems == []
    assert [list(record.values()) for _, record in records] == [
        ["=three", "west", "0", "1", "0", "0", "0"],
        ["one", "north + south", "2", "0", "40", "36", "4"],
        ["two", "", "1", "1", "10", "9", "1"],
    ]


def test_centres_of_slides_that_give_nothing_are_listed_as_well(tmp_path: Path) -> None:
    audit = [AuditRow(name, "failed", case_id="one", center=center) for name, center in (("x", "west"), ("y", ""))]
    slides = (slide(0, "one", 20, center="south"),)
    write_cases(replace(made_up_plan(), slides=slides, audit=tuple(audit)), tmp_path / "cases.csv")
    ((_, record),) = read_table(tmp_path / "cases.csv", (), ",")[0]
    assert (record["center"], record["slides_without"]) == ("south + west", "2")


def test_the_command_prints_and_writes_them(cohort: Path, tmp_path: Path) -> None:
    said = succeed("plan", cohort, "--out", tmp_path / "p.h5", "--patch-px", "64", "--patches-per-slide", "5")
    lines = [line.split() for line in said.splitlines()]
    assert all([f"case_{number}", "1", "5"] in [line[:3] for line in lines] for number in range(1, 5))
    assert len((tmp_path / "p.cases.csv").read_text().splitlines()) == 5
