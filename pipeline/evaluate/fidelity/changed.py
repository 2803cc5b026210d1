"""Slides whose files are not those that a store's teacher has seen: their rows are left out of fidelity, for a student
would be shown other pixels than the teacher.

Only stores without pixels have such slides. Left out: slides that do not open; reading their rows fails by name.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.base.console import Progress, counted
from pipeline.base.errors import SlideError
from pipeline.evaluate.fidelity.score import StoreRows, require_enough
from pipeline.sampling import TRAIN, VAL
from pipeline.slides.pool import Accepts, require_planned
from pipeline.slides.reader import Slide
from pipeline.store.changed_slides import only_noted
from pipeline.store.store import Store, StoredTeacher


@dataclass(frozen=True)
class ChangedSlides:
    """Slides whose files have changed since they were planned.

    Attributes:
        refused: why a slide's file is not one that the teacher has seen, by the slide's number in the plan.
        warnings: of changed files that stage one has read, or may have read: these are scored.
    """

    refused: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def find_changed(store: Store, slides: Sequence[int], slides_root: Path | None, workers: int) -> ChangedSlides:
    """Open these slides of a store's plan and compare them with it; `workers` threads do so.

    Raises:
        StoreError: the store's notes of changed files are damaged.
    """
    accepts = only_noted(store)
    refused: dict[int, str] = {}
    warnings: list[str] = []
    with ThreadPoolExecutor(workers) as pool, Progress("comparing slides with the plan", len(slides), "slides") as bar:
        compared = pool.map(lambda slide: _compare(store, slide, slides_root, accepts), slides)
        for slide, (is_refused, words) in zip(slides, compared, strict=True):
            if is_refused:
                refused[slide] = words
            elif words:
                warnings.append(words)
            bar.step()
    return ChangedSlides(refused, tuple(warnings))


def _compare(store: Store, slide: int, slides_root: Path | None, accepts: Accepts) -> tuple[bool, str]:
    """Whether a slide's file is refused, and why; if it is not, a warning or ""."""
    planned = store.plan.slides[slide]
    try:
        opened = Slide(store.plan.slide_path(planned, slides_root), planned.manifest_mpp, mpp_overrides=True)
        opened.identity()
    except SlideError:
        return False, ""  # told when a row of it is read
    try:
        return False, require_planned(opened, planned.identity, planned.geometry, accepts_changed=accepts)
    except SlideError as error:
        return True, str(error)


def changed_files_note(changed: ChangedSlides) -> str:
    """That changed files are scored, in words; "" if none is."""
    if not changed.warnings:
        return ""
    number = counted(len(changed.warnings), "slide has", "slides have")
    first = changed.warnings[0].removeprefix("warning: ")
    return f"{number} another file than was planned, which stage one may have read for some rows only: {first}."


def without_changed(teacher: StoredTeacher, rows: StoreRows, changed: ChangedSlides) -> StoreRows:
    """The rows without those of refused slides, which become its `changed`.

    Raises:
        BenchmarkError: too few are left.
    """
    slide_of_row, refused = teacher.plan.slide_of_row(), list(changed.refused)
    train, val = (part[~np.isin(slide_of_row[part], refused)] for part in (rows.train, rows.val))
    left = StoreRows(train, val, np.setdiff1d(rows.all, np.concatenate([train, val])))
    if refused:
        words = f"{counted(len(refused), 'slide is', 'slides are')} left out: {changed.refused[refused[0]]}"
        for split, part in ((TRAIN, train), (VAL, val)):
            require_enough(teacher, split, len(part), words)
    return left
