"""Figures of a report: the same bytes for the same data, labels that cover nothing, whatever the labels are."""

import hashlib
from math import nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from support.reports import HOSTILE

from pipeline.report import figure_style, size_figure
from pipeline.report import figures as report_figures
from pipeline.report import labels as figure_text
from pipeline.report.content import Interval, ReportModel, Score, Section
from pipeline.report.figures import draw_lines, draw_scores
from pipeline.report.labels import ELLIPSIS, NO_GLYPH, Box, drawable, place_labels, short_labels, shorten
from pipeline.report.size_figure import draw_score_against_size, figure_scores, format_params

BEFORE, AFTER = "student before distillation", "student after distillation"


def models(*labels: str, params: int = 300_000_000) -> list[ReportModel]:
    return [ReportModel(label, "", {}, params + i) for i, label in enumerate(labels)]


def score(values: dict[str, float], name: str = "AUROC", chance: float | None = 0.5) -> Score:
    return Score(name, {label: Interval(value, value - 0.03, value + 0.02) for label, value in values.items()}, chance)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    found, given_scores = models("a", "b"), [score({"a": 0.8, "b": 0.7})]
    hashes: list[set[str]] = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        draw_score_against_size(found, given_scores, {"a": 3.0}, folder / "size.png")
        draw_scores(given_scores, folder / "dots.png", reference="a")
        draw_lines({"a": {1: 0.4, 2: 0.5}}, "k", "accuracy", folder / "curve.png")
        hashes.append({hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 3


def test_a_figure_is_as_wide_as_the_page_takes_it(tmp_path: Path) -> None:
    draw_scores([score({"a": 0.8})] * 3, tmp_path / "dots.png")
    with Image.open(tmp_path / "dots.png") as image:
        assert image.size[0] / image.info["dpi"][0] == pytest.approx(10, rel=0.01)
        assert "Software" not in image.info


@pytest.mark.parametrize("label", [*HOSTILE, "_hidden", "$\\frac{", "", " \n ", "a\x00\udce9b"])
def test_any_label_can_be_drawn(label: str, tmp_path: Path) -> None:
    found = models(label, "other")
    scores = [score({label: 0.8, "other": 0.7}, name=label or "score")]
    assert draw_score_against_size(found, scores, {label: 2.0}, tmp_path / "size.png") is not None
    draw_scores(scores, tmp_path / "dots.png", reference=label)
    draw_lines({label: {1: 0.4, 2: 0.5}, "other": {1: 0.3, 2: 0.6}}, label, label, tmp_path / "curve.png", True)


def test_the_key_names_every_curve_in_the_order_of_their_ends(tmp_path: Path) -> None:
    figure = draw_lines({"low": {1: 0.4, 2: 0.5}, "_high": {1: 0.1, 2: 0.9}}, "k", "y", tmp_path / "c.png")
    assert figure.alt.index("_high ends at 0.900") < figure.alt.index("low ends at 0.500")
    assert "chance" not in figure.caption


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


def test_curves_that_reach_1_have_no_tick_beyond(tmp_path: Path) -> None:
    limits = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_figures, "set_ends", lambda *arguments: limits.append(arguments[1:]))
        draw_lines({"a": {1: 0.9, 2: Interval(0.97, 0.95, 1.0)}}, "k", "y", tmp_path / "c.png", chance=0.5)
    assert limits == [("y", 0.5, 1.0)]


def test_the_caption_says_where_chance_is(tmp_path: Path) -> None:
    near, far = score({"a": 0.8}, "near", 0.7), score({"a": 0.95}, "far", 0.02)
    dots = [draw_scores(drawn, tmp_path / "d.png").caption for drawn in ([near], [far], [near, far])]
    line, beyond = "The dashed line is chance.", "Chance lies beyond the axis: 0.02 for far."
    assert [(line in caption, beyond in caption) for caption in dots] == [(True, False), (False, True), (True, True)]
    size = draw_score_against_size(models("a"), [far], None, tmp_path / "s.png")
    assert size is not None
    assert (line in size.caption, beyond in size.caption) == (False, True)
    assert "hance" not in draw_scores([score({"a": 0.8}, chance=None)], tmp_path / "d.png").caption


def test_curves_without_a_number_are_left_out(tmp_path: Path) -> None:
    figure = draw_lines({"a": {1: nan, 2: 0.5}, "b": {1: nan}}, "k", "y", tmp_path / "c.png", chance=0.5)
    assert "a ends at 0.500" in figure.alt
    assert "b ends" not in figure.alt
    assert "chance" in figure.caption


def test_what_is_left_out_of_the_size_figure_is_told(tmp_path: Path) -> None:
    found = [*models("a", "b"), ReportModel("features only", "", {}, 0)]
    scores = [score({"a": 0.8, "b": nan, "features only": 0.9, "no model": 0.9}, name=f"score {i}") for i in range(8)]
    figure = draw_score_against_size(found, scores, {"a": 1.0}, tmp_path / "size.png")
    assert figure is not None
    assert "not known: features only, no model." in figure.caption
    assert "Without a time, and drawn at the smallest size: b." in figure.caption
    assert "6 of 8 scores are drawn" in figure.caption
    assert "highest a with 0.800" not in figure.alt or "features only" in figure.alt


def test_without_a_size_or_a_score_there_is_no_size_figure(tmp_path: Path) -> None:
    path = tmp_path / "size.png"
    assert draw_score_against_size([ReportModel("a", "", {}, 0)], [score({"a": 0.8})], None, path) is None
    assert draw_score_against_size(models("a"), [score({"a": nan})], None, path) is None
    assert draw_score_against_size(models("a"), [], None, path) is None
    assert not path.exists()


def test_an_arrow_joins_the_student_before_and_after_when_it_is_clear_which(tmp_path: Path) -> None:
    pair = [ReportModel("old", BEFORE, {}, 5), ReportModel("new", AFTER, {}, 5)]
    assert size_figure._pairs(pair) == [("old", "new")]
    assert size_figure._pairs([*pair, ReportModel("older", BEFORE, {}, 5)]) == []
    assert size_figure._pairs([pair[0], ReportModel("new", AFTER, {}, 6)]) == []
    figure = draw_score_against_size(pair, [score({"old": 0.6, "new": 0.8})], None, tmp_path / "size.png")
    assert figure is not None
    assert "arrow" in figure.caption
    assert "set apart" in figure.caption


def test_the_area_of_a_point_is_proportional_to_time() -> None:
    areas = size_figure._areas(["a", "b", "c"], {"a": 40.0, "b": 10.0})
    assert areas["a"] == 4 * areas["b"]
    assert areas["c"] == size_figure.SMALLEST_AREA


def test_scores_of_cost_are_not_drawn_against_size() -> None:
    scores = [score({}, name="patches"), Score("times faster", {}, is_cost=True), score({}, name="slides")]
    made = [Section(one.name, one.name, "", {}, [], scores=[one]) for one in scores]
    assert [found.name for found in figure_scores(made)] == ["patches", "slides"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(999, "999"), (374_000, "374 K"), (21_665_664, "22 M"), (303_966_208, "304 M"), (1_134_774_272, "1.1 B"),
     (1_000_000_000, "1 B"), (999_900_000, "1 B"), (2_500_000, "2.5 M")],
)  # fmt: skip
def test_numbers_of_parameters_in_words(count: int, words: str) -> None:
    assert format_params(count) == words


@pytest.mark.parametrize(
    ("value", "words"), [(130.17, "130"), (32.5, "32"), (8.13, "8.1"), (0.0456, "0.046"), (1.0, "1.0"), (99.7, "100")]
)
def test_times_have_two_digits_and_no_exponent(value: float, words: str) -> None:
    assert size_figure._two_digits(value) == words


def test_short_labels_stay_different() -> None:
    long = ["x" * 50 + str(i) + "y" * 50 for i in range(3)]
    short = short_labels(long, 12)
    assert len(set(short.values())) == 3
    assert all(len(name) <= 16 for name in short.values())
    assert all(name[0] == "x" and ("y" in name) and ELLIPSIS in name for name in short.values())


@given(st.text(min_size=1), st.integers(3, 40))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, longest: int) -> None:
    whole, short = drawable(text), shorten(text, longest)
    if short != whole:
        head, tail = short.split(ELLIPSIS)[0], short.split(ELLIPSIS)[-1]
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert sum(map(figure_text._width, short)) <= longest < sum(map(figure_text._width, whole))


@given(st.text())
def test_what_is_drawable_is_one_line_and_stays_as_it_is(text: str) -> None:
    once = drawable(text)
    assert drawable(once) == once
    assert "\n" not in once


def test_what_no_font_has_is_a_square() -> None:
    assert drawable("a\U0001f9a0 b") == f"a{NO_GLYPH} b"


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_labels_cover_neither_each_other_nor_points_where_there_is_room(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    points = [(float(x), float(y), 4.0) for x, y in generator.uniform(60, 340, (count, 2))]
    frame = Box(0, 0, 400, 400)
    placed = [box for box, _ in place_labels(points, [(40.0, 9.0)] * count, [], frame)]
    dots = [Box(x - r, y - r, x + r, y + r) for x, y, r in points]
    for i, box in enumerate(placed):
        assert box.overlap(frame) == pytest.approx(box.area)
        assert not any(box.overlap(other) > 0 for other in placed[:i])
        own = box.overlap(dots[i])
        assert own == 0


def test_a_label_leaves_an_obstacle_free_and_needs_a_line_when_it_is_far() -> None:
    wall = [Box(0, 80, 100, 120), Box(0, 20, 49, 80), Box(51, 20, 100, 80), Box(0, 0, 100, 20)]
    ((near, far),) = place_labels([(50.0, 50.0, 3.0)], [(20.0, 8.0)], [], Box(0, 0, 100, 100))
    assert not far
    assert near.left == pytest.approx(54)
    walls = [*wall[:1], Box(30, 30, 49, 70), Box(51, 30, 70, 70)]
    ((box, far),) = place_labels([(50.0, 50.0, 3.0)], [(20.0, 8.0)], walls, Box(0, 0, 100, 100))
    assert far
    assert box.overlap(Box(51, 30, 70, 70)) == 0
