"""The verdict, against its definition written out as a search over numbers."""

from dataclasses import replace
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.public_sets.compare import (
    FAIL,
    NO_PUBLISHED,
    NOT_COMPARABLE,
    NOT_MEASURED,
    PASS,
    compare_with_published,
    verdict_of,
)
from pipeline.public_sets.published import PublishedValue
from pipeline.public_sets.recipe import MetricOfSet
from pipeline.report.content import Interval

METRIC = MetricOfSet("kNN accuracy", 0.02, "why")


def theirs(value: float, low: float | None = None, high: float | None = None, model: str = "uni") -> PublishedValue:
    return PublishedValue("idc", model, METRIC.name, value, low, high, "paper", "source", "table")


def ours(value: float, low: float = nan, high: float = nan) -> Interval:
    return Interval(value, low, high)


@pytest.mark.parametrize(
    ("measured", "published", "verdict"),
    [
        (ours(0.90), theirs(0.92), PASS),
        (ours(0.90), theirs(0.9201), FAIL),
        (ours(0.90), theirs(0.88), PASS),
        (ours(0.90), theirs(0.8799), FAIL),  # a better value is another measurement as well
        (ours(0.90, 0.85, 0.91), theirs(0.93), PASS),  # the upper end faces it: 0.02 + 0.01
        (ours(0.90, 0.85, 0.91), theirs(0.9301), FAIL),
        (ours(0.90, 0.85, 0.91), theirs(0.86), PASS),  # 0.02 + 0.05, cut to 0.02
        (ours(0.90, 0.85, 0.91), theirs(0.8599), FAIL),
        (ours(0.90, 0.0, 1.0), theirs(0.95), FAIL),  # a wide interval passes nothing
        (ours(0.90), theirs(0.95, 0.915, 0.97), PASS),
        (ours(0.90), theirs(0.95, 0.925, 0.97), FAIL),
        (ours(nan), theirs(0.9), NOT_MEASURED),
        (None, theirs(0.9), NOT_MEASURED),
        (ours(0.9), None, NO_PUBLISHED),
        (None, None, NO_PUBLISHED),
    ],
)
def test_verdicts(measured: Interval | None, published: PublishedValue | None, verdict: str) -> None:
    # the numbers are multiples of 1e-4; a half of that more keeps rounding out of the comparison
    metric = MetricOfSet(METRIC.name, METRIC.tolerance + 1e-9, "why")
    assert verdict_of(measured, published, metric) == verdict


def test_values_of_another_definition_are_not_compared() -> None:
    assert verdict_of(ours(0.9), theirs(0.9), MetricOfSet(METRIC.name, 0.02, "why", "other tiles")) == NOT_COMPARABLE


@pytest.mark.parametrize("value", [0.9, 0.1])
def test_values_of_a_part_of_the_set_are_not_compared(value: float) -> None:
    assert verdict_of(ours(value), theirs(0.9), METRIC, "1 of 2 images are there") == NOT_COMPARABLE
    assert verdict_of(ours(value), None, METRIC, "1 of 2 images are there") == NO_PUBLISHED
    both = MetricOfSet(METRIC.name, 0.02, "why", "other tiles")
    rows = compare_with_published("idc", both, {"a": ours(value)}, {"a": "uni"}, [theirs(0.9)], "a part")
    assert [(row.verdict, row.reason) for row in rows] == [(NOT_COMPARABLE, "other tiles; a part")]
    rows = compare_with_published("idc", METRIC, {}, {"a": ""}, [theirs(0.9)], "a part")
    assert [(row.verdict, row.reason) for row in rows] == [(NO_PUBLISHED, "a part"), ("", "")]


@pytest.mark.parametrize(
    ("ours_by", "theirs_by", "verdict"),
    [
        ("g2l", "eva", NOT_COMPARABLE),
        ("eva", "eva", PASS),
        ("plain", "paper", PASS),  # the paper does not say
        ("", "pathorob", PASS),  # no classifier: an index, a ratio, CKA
    ],
)
def test_values_of_two_protocols_are_not_compared(ours_by: str, theirs_by: str, verdict: str) -> None:
    published = replace(theirs(0.9), protocol=theirs_by)
    (row,) = compare_with_published("idc", METRIC, {"a": ours(0.9)}, {"a": "uni"}, [published], protocol=ours_by)
    assert (row.verdict, row.protocol) == (verdict, ours_by)
    assert row.reason == (
        f"the published value is by the protocol {theirs_by}, ours by {ours_by}" if verdict != PASS else ""
    )


@given(st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 1), st.floats(0.001, 0.1))
def test_more_tolerance_or_a_nearer_value_never_turns_a_pass_into_a_fail(
    value: float, below: float, above: float, published: float, tolerance: float
) -> None:
    measured = ours(value, value - below, value + above)
    if verdict_of(measured, theirs(published), MetricOfSet("m", tolerance, "")) == PASS:
        assert verdict_of(measured, theirs(published), MetricOfSet("m", 2 * tolerance, "")) == PASS
        nearer = theirs((published + value) / 2)
        assert verdict_of(measured, nearer, MetricOfSet("m", tolerance + 1e-12, "")) == PASS
        assert abs(value - published) <= 2 * tolerance + 1e-12


def test_our_models_come_first_and_then_the_published_ones_that_we_lack() -> None:
    published = [theirs(0.9, model="uni"), theirs(0.95, model="g2l"), theirs(0.7, model="Virchow")]
    measured = {"student": ours(0.94), "other": ours(0.5)}
    rows = compare_with_published("idc", METRIC, measured, {"student": "g2l", "other": "", "absent": "uni"}, published)
    assert [(row.model, row.published and row.published.model, row.verdict) for row in rows] == [
        ("student", "g2l", PASS),
        ("other", None, NO_PUBLISHED),
        ("absent", "uni", NOT_MEASURED),
        ("", "Virchow", ""),
    ]
