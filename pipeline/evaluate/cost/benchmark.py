"""The cost benchmark: the models themselves are measured, on noise."""

from dataclasses import dataclass
from typing import ClassVar, Self

from pipeline.base.errors import ConfigError
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.benchmark import Benchmark, Evaluation
from pipeline.evaluate.cost.section import KEY, cost_section
from pipeline.report.content import Section


@dataclass(frozen=True, eq=False)
class CostBenchmark(Benchmark):
    """It needs no data."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "cost"
    asked_by: ClassVar[str] = "--cost"

    @classmethod
    def is_wanted(cls, config: EvaluateConfig) -> bool:
        return config.cost

    @classmethod
    def look(cls, config: EvaluateConfig) -> Self:
        if min(config.cost_batch_sizes, default=1) < 1:
            raise ConfigError(f"--cost-batch-sizes {sorted(config.cost_batch_sizes)}: give sizes of at least 1")
        return cls(config, ())

    def section(self, evaluation: Evaluation) -> Section:
        models = [
            (model.described(), model.built.module.to(evaluation.device), model.named.patch_px)
            for model in evaluation.models
        ]
        return cost_section(models, self.config, evaluation.reference, evaluation.device, evaluation.precision)
