"""Score against size: who is drawn and who is told to be left out, arrows, areas and numbers in words."""

from math import nan
from pathlib import Path

import pytest
from support.scores import models, score

from pipeline.report import size_figure
from pipeline.report.content import ReportModel, Score, Section
from pipeline.report.size_figure import draw_score_against_size, figure_scores, format_params

BEFORE, AFTER = "student before distillation", "student after distillation"


@pytest.mark.slow
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
