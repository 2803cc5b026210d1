"""The cost benchmark: the models themselves are measured, on noise."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

from pipeline.base.errors import ConfigError
from pipeline.evaluate.benchmark import Benchmark, Evaluation
from pipeline.evaluate.cost.options import CostOptions
from pipeline.evaluate.cost.section import KEY, cost_section
from pipeline.report.content import Section


@dataclass(frozen=True, eq=False)
class CostBenchmark(Benchmark[CostOptions]):
    """It needs no data."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "cost"
    asked_by: ClassVar[str] = "--cost"

    @classmethod
    def is_wanted(cls, options: CostOptions) -> bool:
        return options.cost

    @classmethod
    def look(cls, options: CostOptions, workers: int) -> Self:
        if min(options.cost_batch_sizes, default=1) < 1:
            raise ConfigError(f"--cost-batch-sizes {sorted(options.cost_batch_sizes)}: give sizes of at least 1")
        return cls(options, ())

    def section(self, evaluation: Evaluation) -> Section:
        models = [
            (model.described(), model.built.module.to(evaluation.device), model.named.patch_px)
            for model in evaluation.models
        ]
        precisions: Iterable[str] = self.options.cost_precisions or (evaluation.precision,)
        return cost_section(
            models,
            evaluation.reference,
            evaluation.device,
            batch_sizes=sorted(set(self.options.cost_batch_sizes)),
            precisions=list(dict.fromkeys(precisions)),
            rounds=self.options.cost_rounds,
        )


BENCHMARK = CostBenchmark
