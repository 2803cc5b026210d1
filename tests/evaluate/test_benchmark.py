"""A new benchmark is one class and one line: a toy one looks, embeds through the cache, and makes a section."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from PIL import Image
from support.stores import PATCH_PX, make_patches

from pipeline.base.errors import BenchmarkError, ConfigError
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.benchmark import Benchmark, Evaluation, PatchSource
from pipeline.evaluate.images import ImageFiles, look_through
from pipeline.report.content import Column, Interval, Score, Section, Table
from stages import evaluate as stage


@dataclass(frozen=True, eq=False)
class SpreadBenchmark(Benchmark):
    """How far apart a model's embeddings of a folder of images are."""

    key: ClassVar[str] = "spread"
    name: ClassVar[str] = "spread of embeddings"
    asked_by: ClassVar[str] = "--images-root"

    images: ImageFiles

    @classmethod
    def is_wanted(cls, config: EvaluateConfig) -> bool:
        return config.images_root is not None

    @classmethod
    def look(cls, config: EvaluateConfig) -> Self:
        assert config.images_root is not None
        paths: Sequence[Path] = sorted(config.images_root.glob("*.png"))
        if not paths:
            raise BenchmarkError(f"{config.images_root} holds no PNG")
        return cls(config, ("only the spread is measured",), look_through(paths, 1, config.images_root))

    def patch_source(self) -> PatchSource | None:
        return self.images.patch_source("images")

    def section(self, evaluation: Evaluation) -> Section:
        spread = {label: float(values.std(0).mean()) for label, values in evaluation.embeddings.items()}
        columns = [Column("model"), Column("spread", "Standard deviation, mean over dimensions.")]
        return Section(
            self.key,
            "Spread",
            "How far apart the embeddings are.",
            {"images": len(self.images.usable)},
            [Table("Spread", columns, [[label, value] for label, value in spread.items()])],
            scores=[Score("spread", {label: Interval(v, np.nan, np.nan) for label, v in spread.items()})],
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for i, patch in enumerate(make_patches(5, PATCH_PX)):
        Image.fromarray(patch).save(images / f"{i}.png")
    return images


def evaluate(out: Path, images: Path, **options: Any) -> dict[str, Any]:
    """The report of two small models on the toy benchmark."""
    values = {
        "models": ["one=test_resnet@scratch", "two=test_efficientnet@scratch"],
        "images_root": images,
        "patch_px": PATCH_PX,
        "cost": False,
        "device": "cpu",
        "workers": 1,
    } | options
    stage.evaluate(out, EvaluateConfig.build(values))
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.mark.slow
def test_one_class_and_one_line_make_a_section_of_the_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "BENCHMARKS", (*stage.BENCHMARKS, SpreadBenchmark))
    out = tmp_path / "report"
    first = evaluate(out, folder)
    said = capfd.readouterr().err
    assert said.index("warning: only the spread is measured") < said.index("evaluate: one")
    assert said.index("evaluate: two") < said.index("evaluate: spread of embeddings")
    (section,) = first["sections"].values()
    assert list(first["sections"]) == ["spread"]
    assert section["basis"] == {"images": 5}
    assert all(row["spread"] > 0 for row in section["tables"][0]["rows"])
    assert section["figures"] == ["spread_scores.png"]
    assert (out / "score_against_size.png").is_file()
    assert "How far apart the embeddings are." in (out / "report.html").read_text()
    assert len(list((out / "embeddings").glob("*.h5"))) == 2

    def never(*_: object, **__: object) -> None:
        raise AssertionError("embeddings were computed again")

    monkeypatch.setattr(stage, "embed_rows", never)
    assert evaluate(out, folder)["sections"] == first["sections"]


def test_it_is_looked_at_before_any_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "BENCHMARKS", (*stage.BENCHMARKS, SpreadBenchmark))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkError, match="empty holds no PNG"):
        evaluate(tmp_path / "report", tmp_path / "empty")
    assert "evaluate: one" not in capfd.readouterr().err


def test_without_it_the_options_ask_for_nothing(folder: Path, tmp_path: Path) -> None:
    words = "nothing to evaluate: give --store, --patches, --slides with --features, --robustness or --cost"
    with pytest.raises(ConfigError, match=words):
        evaluate(tmp_path / "report", folder)
