"""The cost benchmark: what asks for it, what it refuses, and what it hands to its section."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.config.tools import EvaluateConfig
from pipeline.encoders.build import BuiltEncoder
from pipeline.encoders.table import EncoderSpec
from pipeline.evaluate.benchmark import EvaluatedModel, Evaluation
from pipeline.evaluate.cost import benchmark as cost_benchmark
from pipeline.evaluate.cost.benchmark import CostBenchmark
from pipeline.report.content import Section
from pipeline.student.resolve import NamedModel


def test_a_batch_of_nothing_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match=r"--cost-batch-sizes \[0, 4\]: give sizes of at least 1"):
        CostBenchmark.look(EvaluateConfig(models=["big"], cost_batch_sizes=[4, 0]))


def test_cost_is_measured_unless_it_is_switched_off_and_reads_nothing() -> None:
    assert CostBenchmark.is_wanted(EvaluateConfig(models=["big"]))
    assert not CostBenchmark.is_wanted(EvaluateConfig(models=["big"], cost=False))
    looked = CostBenchmark.look(EvaluateConfig(models=["big"]))
    assert (looked.notes, looked.patch_px, looked.patch_source(), looked.other_labels) == ((), None, None, ())


def test_every_model_is_measured_at_its_own_side_in_the_order_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(label: str, patch_px: int) -> EvaluatedModel:
        spec = EncoderSpec(label, f"timm:{label}", label, width=2, mpp=0.0)
        built = BuiltEncoder(cast(Any, nn.Linear(3, 2)), spec, "scratch", "0" * 64, 8)
        return EvaluatedModel(NamedModel(label, label, "scratch", patch_px), built, "")

    asked: list[tuple[Any, ...]] = []
    section = Section("cost", "Cost", "", {}, [])

    def measured(*arguments: Any) -> Section:
        asked.append(arguments)
        return section

    monkeypatch.setattr(cost_benchmark, "cost_section", measured)
    config, cpu = EvaluateConfig(models=["b", "a"]), torch.device("cpu")
    models = [evaluated("b", 32), evaluated("a", 64)]
    assert CostBenchmark.look(config).section(Evaluation(models, {}, "a", tmp_path, cpu, "float32")) is section
    (((first, second), *rest),) = asked
    assert rest == [config, "a", cpu, "float32"]
    for (described, module, patch_px), model in zip((first, second), models, strict=True):
        assert (described.label, described.num_params, described.record["mpp"]) == (model.label, 8, None)
        assert module is model.built.module
        assert patch_px == described.record["patch_px"] == model.named.patch_px
