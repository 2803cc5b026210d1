"""A new benchmark is one folder and one line: a toy one brings options, looks, embeds through the cache, and makes a
section.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import commands
from support.benchmarks import config
from support.failing import failing
from support.stores import PATCH_PX, make_patches

import stages
from pipeline.base.errors import ConfigError
from pipeline.evaluate.benchmark import load_benchmark
from pipeline.evaluate.options import benchmarks
from stages import evaluate as stage

MODELS = ["one=test_resnet@scratch", "two=test_efficientnet@scratch"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for i, patch in enumerate(make_patches(5, PATCH_PX)):
        Image.fromarray(patch).save(images / f"{i}.png")
    return images


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line; and the command `g2l` as it is imported after that."""
    monkeypatch.setattr(benchmarks, "BENCHMARKS", (*benchmarks.BENCHMARKS, "support.toy_benchmark"))
    monkeypatch.setattr(stages, "cli", commands.cli)
    monkeypatch.delitem(sys.modules, "stages.cli")
    monkeypatch.setattr(commands, "cli", importlib.import_module("stages.cli"))


def evaluate(out: Path, *more: object) -> tuple[int, str, str]:
    """The command on two small models."""
    models = [word for model in MODELS for word in ("--models", model)]
    fixed = ["--patch-px", PATCH_PX, "--no-cost", "--device", "cpu", "--workers", 1]
    return commands.call_g2l("evaluate", "--out", out, *models, *fixed, *more)


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.mark.slow
def test_one_folder_and_one_line_make_a_section_of_the_report(
    command: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    code, shown, said = evaluate(out, "--spread", folder)
    assert code == 0, said
    assert "spread" in shown
    assert said.index("warning: only the spread is measured") < said.index("evaluate: one")
    assert said.index("evaluate: two") < said.index("evaluate: spread of embeddings")
    first = report_of(out)
    (section,) = first["sections"].values()
    assert list(first["sections"]) == ["spread"]
    assert section["basis"] == {"images": 5}
    assert all(row["spread"] > 0 for row in section["tables"][0]["rows"])
    assert section["figures"] == ["spread_scores.png"]
    assert (out / "score_against_size.png").is_file()
    assert "How far apart the embeddings are." in (out / "report.html").read_text()
    assert len(list((out / "embeddings").glob("*.h5"))) == 2
    assert first["settings"]["spread_least"] == 2
    monkeypatch.setattr(stage, "embed_rows", failing(AssertionError("embeddings were computed again")))
    code, _, said = commands.call_g2l("evaluate", "--config", out / "evaluate.toml")  # the record holds its options
    assert code == 0, said
    assert report_of(out)["sections"] == first["sections"]


def test_its_own_options_come_from_the_command_line_before_any_model_is_built(
    command: None, folder: Path, tmp_path: Path
) -> None:
    code, _, said = evaluate(tmp_path / "report", "--spread", folder, "--spread-least", 6)
    assert code == 1
    assert f"{folder} holds 5 PNG, and 6 are needed" in said
    assert "evaluate: one" not in said
    code, _, said = evaluate(tmp_path / "report", "--spread", folder, "--spread-least", 0)
    assert code == 1
    assert "spread_least: Input should be greater than or equal to 1 (got 0)" in said


def test_its_options_have_their_heading_in_the_help(command: None) -> None:
    code, shown, _ = commands.call_g2l("evaluate", "--help")
    assert code == 0
    assert shown.index("Cost:") < shown.index("Spread:") < shown.index("--spread-least")
    assert shown.index("--spread-least") < shown.index("Scores of the benchmarks:")


def test_without_its_line_there_is_no_such_option(folder: Path, tmp_path: Path) -> None:
    words = "nothing to evaluate: give --store, --patches, --slides with --features, --robustness or --cost"
    code, _, said = evaluate(tmp_path / "report")
    assert code == 1
    assert words in said
    code, _, said = evaluate(tmp_path / "report", "--spread", folder)
    assert code == 1
    assert "No such option: --spread" in said
    with pytest.raises(ConfigError, match="spread: Extra inputs are not permitted"):
        config(spread=folder)


def test_a_room_must_name_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = importlib.import_module("pipeline.evaluate.cost.benchmark")
    monkeypatch.setattr(cost, "BENCHMARK", int)
    with pytest.raises(AssertionError, match=r"pipeline\.evaluate\.cost\.benchmark\.BENCHMARK is no Benchmark"):
        load_benchmark("pipeline.evaluate.cost")
