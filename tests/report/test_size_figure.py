"""Score against size: who is drawn and who is told to be left out, arrows, areas and numbers in words."""

from itertools import pairwise
from math import nan
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from support.scores import models, score

from pipeline.report import size_figure
from pipeline.report.content import Interval, ReportModel, Score, Section
from pipeline.report.figure_style import DPI
from pipeline.report.size_figure import draw_score_against_size, figure_scores, format_params

BEFORE, AFTER = "student before distillation", "student after distillation"


@pytest.mark.slow
def test_what_is_left_out_of_the_size_figure_is_told(tmp_path: Path) -> None:
    found = [*models("a", "b"), ReportModel("features only", "", {}, 0)]
    scores = [score({"a": 0.8, "b": nan, "features only": 0.9, "no model": 0.9}, name=f"score {i}") for i in range(8)]
    figure = draw_score_against_size(found, scores, {"a": 1.0}, tmp_path / "size.png")
    assert figure is not None
    assert "not known: features only, no model." in figure.caption
    assert "Hollow, as their time was not measured: b." in figure.caption
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


def placed_at(sizes: dict[str, int], values: dict[str, Interval], path: Path) -> dict[str, float]:
    """Where the models of one panel are drawn, parameters."""
    places: dict[str, float] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            size_figure,
            "_label_points",
            lambda _, __, looks: places.update({label: 10**look.x for label, look in looks.items()}),
        )
        found = [ReportModel(label, "", {}, size) for label, size in sizes.items()]
        draw_score_against_size(found, [Score("AUROC", values)], None, path)
    return places


def test_models_of_one_size_stand_at_their_size_unless_they_meet(tmp_path: Path) -> None:
    """Six of 303 M, two of which meet; the others lie apart, are not in this panel, or have another size."""
    sizes = {"a": 303_000_000, "b": 303_000_000, "c": 303_500_000, "d": 303_000_000, "e": 1_135_000_000, "f": 5_000_000}
    values = {
        "a": Interval(0.70, 0.65, 0.75),
        "b": Interval(0.74, 0.73, 0.80),
        "c": Interval(0.95, 0.94, 0.96),
        "e": Interval(0.72, 0.65, 0.75),
        "f": Interval(0.72, nan, nan),
    }
    places = placed_at(sizes, values, tmp_path / "size.png")
    assert {label: places[label] for label in "cef"} == pytest.approx({label: sizes[label] for label in "cef"})
    assert places["a"] < 303_000_000 < places["b"]
    assert places["b"] / places["a"] < 1.1
    assert "d" not in places


def test_none_of_many_equal_models_is_far_from_its_size(tmp_path: Path) -> None:
    sizes = {f"m{i}": 303_000_000 for i in range(20)}
    values = {label: Interval(0.8, 0.7, 0.9) for label in sizes}
    places = placed_at(sizes | {"large": 1_135_000_000}, values, tmp_path / "size.png")
    assert len(set(places.values())) == 20
    assert max(abs(np.log10(place / 303e6)) for place in places.values()) < 0.02


def test_the_picture_says_that_models_are_set_apart(tmp_path: Path) -> None:
    words = "Where models of one size meet, they are set apart, by 2 pt at most."
    (panel, *_) = drawn_axes(models("a", "b"), None, tmp_path / "size.png")
    assert panel.figure is not None
    assert words in [text.get_text() for axes in panel.figure.axes for text in axes.texts]
    apart = [ReportModel("a", "", {}, 5_000_000), ReportModel("b", "", {}, 300_000_000), *models("c")]
    figure = draw_score_against_size(apart, [score({"a": 0.6, "b": 0.8})], None, tmp_path / "size.png")
    assert figure is not None
    assert "set apart" not in figure.caption


def test_the_area_of_a_point_is_proportional_to_time() -> None:
    areas = size_figure._areas(["a", "b", "c"], {"a": 40.0, "b": 10.0})
    assert areas["a"] == 4 * areas["b"]
    assert areas["c"] == size_figure.PLAIN_AREA
    assert size_figure._areas(["a"], {}) == {"a": size_figure.PLAIN_AREA}


def drawn_axes(
    found: list[ReportModel], milliseconds: dict[str, float] | None, path: Path, panels: int = 1
) -> list[Axes]:
    """The panels of a figure of these models, and the row of times, as they are before names are written."""
    axes: list[Axes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(size_figure, "_label_points", lambda one, *_: axes.append(one))
        scores = [score({model.label: 0.8 for model in found}, name=f"score {i}") for i in range(panels)]
        draw_score_against_size(found, scores, milliseconds, path)
    canvas = axes[0].figure
    assert canvas is not None
    return [one for one in canvas.axes if one in axes or one.get_legend()]


def test_a_model_without_a_time_is_hollow_and_the_key_says_so(tmp_path: Path) -> None:
    panel, times = drawn_axes(models("timed", "untimed"), {"timed": 2.0}, tmp_path / "size.png")
    timed, untimed = (to_hex(one.get_facecolor()[0]) for one in panel.collections)
    assert (timed != "#ffffff", untimed) == (True, "#ffffff")
    assert untimed != to_hex(panel.collections[1].get_edgecolor()[0])
    legend = times.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-1] == "not timed"


def test_without_any_time_and_with_all_times_nothing_is_hollow(tmp_path: Path) -> None:
    for times in (None, {"a": 2.0, "b": 1.0}):
        panel, *key = drawn_axes(models("a", "b"), times, tmp_path / "size.png")
        assert all(to_hex(one.get_facecolor()[0]) != "#ffffff" for one in panel.collections)
        words = [text.get_text() for one in key for text in one.get_legend().get_texts()]
        assert words == ([] if times is None else ["0.12 ms a patch", "0.50 ms a patch", "2.0 ms a patch"])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (7.0, 9.3, ["10 M", "30 M", "100 M", "300 M", "1 B"]),
        (6.0, 9.2, ["1 M", "10 M", "100 M", "1 B"]),
        (3.1, 10.3, ["10 K", "1 M", "100 M", "10 B"]),
        (8.23, 9.31, ["200 M", "500 M", "1 B", "2 B"]),
    ],
)
def test_ticks_of_sizes(low: float, high: float, words: list[str]) -> None:
    assert [format_params(10**tick) for tick in size_figure._size_ticks(low, high)] == words


def test_ticks_of_sizes_are_few_and_apart() -> None:
    for span in np.arange(0.5, 12, 0.1):
        for low in np.arange(3, 4, 0.05):
            ticks = size_figure._size_ticks(low, low + span)
            assert len(ticks) >= 3
            assert np.diff(ticks).min() / span > 0.13
            assert low <= ticks[0] < ticks[-1] <= low + span


@pytest.mark.parametrize("sizes", [(30_000, 2_000_000_000), (300_000, 800_000_000), (200_000_000, 700_000_000)])
def test_the_words_of_sizes_do_not_touch(sizes: tuple[int, int], tmp_path: Path) -> None:
    found = [ReportModel(str(size), "", {}, size) for size in sizes]
    for panel in drawn_axes(found, None, tmp_path / "size.png", panels=3):
        boxes = [label.get_window_extent() for label in panel.get_xticklabels()]
        assert len(boxes) >= 3
        assert all(right.x0 - left.x1 > 2 * DPI / 72 for left, right in pairwise(boxes))


def test_scores_of_cost_are_not_drawn_against_size() -> None:
    scores = [score({}, name="patches"), Score("times faster", {}, is_cost=True), score({}, name="slides")]
    made = [Section(one.name, one.name, "", {}, [], scores=[one]) for one in scores]
    assert [found.name for found in figure_scores(made)] == ["patches", "slides"]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (999, "999"),
        (374_000, "374 K"),
        (21_665_664, "22 M"),
        (303_966_208, "304 M"),
        (1_134_774_272, "1.1 B"),
        (1_000_000_000, "1 B"),
        (999_900_000, "1 B"),
        (2_500_000, "2.5 M"),
    ],
)
def test_numbers_of_parameters_in_words(count: int, words: str) -> None:
    assert format_params(count) == words


@pytest.mark.parametrize(
    ("value", "words"), [(130.17, "130"), (32.5, "32"), (8.13, "8.1"), (0.0456, "0.046"), (1.0, "1.0"), (99.7, "100")]
)
def test_times_have_two_digits_and_no_exponent(value: float, words: str) -> None:
    assert size_figure._two_digits(value) == words
