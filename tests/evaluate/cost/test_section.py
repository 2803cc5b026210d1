"""The cost section: what its tables say of real, tiny models."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.encoders.build import build_encoder
from pipeline.evaluate.cost import measure as cost
from pipeline.evaluate.cost.section import cost_section
from pipeline.report.content import Interval, ReportModel, Section

pytestmark = pytest.mark.usefixtures("short_measurements")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models() -> list[tuple[ReportModel, nn.Module, int]]:
    found: list[tuple[ReportModel, nn.Module, int]] = []
    for label, name, role in (("big", "test_vit", "teacher"), ("small", "test_resnet", "student after distillation")):
        built = build_encoder(name, "scratch", 160)
        found.append((ReportModel(label, role, built.record(), built.num_params), built.module, 160))
    return found


def section_of(models: list[tuple[ReportModel, nn.Module, int]], reference: str = "big", **options: Any) -> Section:
    values = {"batch_sizes": [1, 2], "precisions": ["float32"], "rounds": 2} | options
    return cost_section(models, reference, CPU, **values)


@pytest.mark.slow
def test_the_section_of_two_models(models: list[tuple[ReportModel, nn.Module, int]]) -> None:
    section = section_of(models)
    record = section.record()
    size, speed = (table["rows"] for table in record["tables"])
    assert [row["parameters"] for row in size] == [model.num_params for model, _, _ in models]
    assert size[0]["parameters, of the reference"] == 1
    assert size[1]["parameters, of the reference"] == models[1][0].num_params / models[0][0].num_params
    assert size[1]["GFLOPs a patch"] == cost.flops_per_patch(models[1][1], 160) / 1e9
    assert [(row["model"], row["batch"]) for row in speed] == [("big", 1), ("small", 1), ("big", 2), ("small", 2)]
    assert section.ms_per_patch == {row["model"]: row["ms a patch"] for row in speed if row["batch"] == 2}
    assert "ms_per_patch" not in record
    assert all(row["peak memory, MiB"] > 0 for row in speed)
    assert "note" not in speed[0]
    (score,) = section.scores
    assert score.name == "times faster than big"
    assert score.values["big"] == Interval(1, 1, 1)
    assert score.is_cost
    assert section.basis == {"models": 2, "rounds of timing": 2}
    json.dumps(record, allow_nan=False)


@pytest.mark.slow
def test_a_precision_that_cannot_be_timed_is_listed(models: list[tuple[ReportModel, nn.Module, int]]) -> None:
    section = section_of(models, batch_sizes=[1], precisions=["float16", "bfloat16"])
    assert [exclusion.what for exclusion in section.exclusions] == [
        "big, float16, batches of 1",
        "small, float16, batches of 1",
    ]
    assert section.ms_per_patch == {}
    rows = section.record()["tables"][1]["rows"]
    assert [row["ms a patch"] is None for row in rows] == [True, True, False, False]
    assert rows[0]["note"] == "float16 has no fast kernels on a CPU"


def test_without_its_reference_there_are_no_ratios(models: list[tuple[ReportModel, nn.Module, int]]) -> None:
    section = section_of(models[1:], batch_sizes=[1])
    size, speed = (table["rows"] for table in section.record()["tables"])
    assert (size[0]["parameters, of the reference"], speed[0]["times faster than big"]) == (None, None)
    assert section.scores == []
    assert section.ms_per_patch.keys() == {"small"}


def test_flops_that_cannot_be_counted_are_listed(models: list[tuple[ReportModel, nn.Module, int]]) -> None:
    class Deciding(nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return patches.float().mean((1, 2)) if patches.sum().item() > 0 else patches.float().mean((1, 2)) + 1

    odd = (ReportModel("odd", "", {}, 0), Deciding(), 8)
    section = section_of([*models[:1], odd], batch_sizes=[1])
    assert [exclusion.what for exclusion in section.exclusions] == ["odd, FLOPs"]
    assert section.record()["tables"][0]["rows"][1]["GFLOPs a patch"] is None


def test_fewer_rounds_than_asked_for_are_told(
    models: list[tuple[ReportModel, nn.Module, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "CELL_SECONDS", -1.0)
    section = section_of(models, batch_sizes=[1], rounds=5)
    assert "2 of 2 rows rest on fewer than 5 rounds" in section.notes[0]
