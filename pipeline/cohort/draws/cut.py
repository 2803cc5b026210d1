"""Cut the patches of planned slides to numbers that the cohort as a whole decides, once all slides are known. Pure.

The first phase of a plan takes all patches of each slide; this is the second. A cut keeps the patches with the smallest
keys (`sampling`), or those that another draw takes first (`by_method`), so that a smaller number is part of a larger
one, and what a slide gives depends on its number only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.base.console import counted
from pipeline.cohort.draws.balance import Candidates, balanced_counts
from pipeline.cohort.draws.by_method import sample_of_slide
from pipeline.cohort.plan import SlidePlan
from pipeline.config.groups import Sampling
from pipeline.sampling import SPLIT_NAMES

NOTHING_LEFT = "the balance between centres leaves no patch for it"
NO_CENTER = ""
"""Group of the slides whose centre is not known."""


def balanced_by_center(slides: Sequence[SlidePlan], patches_per_slide: int, sampling: Sampling) -> list[SlidePlan]:
    """Slides with all their patches, cut so that the centres give equally many; in the same order.

    The patches to train on, and those held out, are as many as with `patches_per_slide` of every slide; the two are
    balanced apart. Slides of small centres give more than `patches_per_slide`.
    """
    usual = [cut_slide(slide, {None: patches_per_slide}, sampling) for slide in slides]
    counts: dict[str, dict[int | None, int]] = {slide.slide_id: {} for slide in slides}
    for split in range(len(SPLIT_NAMES)):
        total = sum(int((slide.split == split).sum()) for slide in usual)
        held = [Candidates(s.slide_id, s.center or NO_CENTER, int((s.split == split).sum())) for s in slides]
        given = balanced_counts([slide for slide in held if slide.available], total, sampling.seed)
        for slide_id, count in given.items():
            counts[slide_id][split] = count
    return [cut_slide(slide, counts[slide.slide_id], sampling) for slide in slides]


def cut_slide(slide: SlidePlan, counts: Mapping[int | None, int], sampling: Sampling) -> SlidePlan:
    """A slide with so many of its patches of each split code, or, under `None`, of all; in reading order."""
    kept = [np.empty(0, np.int64)]
    for split, count in counts.items():
        of_split = np.arange(len(slide.split)) if split is None else np.flatnonzero(slide.split == split)
        part, drawn = slide.take(of_split), replace(sampling, patches_per_slide=count)
        kept.append(of_split[sample_of_slide(slide.slide_id, part.coords_l0_px, part.classes, drawn)])
    return slide.take(np.sort(np.concatenate(kept)))


def balance_notes(slides: Sequence[SlidePlan], patches_per_slide: int) -> list[str]:
    """What to say of slides that were balanced by centre."""
    of_center: dict[str, int] = {}
    for slide in slides:
        center = slide.center or NO_CENTER
        of_center[center] = of_center.get(center, 0) + len(slide.split)
    above = [len(slide.split) for slide in slides if len(slide.split) > patches_per_slide]
    least, most = min(of_center.values()), max(of_center.values())
    given = f"{counted(most, 'patch', 'patches')} each" if least == most else f"{least:,} to {most:,} patches each"
    notes = [f"--balance center: {counted(len(of_center), 'centre')}, {given}"]
    if above:
        notes[0] += (
            f"; from {counted(len(above), 'slide')} come more than --patches-per-slide {patches_per_slide:,}, at most "
            f"{max(above):,}"
        )
    if NO_CENTER in of_center:
        unknown = counted(sum(not slide.center for slide in slides), "slide")
        notes.append(f"--balance center: {unknown} without a center: together they are one centre")
    return notes
