"""Whether a set is whole: counts of rows against those that a recipe states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.public_sets.whole import PublishedCounts, why_not_all_used, why_not_whole
from pipeline.report.content import Exclusion, Report, Section

ROWS = [{"label": "a", "slide_id": "1"}, {"label": "a", "slide_id": "2"}, {"label": "b", "slide_id": "2"}]
COUNTS = PublishedCounts("a page", "tiles", 3, {"label": {"a": 2, "b": 1}}, {"slide_id": 2})


def test_the_published_set_is_whole() -> None:
    assert why_not_whole(COUNTS, ROWS, 0) == ""
    assert why_not_whole(COUNTS, ROWS, 5) == ""  # files beside the set's own


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (ROWS[:2], "2 of 3 tiles are there; by label: b 0 of 1"),
        (ROWS[2:], "1 of 3 tiles are there; by label: a 0 of 2; 1 of 2 values of slide_id are there"),
        ([*ROWS, ROWS[0]], "4 tiles are there, 3 are published; by label: a 3 of 2"),
        ([*ROWS[:2], {"label": "c", "slide_id": "1"}], "by label: b 0 of 1, c 1 of 0"),
        ([{"slide_id": str(i)} for i in (1, 2, 3)], "by label:  3 of 0, a 0 of 2, b 0 of 1; 3 values of slide_id are"),
    ],
)
def test_another_set_is_not(rows: list[dict[str, str]], why: str) -> None:
    assert why_not_whole(COUNTS, rows, 0).startswith(why)


def test_a_few_classes_are_named() -> None:
    counts = PublishedCounts("a page", total=5000, by={"label": dict.fromkeys("abcde", 1000)})
    assert (
        why_not_whole(counts, [], 0) == "0 of 5,000 images are there; by label: a 0 of 1,000, b 0 of 1,000, c 0 of "
        "1,000, and 2 more"
    )


def test_without_counts_only_what_failed_can_be_seen() -> None:
    assert why_not_whole(None, ROWS, 0) == ""
    assert why_not_whole(None, ROWS, 1200) == "1,200 members are missing or cannot be read"


def test_what_the_benchmark_cannot_use_is_missing() -> None:
    exclusions = [
        Exclusion("a", "damaged"),
        Exclusion("b", "no status", by_rule=True),
        Exclusion("c", "damaged", count=4),
    ]
    sections = [Section("cost", "", "", {}, [], exclusions=[Exclusion("FLOPs", "not countable")])]
    assert why_not_all_used(Report("", [], "", sections, {}, {}), "patches") == ""
    sections.append(Section("patches", "", "", {}, [], exclusions=exclusions))
    assert why_not_all_used(Report("", [], "", sections, {}, {}), "patches") == "5 could not be used"


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_it_is_whole_only_if_the_counts_are_equal(published: list[str], here: list[str]) -> None:
    by = {"label": {name: published.count(name) for name in set(published)}}
    why = why_not_whole(PublishedCounts("p", total=len(published), by=by), [{"label": name} for name in here], 0)
    assert (why == "") == (sorted(published) == sorted(here))
