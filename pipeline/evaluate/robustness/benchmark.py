"""The robustness benchmark: patches of several centres, scanners or stains are embedded and compared."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from pipeline.base.cores import usable_cores
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.benchmark import Benchmark, Evaluation, PatchSource
from pipeline.evaluate.images import ImageFiles, look_through
from pipeline.evaluate.robustness.copies import note_on_copies
from pipeline.evaluate.robustness.data import RobustnessSet, read_robustness_set, require_neighbours
from pipeline.evaluate.robustness.section import KEY, robustness_section
from pipeline.report.content import Section


@dataclass(frozen=True, eq=False)
class RobustnessBenchmark(Benchmark):
    """`robustness_set` holds the patches whose images can be used, in the order of `images.usable`."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "robustness"
    asked_by: ClassVar[str] = "--robustness"

    robustness_set: RobustnessSet
    images: ImageFiles

    @classmethod
    def is_wanted(cls, config: EvaluateConfig) -> bool:
        return config.robustness is not None

    @classmethod
    def look(cls, config: EvaluateConfig) -> Self:
        path = config.robustness
        assert path is not None
        listed = read_robustness_set(path, config.images_root)
        images = look_through(listed.paths, config.workers or usable_cores(), path)
        usable = np.zeros(len(images.paths), dtype=bool)
        usable[images.usable] = True
        robustness_set = listed.select(usable)
        require_neighbours(robustness_set, config.ri_k)
        copies = note_on_copies(robustness_set, images.scanned)
        notes = (*(f"{path}: {n}" for n in listed.notes), *images.notes(), *(f"{path}: {n}" for n in copies))
        return cls(config, notes, replace(robustness_set, notes=(*robustness_set.notes, *copies)), images)

    def patch_source(self) -> PatchSource | None:
        return self.images.patch_source("robustness")

    def section(self, evaluation: Evaluation) -> Section:
        section = robustness_section(
            self.robustness_set, evaluation.embeddings, self.config, evaluation.reference, self.images.exclusions
        )
        resampled = self.images.resampling_notes(model.named.patch_px for model in evaluation.models)
        return replace(section, notes=[*section.notes, *resampled])
