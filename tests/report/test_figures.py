"""Figures of a report: the same bytes for the same data, labels that cover nothing, whatever the labels are."""

import hashlib
from math import nan
from pathlib import Path

import pytest
from PIL import Image
from support.reports import HOSTILE
from support.scores import models, score

from pipeline.report import figures as report_figures
from pipeline.report.content import Interval
from pipeline.report.figures import draw_lines, draw_scores
from pipeline.report.size_figure import draw_score_against_size


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_curves_that_reach_1_have_no_tick_beyond(tmp_path: Path) -> None:
    limits = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_figures, "set_ends", lambda *arguments: limits.append(arguments[1:]))
        draw_lines({"a": {1: 0.9, 2: Interval(0.97, 0.95, 1.0)}}, "k", "y", tmp_path / "c.png", chance=0.5)
    assert limits == [("y", 0.5, 1.0)]


@pytest.mark.slow
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
