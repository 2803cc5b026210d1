"""What is known of the cases of slides, in words: splits are by case, so that no patient is on both sides. Pure.

Where a manifest names no case, a slide counts as a case of its own, and nobody knows whether patients have several. A
plan says of each slide whether its case was given; plans of earlier versions do not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline.cohort.barcodes import find_barcode

MEND = "Fill in the manifest's column case_id (the patient)"


class OfCase(Protocol):
    """A slide of a plan or a row of a manifest."""

    @property
    def slide_id(self) -> str:
        """Its name."""

    @property
    def path(self) -> str:
        """Its file."""

    @property
    def case_id(self) -> str:
        """Its case, or its own name."""

    @property
    def has_case(self) -> bool | None:
        """Whether the case was given; `None` where it is not recorded."""


@dataclass(frozen=True)
class CaseFacts:
    """What is known of the cases of some slides.

    Attributes:
        slides: how many there are.
        unknown: those of which no case was given.
        not_recorded: those of which it is not known whether one was given.
        repeats_ids: whether all cases were given, each as the slide's own id.
        barcodes: cases that TCGA barcodes name among the slides without a case.
    """

    slides: int
    unknown: int
    not_recorded: int
    repeats_ids: bool
    barcodes: int = 0

    @property
    def all_known(self) -> bool:
        """Whether a case was given for every slide, and says more than the slide's id."""
        return not (self.unknown or self.not_recorded or self.repeats_ids)

    def count(self, number: int) -> str:
        """A number of cases, or that it is not known."""
        return f"{number:,}" if not (self.unknown or self.not_recorded) else "not known"


def case_facts(slides: Iterable[OfCase]) -> CaseFacts:
    """What is known of the cases of `slides`. A case that is not called as its slide was given, recorded or not."""
    listed = list(slides)
    unknown = [slide for slide in listed if slide.has_case is False]
    not_recorded = [slide for slide in listed if slide.has_case is None and slide.case_id == slide.slide_id]
    repeats = len(listed) > 1 and not unknown and all(slide.case_id == slide.slide_id for slide in listed)
    named = [find_barcode(slide.path) or find_barcode(slide.slide_id) for slide in unknown]
    barcodes = {barcode.case_id for barcode in named if barcode}
    return CaseFacts(len(listed), len(unknown), len(not_recorded), repeats and not not_recorded, len(barcodes))


def counted_cases(slides: Iterable[OfCase]) -> str:
    """How many cases slides are of, in words, as far as it is known."""
    listed = list(slides)
    facts = case_facts(listed)
    unclear = facts.unknown + facts.not_recorded
    if unclear == facts.slides:
        return "unknown cases"
    known = {slide.case_id for slide in listed if slide.has_case or slide.case_id != slide.slide_id}
    more = f" (of {unclear:,} slides not known)" if unclear else ""
    return f"{len(known):,} case{'s' * (len(known) != 1)}{more}"


def cases_warning(facts: CaseFacts) -> str:
    """A warning that a split by case may part no patients, "" if all is known; one slide is on one side only."""
    if facts.slides < 2 or facts.all_known:
        return ""
    sides = "slides of one patient may be on both sides of the split, and held-out figures are then too good"
    if facts.unknown:
        hint = (
            f" (their names have TCGA barcodes of {facts.barcodes:,} case{'s' * (facts.barcodes > 1)})"
            if facts.barcodes
            else ""
        )
        return (
            f"cases are not known: {facts.unknown:,} of {facts.slides:,} slides have no case_id, and each counts as a "
            f"case of its own, so that {sides}. {MEND}{hint}"
        )
    if facts.not_recorded:
        return (
            f"it is not known whether cases were given: the plan is of an earlier version, and "
            f"{facts.not_recorded:,} of {facts.slides:,} slides are cases of their own. If none were, {sides}"
        )
    return (
        "every slide's case_id is its own slide_id, so that each is a case of its own. If patients have several "
        f"slides, {sides}. {MEND}"
    )


def cases_in_words(facts: CaseFacts) -> str:
    """How far a split by case keeps patients on one side, as sentences."""
    if facts.unknown:
        return (
            f"The split is by case where the case is known: of {facts.unknown:,} of {facts.slides:,} slides it is not, "
            "and each of these counts as a case of its own. Slides of one patient may be on both sides; the held-out "
            "figures are then too good."
        )
    if facts.not_recorded:
        return (
            "The split is by case as far as cases were given; it is not known whether they were: of "
            f"{facts.not_recorded:,} of {facts.slides:,} slides the plan, of an earlier version, does not say it. "
            "Slides of one patient may be on both sides."
        )
    if facts.repeats_ids:
        return (
            "The split is by the manifest's case_id, which is each slide's own id: no slide is on both sides, and it "
            "is not known whether patients have several slides."
        )
    return "The split is by case: no case, and so no slide, is on both sides."
