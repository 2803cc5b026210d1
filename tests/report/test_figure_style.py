"""What the report's figures share: axes that end where scores do, and what is said of chance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from pipeline.report import figure_style
from pipeline.report.content import Interval, Score


@pytest.mark.parametrize(
    ("low", "high", "start", "end"),
    [
        (1.0, 1.0, 0.888, 1.003),
        (0.5, 1.0, 0.44, 1.015),
        (0.5, 1.0 + 1e-15, 0.44, 1.015),
        (0.0, 0.02, -0.003, 0.112),
        (0.70, 0.72, 0.648, 0.772),
        (1.0, 7.0, 0.28, 7.72),
        (-0.4, 0.9, -0.556, 1.039),
    ],
)
def test_axes_of_scores_end_where_scores_do(low: float, high: float, start: float, end: float) -> None:
    axes = Figure().add_subplot()
    figure_style.set_range(axes, "x", Score("s", {"a": Interval(low, low, high)}))
    assert axes.get_xlim() == pytest.approx((start, end))
    ticks = axes.get_xticks()
    assert 2 <= len(ticks) <= 7
    assert all(tick <= 1 + 1e-9 for tick in ticks) or high > 1
    assert all(tick >= -1e-9 for tick in ticks) or low < 0


@given(st.floats(0, 1), st.floats(0, 1), st.none() | st.floats(0, 1), st.sampled_from((0.03, 0.07)))
def test_every_score_lies_within_its_axis(one: float, other: float, chance: float | None, room: float) -> None:
    axes = Figure().add_subplot()
    low, high = sorted((one, other))
    figure_style.set_range(axes, "y", Score("s", {"a": Interval(low, low, high)}, chance), room=room)
    start, end = axes.get_ylim()
    assert start < low <= high < end
    assert end - start >= 0.1
    assert end <= 1 + room * (1 + 1e-9) * (end - start)
