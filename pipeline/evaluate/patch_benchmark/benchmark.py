"""The patch benchmark: labelled patches, as a table of images or a folder of classes, are embedded and classified."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from pipeline.evaluate.benchmark import Benchmark, Evaluation, PatchSource
from pipeline.evaluate.images import ImageFiles, decode_notes, look_through
from pipeline.evaluate.left_out import naming_left_out
from pipeline.evaluate.patch_benchmark.copies import require_no_leak
from pipeline.evaluate.patch_benchmark.data import read_patch_set
from pipeline.evaluate.patch_benchmark.options import PatchOptions
from pipeline.evaluate.patch_benchmark.score import PatchBench
from pipeline.evaluate.patch_benchmark.section import KEY, patch_bench, patch_section
from pipeline.report.content import Section


@dataclass(frozen=True, eq=False)
class PatchBenchmark(Benchmark[PatchOptions]):
    """`bench` holds the patches whose images can be used, in the order of `images.usable`."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "patch benchmark"
    asked_by: ClassVar[str] = "--patches"

    bench: PatchBench
    images: ImageFiles

    @classmethod
    def is_wanted(cls, options: PatchOptions) -> bool:
        return options.patches is not None

    @classmethod
    def look(cls, options: PatchOptions, workers: int) -> Self:
        assert options.patches is not None
        listed = read_patch_set(options.patches, options.images_root)
        images = look_through(listed.paths, workers, options.patches)
        with naming_left_out(images.exclusions):
            patch_set = require_no_leak(listed.select(images.usable), images.scanned)
            # says what is wrong with classes and cases before anything is embedded
            bench = patch_bench(patch_set, options)
        on_folds = options.notes_on_folds(options.patches, has_split=patch_set.splits is not None)
        on_pictures = (f"{options.patches}: {note}" for note in patch_set.notes_on_pictures)
        notes = (*listed.warnings(), *on_folds, *images.notes(), *on_pictures)
        return cls(options, notes, bench, images)

    def patch_source(self) -> PatchSource | None:
        return self.images.patch_source("patches")

    def section(self, evaluation: Evaluation) -> Section:
        section = patch_section(self.bench, evaluation.embeddings, evaluation.reference, self.images.exclusions)
        resampled = self.images.resampling_notes(model.named.patch_px for model in evaluation.models)
        decoded = decode_notes(model.named for model in evaluation.models)
        return replace(section, notes=[*section.notes, *resampled, *decoded])


BENCHMARK = PatchBenchmark
