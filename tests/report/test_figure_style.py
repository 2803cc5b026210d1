"""What the report's figures share: axes that end where scores do, and what is said of chance."""

from math import nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from support.scores import score

from pipeline.report import figure_style
from pipeline.report.content import Interval, Score
from pipeline.report.figure_style import DPI, alt_of, canvas_of, chance_fits, chance_in_words, draw_chance, write_title


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


@pytest.mark.slow
@given(st.floats(0, 1), st.floats(0, 1), st.none() | st.floats(0, 1), st.sampled_from((0.03, 0.07)))
def test_every_score_lies_within_its_axis(one: float, other: float, chance: float | None, room: float) -> None:
    axes = Figure().add_subplot()
    low, high = sorted((one, other))
    figure_style.set_range(axes, "y", Score("s", {"a": Interval(low, low, high)}, chance), room=room)
    start, end = axes.get_ylim()
    assert start < low <= high < end
    assert end - start >= 0.1
    assert end <= 1 + room * (1 + 1e-9) * (end - start)


def test_a_figure_has_its_size_and_is_written_when_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with canvas_of(2.0, 1.5, path) as canvas:
        canvas.add_subplot()
        assert not path.exists()
    with Image.open(path) as image:
        assert image.size == (2 * DPI, 1.5 * DPI)
        assert "Software" not in image.info


def test_a_figure_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="while drawing"), canvas_of(2.0, 1.5, tmp_path / "a.png"):
        raise RuntimeError("while drawing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "chance", "fits"),
    [
        ([0.6, 0.8], 0.5, True),
        ([0.93, 0.95], 0.02, False),
        ([0.93, 0.95], None, False),
        ([0.9], 0.7, True),
        ([nan], 0.5, True),
    ],
)
def test_chance_is_a_line_where_it_stretches_the_axis_little_and_words_elsewhere(
    values: list[float], chance: float | None, fits: bool
) -> None:
    one = score({str(i): value for i, value in enumerate(values)}, "s", chance)
    drawn: list[float] = []
    words = draw_chance(one, lambda at, **_: drawn.append(at))
    assert chance_fits(one) == fits
    assert drawn == ([chance] if fits else [])
    assert words == ("" if fits or chance is None else "chance: 0.02")
    assert ("dashed line" in chance_in_words([one])) == fits
    assert ("0.02 for s" in chance_in_words([one])) == bool(words)


def test_who_cannot_see_a_figure_is_told_the_best_of_each_score() -> None:
    scores = [score({"a": 0.8, "b": 0.9, "c": nan}, "first"), score({"a": nan}, "second")]
    words = alt_of("Dots", scores)
    assert words == "Dots, a panel a score. first: highest b with 0.900. The tables have all numbers."


def test_a_title_has_two_lines_at_most() -> None:
    axes = Figure().add_subplot()
    write_title(axes, "word " * 60, 3)
    lines = axes.get_title(loc="left").splitlines() or axes.get_title().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 34 for line in lines)
