"""The toy benchmark: how far apart a model's embeddings of a folder of images are."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.benchmark import Benchmark, Evaluation, PatchSource
from pipeline.evaluate.images import ImageFiles, look_through
from pipeline.report.content import Column, Interval, Score, Section, Table
from support.toy_benchmark.options import SpreadOptions


@dataclass(frozen=True, eq=False)
class SpreadBenchmark(Benchmark[SpreadOptions]):
    """`images` are those of the folder."""

    key: ClassVar[str] = "spread"
    name: ClassVar[str] = "spread of embeddings"
    asked_by: ClassVar[str] = "--spread"

    images: ImageFiles

    @classmethod
    def is_wanted(cls, options: SpreadOptions) -> bool:
        return options.spread is not None

    @classmethod
    def look(cls, options: SpreadOptions, workers: int) -> Self:
        assert options.spread is not None
        paths = sorted(options.spread.glob("*.png"))
        if len(paths) < options.spread_least:
            raise BenchmarkError(f"{options.spread} holds {len(paths)} PNG, and {options.spread_least} are needed")
        return cls(options, ("only the spread is measured",), look_through(paths, workers, options.spread))

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


BENCHMARK = SpreadBenchmark
