"""Figure 1 and the picture of a comparison."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from pipeline.public_sets import figures_of_paper
from pipeline.public_sets.compare import Comparison
from pipeline.public_sets.figures_of_paper import (
    FIGURE_1_COLUMNS,
    comparison_panels,
    comparison_scores,
    draw_comparison,
    draw_figure_1,
    figure_1_rows,
    sized_models,
)
from pipeline.public_sets.published import published_values
from pipeline.report.content import Interval, ReportModel
from pipeline.report.figure_style import canvas_of

PUBLISHED = {each.model: each for each in published_values() if (each.set, each.metric) == ("idc", "kNN accuracy")}
ROWS = [
    Comparison("idc", "kNN accuracy", "teacher", Interval(0.91, 0.90, 0.92), PUBLISHED["h-optimus-0"], 0.02, "PASS"),
    Comparison("idc", "kNN accuracy", "mine", None, None, 0.02, "no published value"),
    Comparison("idc", "kNN accuracy", "", None, PUBLISHED["g2l"], 0.02, ""),
]
MODELS = [ReportModel("teacher", "teacher", {}, 1_135_000_000), ReportModel("mine", "", {}, 5_000_000)]


def test_each_of_our_models_comes_before_its_published_value() -> None:
    (score,) = comparison_scores(ROWS)
    assert score.name == "idc, kNN accuracy"
    assert list(score.values) == ["teacher", "h-optimus-0, published", "mine", "g2l, published"]
    assert isnan(score.values["mine"].value)
    assert comparison_scores(ROWS[1:2]) == []
    (score,) = comparison_scores([replace(ROWS[0], reason="a part"), *ROWS[1:]])
    assert score.name == "idc, kNN accuracy (not comparable)"
    ours = replace(ROWS[0], published=None, reason="a part")  # there is nothing that it may not be compared with
    assert [each.name for each in comparison_scores([ours])] == ["idc, kNN accuracy"]


def test_a_model_and_its_published_value_are_one_row() -> None:
    """Empty rows and metrics are left out; a model that nobody ran here has its published value alone."""
    nothing = Comparison("idc", "ECE", "mine", Interval(nan, nan, nan), None, 0.02, "no published value")
    (panel,) = comparison_panels([*ROWS, nothing])
    assert panel.name == "idc, kNN accuracy"
    assert list(panel.rows) == ["teacher (h-optimus-0)", "g2l, published"]
    ours, published = panel.rows["teacher (h-optimus-0)"]
    assert (ours, published and published.value) == (ROWS[0].measured, 0.9141)
    assert panel.rows["g2l, published"][0] is None
    ece = [
        Comparison("idc", "ECE", name, Interval(0.1, nan, nan), None, 0.02, "no published value")
        for name in ("mine", "teacher")
    ]
    _, second = comparison_panels([*ROWS, *ece])
    assert list(second.rows) == ["mine", "teacher (h-optimus-0)"]  # a model has one name, and so one look, everywhere
    assert comparison_panels([nothing]) == []


def test_ours_is_filled_and_the_published_value_hollow_in_one_look(tmp_path: Path) -> None:
    ours, unpublished = Interval(0.9, 0.88, 0.91), Interval(0.1, nan, nan)
    rows = [Comparison("idc", "kNN accuracy", f"m{i}", ours, PUBLISHED["g2l"], 0.02, "PASS") for i in range(70)]
    rows += [Comparison("idc", "ECE", f"m{i}", unpublished, None, 0.02, "no published value") for i in (3, 1)]
    canvas = drawn(rows, tmp_path / "c.png")
    first, second = canvas.axes
    markers = [line for line in first.lines if line.get_marker() != "None"]
    assert len(markers) == 140
    looks = set()
    for mine, theirs in zip(markers[::2], markers[1::2], strict=True):
        assert mine.get_markeredgecolor() == theirs.get_markeredgecolor() == mine.get_markerfacecolor()
        assert theirs.get_markerfacecolor() == "white"
        assert mine.get_marker() == theirs.get_marker()
        assert 0 < theirs.get_ydata()[0] - mine.get_ydata()[0] < 0.5
        looks.add((mine.get_marker(), mine.get_markeredgecolor()))
    assert len(looks) == 64  # eight colours by eight markers, then again
    assert [line.get_markeredgecolor() for line in second.lines] == [
        markers[2 * i].get_markeredgecolor() for i in (3, 1)
    ]
    assert second.get_window_extent().height < first.get_window_extent().height / 10


@pytest.mark.parametrize(("kept", "words"), [((0,), ["ours", "published"]), ((2,), ["published"])])
def test_the_legend_has_what_is_drawn_only(kept: tuple[int, ...], words: list[str], tmp_path: Path) -> None:
    (legend,) = drawn([ROWS[i] for i in kept], tmp_path / "c.png").legends
    assert [text.get_text() for text in legend.get_texts()] == words


def drawn(rows: list[Comparison], path: Path) -> Canvas:
    """The picture of a comparison, as it was written."""
    canvases: list[Canvas] = []

    @contextmanager
    def kept(width: float, height: float, path: Path) -> Iterator[Canvas]:
        with canvas_of(width, height, path) as canvas:
            canvases.append(canvas)
            yield canvas

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures_of_paper, "canvas_of", kept)
        assert draw_comparison(rows, path)
    return canvases[0]


def test_published_models_have_the_size_of_their_encoder() -> None:
    sizes = {model.label: model.num_params for model in sized_models(MODELS, ROWS)}
    assert sizes["h-optimus-0, published"] == 1_135_000_000
    assert sizes["g2l, published"] == 303_700_000  # the paper's student is a Hibou-L


def test_the_numbers_of_figure_1(tmp_path: Path) -> None:
    rows = [dict(zip(FIGURE_1_COLUMNS, row, strict=True)) for row in figure_1_rows(MODELS, ROWS, {"teacher": 3.0})]
    assert [(row["model"], row["whose"], row["ms_per_patch"], row["value"]) for row in rows] == [
        ("teacher", "ours", 3.0, 0.91),
        ("h-optimus-0, published", "published", None, 0.9141),
        ("g2l, published", "published", None, 0.9232),
    ]
    assert draw_figure_1(MODELS, ROWS, {"teacher": 3.0}, tmp_path / "f.png")
    assert draw_comparison(ROWS, tmp_path / "c.png")
    assert not draw_comparison(ROWS[1:2], tmp_path / "none.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "f.png"]
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > 500
