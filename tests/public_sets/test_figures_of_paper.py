"""Figure 1 and the picture of a comparison."""

from dataclasses import replace
from math import isnan
from pathlib import Path

from PIL import Image

from pipeline.public_sets.compare import Comparison
from pipeline.public_sets.figures_of_paper import (
    FIGURE_1_COLUMNS,
    comparison_scores,
    draw_comparison,
    draw_figure_1,
    figure_1_rows,
    sized_models,
)
from pipeline.public_sets.published import published_values
from pipeline.report.content import Interval, ReportModel

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
