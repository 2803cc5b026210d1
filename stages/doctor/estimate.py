"""What a whole cohort takes in patches, hours and bytes, from a few of its slides that were planned for real."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Self

from pipeline.base.console import counted
from pipeline.base.cores import usable_cores
from pipeline.base.errors import G2LError
from pipeline.base.units import format_bytes, format_seconds
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.budget import USUAL_PRICES, Prices, patches_bought
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.config.budget import Budget
from pipeline.config.groups import Grid, Sampling, TissueFiles
from pipeline.config.plan import PlanConfig
from pipeline.config.staging import StageFolder
from pipeline.slides.patch_sample import PatchSample, expected_pixel_bytes
from stages.doctor.findings import Finding, trouble
from stages.planning.audit_slide import Audited
from stages.planning.prices import prices_of

OF_CONFIG = "of `plan` comes from the table [plan] of --config"
MEND_PLAN = f"correct that: `g2l plan` would stop here, too, so no slide was read. Each option {OF_CONFIG}"
"""What to do where `plan` would refuse its options."""
PIXEL_WORDS = {"jpegxl": "lossless pixels", "jpeg": "pixels as JPEG", "none": "pixels, which are not kept,"}
"""How an estimate calls pixels, by how the store keeps them."""
HOW_TO_TIME = (
    "for the teacher's hours name it: `g2l doctor MANIFEST --teacher NAME` times it here with random weights, which "
    "need not be there; `g2l models` lists the names. `g2l plan --budget 12h` then takes its rate as --rate"
)


@dataclass(frozen=True)
class TriedSlides:
    """What `plan` would do, as far as slides are tried and the whole is estimated from them.

    Attributes:
        planned: the options of `plan`.
        grid, sampling, tissue_files: how a slide is planned; nothing is written.
        slides_root: the folder that relative paths start from.
        stage: where slides in a bucket are copied to; `None`: nowhere.
        most_of_a_slide: patches of a slide at most; `None`: all.
        budget, budget_words: what all patches may come to, parsed and as typed; `None` and "": no bound.
        prices: what a patch costs of the budget; `None` where that is not known.
        why_unpriced: why it is not known.
    """

    planned: PlanConfig
    grid: Grid
    sampling: Sampling
    tissue_files: TissueFiles = field(default_factory=TissueFiles)
    slides_root: Path | None = None
    stage: StageFolder | None = None
    most_of_a_slide: int | None = None
    budget: Budget | None = None
    budget_words: str = ""
    prices: Prices | None = None
    why_unpriced: str = ""

    @classmethod
    def by(cls, planned: PlanConfig, slides_root: Path | None = None) -> Self:
        """Those of the options of `plan`; `slides_root` counts before theirs."""
        prices, why_unpriced = None, ""
        try:
            prices = prices_of(planned)
        except G2LError as error:
            why_unpriced = str(error)
        return cls(
            planned=planned,
            grid=planned.grid,
            sampling=planned.sampling,
            tissue_files=replace(planned.tissue_files, write_to=None),
            slides_root=slides_root or planned.slides_root,
            stage=planned.stage_folder,
            most_of_a_slide=None if planned.budget else planned.patches_per_slide,
            budget=planned.parsed_budget,
            budget_words=planned.budget or "",
            prices=prices,
            why_unpriced=why_unpriced,
        )


def estimate_cohort(
    tried: Sequence[Audited],
    rows: Sequence[ManifestRow],
    place: Path,
    teacher_seconds: float | None,
    slides: TriedSlides,
) -> Iterator[Finding]:
    """What a cohort takes, whose rows to plan are `rows`, if its other slides are like those that were tried; slides
    that can have no patch, since they have no annotations to include, are counted and not scaled.
    """
    bare = {row.slide_id for row in rows if slides.sampling.classes.include and not row.annotations}
    like = [each for each in tried if each.audit.slide_id not in bare]
    samples = _measured(like)
    if not samples:
        return
    num_bare = sum(row.slide_id in bare for row in rows)
    taken, offered = _taken(like, (len(rows) - num_bare) / len(like), slides)
    num = sum(each.patches_taken for each in taken)
    basis = f"{counted(num, 'patch', 'patches')} of {counted(len(rows), 'slide')}"
    basis += _of_budget(slides, num, offered) + _likeness(like, num_bare)
    words = f"{basis}; {_hours(samples, num, teacher_seconds)}"
    yield _with_room(words, taken, place, slides, "" if teacher_seconds is not None else HOW_TO_TIME)


def _measured(tried: Sequence[Audited]) -> list[PatchSample]:
    """The samples of the slides of which some patches were read."""
    return [each.sample for each in tried if each.sample and each.sample.measured]


def _with_room(words: str, taken: Sequence[AuditRow], place: Path, slides: TriedSlides, advice: str) -> Finding:
    """The estimate with its bytes, and trouble if the disk of `place` has not as many."""
    costs, num = slides.prices or USUAL_PRICES, sum(each.patches_taken for each in taken)
    pixels, embeddings = expected_pixel_bytes(taken, costs.pixels) or 0.0, num * costs.embedding_bytes
    words += f"; {format_bytes(round(pixels))} of {PIXEL_WORDS[costs.pixels]}"
    words += f" and {format_bytes(embeddings)} of embeddings"
    try:
        free = shutil.disk_usage(place).free
    except OSError:  # `look_at_place` has said so
        return Finding("ok", "estimate", words, advice)
    if pixels + embeddings <= free:
        return Finding("ok", "estimate", words, advice)
    fewer = "a smaller --budget" if slides.budget else "fewer --patches-per-slide"
    advice = f"`extract-teacher --pixels jpeg` (0.4 of the pixels) or none, {fewer}, or another disk"
    return trouble("estimate", f"{words}; only {format_bytes(free)} are free in {place}", advice)


def _hours(samples: Sequence[PatchSample], num: int, teacher_seconds: float | None) -> str:
    """How long so many patches take to read, and the teacher."""
    cores = usable_cores()
    reading = num * sum(each.seconds for each in samples) / sum(each.measured for each in samples) / cores
    teacher = (
        "the teacher's time is unknown"
        if teacher_seconds is None
        else f"about {format_seconds(num * teacher_seconds)} for the teacher, beside it"
    )
    return f"about {format_seconds(reading)} to read with {counted(cores, 'thread')}, {teacher}"


def _taken(tried: Sequence[Audited], share: float, slides: TriedSlides) -> tuple[list[AuditRow], int]:
    """The audit of the slides that were tried, with the patches of the `share` slides that each stands for, cut to the
    budget as `plan` does if prices are known; and how many there were before.

    A slide that failed stands for others that give none.
    """
    audit = [each.audit for each in tried]
    numbers = [row.patches_taken if each.slide is not None else 0 for each, row in zip(tried, audit, strict=True)]
    available = _scaled([min(number, slides.most_of_a_slide or number) for number in numbers], share)
    offered = sum(available)
    if slides.budget is not None and slides.prices is not None:
        available = patches_bought(available, audit, slides.budget, slides.prices, range(len(audit)))
    return [replace(row, patches_taken=number) for row, number in zip(audit, available, strict=True)], offered


def _scaled(numbers: Sequence[int], share: float) -> list[int]:
    """Numbers times `share`, in whole numbers whose sum is that of all, rounded."""
    ends = [round(sum(numbers[:end]) * share) for end in range(len(numbers) + 1)]
    return [end - start for start, end in pairwise(ends)]


def _of_budget(slides: TriedSlides, num: int, offered: int) -> str:
    """What an estimate says of the budget, if there is one."""
    if slides.budget is None:
        return ""
    if slides.prices is None:
        return f", without --budget {slides.budget_words}, which is not in this estimate"
    if num < offered:
        return f", what --budget {slides.budget_words} buys of {offered:,}"
    return f", within --budget {slides.budget_words}"


def _likeness(like: Sequence[Audited], num_bare: int) -> str:
    """What an estimate takes for granted of the slides that were not tried."""
    none = sum(each.slide is None for each in like)
    words = f", if the {len(like)} read are like the rest"
    if none:
        words = f", if the {len(like)} tried are like the rest: {none} of them {'gives' if none == 1 else 'give'} none"
    if num_bare:
        words += f"; {counted(num_bare, 'slide')} without annotations cannot give any"
    return words
