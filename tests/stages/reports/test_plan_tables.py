"""Tables by centre and class: their sums, which labels are classes, and how long lists end."""

from dataclasses import replace

import numpy as np
from support.extraction import made_up_plan

from pipeline.cohort.plan import SlidePlan
from pipeline.sampling import TRAIN, VAL
from stages.reports.plan_tables import MOST_GROUPS, balance_tables, class_labels


def slide(number: int, case: str, center: str | None, rows: int, **labels: str) -> SlidePlan:
    split = np.full(rows, VAL if number == 1 else TRAIN, np.uint8)
    coords = np.zeros((rows, 2), np.int64)
    known = made_up_plan().slides[0]
    name = f"slide {number}"
    return replace(known, slide_id=name, case_id=case, center=center, coords_l0_px=coords, split=split, labels=labels)


SLIDES = [
    slide(0, "one", "north", 1000, grade="1", note="x"),
    slide(1, "one", "north", 500, grade="2", note="y"),
    slide(2, "two", None, 40, grade="n/a", note="z"),
    slide(3, "three", "south", 60, grade="1", note="w"),
]


def test_sums_by_centre_case_and_class() -> None:
    lines = [line.split() for line in balance_tables(SLIDES).splitlines()]
    assert ["all", "4", "3", "1,600", "1,100", "40", "60", "1,500"] in lines
    assert ["north", "2", "1", "1,500", "1,000", "1,500", "1,500", "1,500"] in lines
    assert ["(not", "known)", "1", "1", "40", "40", "40", "40", "40"] in lines
    assert ["1", "2", "2", "1,060", "1,060", "60", "530", "1,000"] in lines


def test_only_labels_of_few_values_are_classes() -> None:
    assert class_labels(SLIDES) == ["grade"]
    assert "note" not in balance_tables(SLIDES)
    assert class_labels([]) == []


def test_without_centres_there_is_no_table_of_them_and_long_ones_end() -> None:
    assert "centre" not in balance_tables([SLIDES[2]])
    many = [slide(2, str(number), f"centre {number:02}", 100 - number) for number in range(MOST_GROUPS + 5)]
    text = balance_tables(many)
    assert "... and 5 more with 390 patches; the CSV has all" in text
    assert "centre 19" in text
    assert "centre 20" not in text
