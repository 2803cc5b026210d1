"""The patch benchmark: labelled patches, as a table of images or a folder of classes, are embedded and classified."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from pipeline.base.cores import usable_cores
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.benchmark import Benchmark, Evaluation, PatchSource
from pipeline.evaluate.images import ImageFiles, look_through
from pipeline.evaluate.patch_benchmark.copies import require_no_leak
from pipeline.evaluate.patch_benchmark.data import PatchSet, read_patch_set
from pipeline.evaluate.patch_benchmark.section import KEY, patch_section, prepare
from pipeline.report.content import Section


@dataclass(frozen=True, eq=False)
class PatchBenchmark(Benchmark):
    """`patch_set` holds the patches whose images can be used, in the order of `images.usable`."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "patch benchmark"
    asked_by: ClassVar[str] = "--patches"

    patch_set: PatchSet
    images: ImageFiles

    @classmethod
    def is_wanted(cls, config: EvaluateConfig) -> bool:
        return config.patches is not None

    @classmethod
    def look(cls, config: EvaluateConfig) -> Self:
        assert config.patches is not None
        listed = read_patch_set(config.patches, config.images_root)
        images = look_through(listed.paths, config.workers or usable_cores(), config.patches)
        patch_set = require_no_leak(listed.select(images.usable), images.scanned)
        prepare(patch_set, config)  # says what is wrong with classes and cases now, not after hours of embedding
        notes = (*listed.warnings(), *images.notes(), *(f"{config.patches}: {n}" for n in patch_set.notes_on_pictures))
        return cls(config, notes, patch_set, images)

    def patch_source(self) -> PatchSource | None:
        return self.images.patch_source("patches")

    def section(self, evaluation: Evaluation) -> Section:
        section = patch_section(
            self.patch_set, evaluation.embeddings, self.config, evaluation.reference, self.images.exclusions
        )
        resampled = self.images.resampling_notes(model.named.patch_px for model in evaluation.models)
        return replace(section, notes=[*section.notes, *resampled])
