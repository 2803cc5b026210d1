"""The robustness benchmark: patches of several centres, scanners or stains are embedded and compared."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from pipeline.evaluate.benchmark import Benchmark, Evaluation, PatchSource
from pipeline.evaluate.images import ImageFiles, look_through
from pipeline.evaluate.left_out import naming_left_out
from pipeline.evaluate.robustness.copies import note_on_copies
from pipeline.evaluate.robustness.data import RobustnessSet, read_robustness_set, require_neighbours
from pipeline.evaluate.robustness.options import RobustnessOptions
from pipeline.evaluate.robustness.section import KEY, robustness_section
from pipeline.report.content import Section


@dataclass(frozen=True, eq=False)
class RobustnessBenchmark(Benchmark[RobustnessOptions]):
    """`robustness_set` holds the patches whose images can be used, in the order of `images.usable`."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "robustness"
    asked_by: ClassVar[str] = "--robustness"

    robustness_set: RobustnessSet
    images: ImageFiles

    @classmethod
    def is_wanted(cls, options: RobustnessOptions) -> bool:
        return options.robustness is not None

    @classmethod
    def look(cls, options: RobustnessOptions, workers: int) -> Self:
        path = options.robustness
        assert path is not None
        listed = read_robustness_set(path, options.images_root)
        images = look_through(listed.paths, workers, path)
        usable = np.zeros(len(images.paths), dtype=bool)
        usable[images.usable] = True
        with naming_left_out(images.exclusions):
            robustness_set = listed.select(usable)
            require_neighbours(robustness_set, options.ri_k)
        copies = note_on_copies(robustness_set, images.scanned)
        notes = (*(f"{path}: {n}" for n in listed.notes), *images.notes(), *(f"{path}: {n}" for n in copies))
        return cls(options, notes, replace(robustness_set, notes=(*robustness_set.notes, *copies)), images)

    def patch_source(self) -> PatchSource | None:
        return self.images.patch_source("robustness")

    def section(self, evaluation: Evaluation) -> Section:
        with naming_left_out(self.images.exclusions):
            section = robustness_section(
                self.robustness_set,
                evaluation.embeddings,
                evaluation.reference,
                self.images.exclusions,
                k=self.options.ri_k,
                with_margins=self.options.margins,
                resamples=self.options.resamples,
                seed=self.options.seed,
            )
        resampled = self.images.resampling_notes(model.named.patch_px for model in evaluation.models)
        return replace(section, notes=[*section.notes, *resampled])


BENCHMARK = RobustnessBenchmark
