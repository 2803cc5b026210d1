"""Nested subsets of a store's training rows, for learning curves. Pure.

Of slides: cases are ranked by a hash, and a case's slides within it, so that the first n slides are of as few cases as
possible. A subset of n slides lies in that of n + 1, and so do its cases; twice the slides are then twice the cases,
as in a cohort twice as large. With slides ranked one by one, small subsets would have a larger share of the cases than
of the slides, and a curve over slides would flatten too early.

Of patches: a slide's patches are ranked by the hash that `sampling` ranks the grid by, so that n patches are a uniform
sample of the slide and lie in the sample of n + 1.

Both draws depend on the run's seed: runs of several seeds then show what the choice of slides and patches adds to the
uncertainty. Held-out rows are never restricted.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from pipeline.base.console import counted
from pipeline.base.errors import ConfigError
from pipeline.cohort.plan import Plan
from pipeline.sampling import RowNumbers, sample_patches


@dataclass(frozen=True)
class RowSubset:
    """How much of the training rows a run uses; `None` means all.

    Attributes:
        num_slides: number of slides, by `rank_training_slides`.
        num_patches: most patches of a slide.
        seed: of both draws.
    """

    num_slides: int | None = None
    num_patches: int | None = None
    seed: int = 0

    def restrict(self, rows: RowNumbers, plan: Plan) -> RowNumbers:
        """The rows of the subset, of the training `rows` (N,) that have embeddings; both ascending.

        Raises:
            ConfigError: the rows are of fewer slides than are asked for.
        """
        if self.num_slides is None and self.num_patches is None:
            return rows
        slide_of_row = plan.slide_of_row()[rows]
        chosen = np.unique(slide_of_row).tolist()
        if self.num_slides is not None:
            chosen = rank_training_slides(chosen, plan, self.seed)
            if self.num_slides > len(chosen):
                raise ConfigError(
                    f"--train-slides {self.num_slides}: the store has {counted(len(chosen), 'slide')} to train on. "
                    "Give at most that number, or leave the option out"
                )
            chosen = chosen[: self.num_slides]
        starts, ends = (np.searchsorted(slide_of_row, chosen, side) for side in ("left", "right"))
        parts = [rows[start:end] for start, end in zip(starts, ends, strict=True)]
        if self.num_patches is not None:
            coords = plan.coords()
            parts = [
                part[
                    sample_patches(
                        f"train patch\0{plan.slides[slide].slide_id}", coords[part], self.num_patches, self.seed
                    )
                ]
                for slide, part in zip(chosen, parts, strict=True)
            ]
        return np.sort(np.concatenate(parts)) if parts else rows[:0]


def rank_training_slides(slides: list[int], plan: Plan, seed: int) -> list[int]:
    """Rank slides, by their numbers in the plan: cases by a hash, then a case's slides by a hash.

    A slide whose case is not known is a case of its own, as in the split.
    """

    def key(number: int) -> tuple[bytes, bytes]:
        slide = plan.slides[number]
        words = (f"train case\0{seed}\0{slide.case_id}", f"train slide\0{seed}\0{slide.slide_id}")
        first, second = (hashlib.sha256(word.encode()).digest() for word in words)
        return first, second

    return sorted(slides, key=key)
