"""The cost benchmark: what asks for it, what it refuses, and what it hands to its section."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.encoders.build import BuiltEncoder
from pipeline.encoders.table import EncoderSpec
from pipeline.evaluate.benchmark import EvaluatedModel, Evaluation
from pipeline.evaluate.cost import benchmark as cost_benchmark
from pipeline.evaluate.cost.benchmark import CostBenchmark
from pipeline.evaluate.cost.options import CostOptions
from pipeline.report.content import Section
from pipeline.student.resolve import NamedModel


def test_a_batch_of_nothing_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match=r"--cost-batch-sizes \[0, 4\]: give sizes of at least 1"):
        CostBenchmark.look(CostOptions(cost_batch_sizes=[4, 0]), workers=1)


def test_cost_is_measured_unless_it_is_switched_off_and_reads_nothing() -> None:
    assert CostBenchmark.is_wanted(CostOptions())
    assert not CostBenchmark.is_wanted(CostOptions(cost=False))
    looked = CostBenchmark.look(CostOptions(), workers=1)
    assert (looked.notes, looked.patch_px, looked.patch_source(), looked.other_labels) == ((), None, None, ())


def test_every_model_is_measured_at_its_own_side_in_the_order_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(label: str, patch_px: int) -> EvaluatedModel:
        spec = EncoderSpec(label, f"timm:{label}", label, width=2, mpp=0.0)
        built = BuiltEncoder(cast(Any, nn.Linear(3, 2)), spec, "scratch", "0" * 64, 8)
        return EvaluatedModel(NamedModel(label, label, "scratch", patch_px), built, "")

    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    section = Section("cost", "Cost", "", {}, [])

    def measured(*arguments: Any, **how: Any) -> Section:
        asked.append((arguments, how))
        return section

    monkeypatch.setattr(cost_benchmark, "cost_section", measured)
    models = [evaluated("b", 32), evaluated("a", 64)]
    evaluation = Evaluation(models, {}, "a", tmp_path, torch.device("cpu"), "bfloat16")
    looked = CostBenchmark.look(CostOptions(cost_batch_sizes=[8, 2, 8]), workers=1)
    assert looked.section(evaluation) is section
    ((((first, second), *rest), how),) = asked
    assert rest == ["a", evaluation.device]
    assert how == {"batch_sizes": [2, 8], "precisions": ["bfloat16"], "rounds": 7}
    for (described, module, patch_px), model in zip((first, second), models, strict=True):
        assert (described.label, described.num_params, described.record["mpp"]) == (model.label, 8, None)
        assert module is model.built.module
        assert patch_px == described.record["patch_px"] == model.named.patch_px


def test_precisions_that_are_named_go_before_that_of_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions: list[list[str]] = []

    def measured(*_: Any, **how: Any) -> Section:
        precisions.append(how["precisions"])
        return Section("cost", "Cost", "", {}, [])

    monkeypatch.setattr(cost_benchmark, "cost_section", measured)
    options = CostOptions(cost_precisions=["float16", "float32", "float16"])
    evaluation = Evaluation([], {}, "a", tmp_path, torch.device("cpu"), "bfloat16")
    CostBenchmark.look(options, workers=1).section(evaluation)
    assert precisions == [["float16", "float32"]]
