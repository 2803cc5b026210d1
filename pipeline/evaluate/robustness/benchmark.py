"""The robustness benchmark: patches of several centres, scanners or stains are embedded and compared."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from pipeline.evaluate.benchmark import Benchmark, Evaluation, PatchSource
from pipeline.evaluate.images import ImageFiles, decode_notes, look_through
from pipeline.evaluate.left_out import naming_left_out
from pipeline.evaluate.robustness.copies import note_on_copies
from pipeline.evaluate.robustness.data import RobustnessSet, read_robustness_set, require_neighbours
from pipeline.evaluate.robustness.options import RobustnessOptions
from pipeline.evaluate.robustness.section import KEY, Sweep, robustness_section
from pipeline.evaluate.robustness.sweep_plan import plan_sweep
from pipeline.report.content import Section


@dataclass(frozen=True, eq=False)
class RobustnessBenchmark(Benchmark[RobustnessOptions]):
    """`robustness_set` holds the patches whose images can be used, in the order of `images.usable`; `sweep` is what was
    asked for and can be run.
    """

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "robustness"
    asked_by: ClassVar[str] = "--robustness"

    robustness_set: RobustnessSet
    images: ImageFiles
    sweep: Sweep | None = None

    @classmethod
    def is_wanted(cls, options: RobustnessOptions) -> bool:
        return options.robustness is not None

    @classmethod
    def look(cls, options: RobustnessOptions, workers: int) -> Self:
        path = options.robustness
        assert path is not None
        schedule = options.robustness_sweep
        listed = read_robustness_set(path, options.images_root, with_cases=schedule is not None)
        images = look_through(listed.paths, workers, path)
        usable = np.zeros(len(images.paths), dtype=bool)
        usable[images.usable] = True
        with naming_left_out(images.exclusions):
            robustness_set = listed.select(usable)
            require_neighbours(robustness_set, options.ri_k)
        copies = note_on_copies(robustness_set, images.scanned)
        sweep, no_sweep = planned_sweep(schedule, robustness_set, options.sweep_repeats)
        later = (*copies, *no_sweep)
        notes = (*(f"{path}: {n}" for n in listed.notes), *images.notes(), *(f"{path}: {n}" for n in later))
        return cls(options, notes, replace(robustness_set, notes=(*robustness_set.notes, *later)), images, sweep)

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
                sweep=self.sweep,
            )
        resampled = self.images.resampling_notes(model.named.patch_px for model in evaluation.models)
        decoded = decode_notes(model.named for model in evaluation.models)
        return replace(section, notes=[*section.notes, *resampled, *decoded])


def planned_sweep(
    schedule: str | None, robustness_set: RobustnessSet, repeats: int
) -> tuple[Sweep | None, tuple[str, ...]]:
    """The sweep by a schedule's name, and why there is none if one was asked for."""
    if schedule is None:
        return None, ()
    rows = robustness_set.index
    plan = "the table lacks classes and centres" if rows is None else plan_sweep(schedule, rows)
    return (None, (f"No sweep (APD, nIPD): {plan}.",)) if isinstance(plan, str) else (Sweep(plan, repeats), ())


BENCHMARK = RobustnessBenchmark
