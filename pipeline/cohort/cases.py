"""Report how well the cases of slides are known: splits are by case, so that no patient is on both sides. Pure.

A slide without a case in the manifest counts as a case of its own, although its patient may have several slides. A plan
records for each slide whether its case was given; plans of earlier versions do not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.base.console import counted
from pipeline.cohort.barcodes import find_barcode

CASE_COLUMNS = ("case_id", "case", "patient_id", "patient")
"""Names of columns of cases and patients in manifests and in tables of `evaluate`, in small letters."""
FIX = "Fill in the manifest's column case_id (the patient)"


class OfCase(Protocol):
    """A slide of a plan or a row of a manifest."""

    @property
    def slide_id(self) -> str:
        """The slide's id."""

    @property
    def path(self) -> str:
        """The slide's file."""

    @property
    def case_id(self) -> str:
        """The slide's case, or its id if no case was given."""

    @property
    def has_case(self) -> bool | None:
        """Whether the case was given; `None` if that was not recorded."""


@dataclass(frozen=True)
class CaseFacts:
    """How well the cases of some slides are known.

    Attributes:
        slides: number of slides.
        unknown: number of slides without a case.
        not_recorded: number of slides of which it was not recorded whether a case was given.
        repeats_ids: whether all cases were given, each equal to the slide's id.
        barcodes: number of cases named by TCGA barcodes of slides without a case.
        parted: number of patients, by TCGA barcodes, whose slides were given several cases.
    """

    slides: int
    unknown: int
    not_recorded: int
    repeats_ids: bool
    barcodes: int = 0
    parted: int = 0

    @property
    def all_known(self) -> bool:
        """Whether every slide has a case that is more than the slide's id."""
        return not (self.unknown or self.not_recorded or self.repeats_ids)

    def count(self, number: int) -> str:
        """A number of cases in words, or "not known"."""
        return f"{number:,}" if not (self.unknown or self.not_recorded) else "not known"


def case_facts(slides: Iterable[OfCase]) -> CaseFacts:
    """Count what is known of the cases of `slides`. A case that differs from the slide's id was given, recorded or
    not.
    """
    listed = list(slides)
    unknown = [slide for slide in listed if slide.has_case is False]
    not_recorded = [slide for slide in listed if slide.has_case is None and slide.case_id == slide.slide_id]
    repeats = len(listed) > 1 and not unknown and all(slide.case_id == slide.slide_id for slide in listed)
    barcodes = len(_cases_of_barcodes(unknown))
    parted = len(parted_patients((each.case_id, (each.slide_id, each.path)) for each in filter(_has_case, listed)))
    return CaseFacts(len(listed), len(unknown), len(not_recorded), repeats and not not_recorded, barcodes, parted)


def parted_patients(rows: Iterable[tuple[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Patients whose rows have two cases or more, by the patient of their TCGA barcodes: those cases, in order. Samples
    and slides are often given in the place of the patient.

    `rows` have their case, and further names that may hold a barcode; that of the case counts first.
    """
    cases: dict[str, set[str]] = {}
    for case_id, names in dict.fromkeys((case_id, tuple(names)) for case_id, names in rows):
        barcode = next((found for found in map(find_barcode, (case_id, *names)) if found), None)
        if barcode is not None:
            cases.setdefault(barcode.case_id, set()).add(case_id)
    return {patient: sorted(names) for patient, names in sorted(cases.items()) if len(names) > 1}


def patients_have(number: int) -> str:
    """Their number with its verb."""
    return f"{number:,} patients have" if number > 1 else "1 patient has"


def _has_case(slide: OfCase) -> bool:
    """Whether a slide's case was given, as far as is known."""
    return bool(slide.has_case) or slide.case_id != slide.slide_id


def _cases_of_barcodes(slides: Iterable[OfCase]) -> set[str]:
    """The cases that TCGA barcodes in the slides' names give."""
    barcodes = [find_barcode(slide.path) or find_barcode(slide.slide_id) for slide in slides]
    return {barcode.case_id for barcode in barcodes if barcode}


def counted_cases(slides: Iterable[OfCase]) -> str:
    """The number of cases of slides in words, as far as known."""
    listed = list(slides)
    facts = case_facts(listed)
    unclear = facts.unknown + facts.not_recorded
    if unclear == facts.slides:
        return "unknown cases"
    known = {slide.case_id for slide in listed if _has_case(slide)}
    more = f" (of {counted(unclear, 'slide')} not known)" if unclear else ""
    return f"{len(known):,} case{'s' * (len(known) != 1)}{more}"


def cases_warning(facts: CaseFacts) -> str:
    """A warning that a split by case may put a patient on both sides; "" if all cases are known, or for one slide."""
    if facts.slides < 2 or (facts.all_known and not facts.parted):
        return ""
    sides = "slides of one patient may be on both sides of the split, and held-out figures too good"
    if facts.unknown:
        hint = (
            f" (their names have TCGA barcodes of {facts.barcodes:,} case{'s' * (facts.barcodes > 1)})"
            if facts.barcodes
            else ""
        )
        return (
            f"cases are not known: {facts.unknown:,} of {facts.slides:,} slides have no case_id, and each counts as a "
            f"case of its own. So {sides}. {FIX}{hint}"
        )
    if facts.not_recorded:
        return (
            f"it is not known whether cases were given: the plan is of an earlier version, and "
            f"{facts.not_recorded:,} of {facts.slides:,} slides count as cases of their own. If no cases were given, "
            f"{sides}"
        )
    if facts.parted:
        return f"{_parted_words(facts)}. So {sides}. {FIX}: TCGA-XX-XXXX, without the sample"
    return (
        "every slide's case_id is its slide_id, so each slide counts as a case of its own. If patients have several "
        f"slides, {sides}. {FIX}"
    )


def _parted_words(facts: CaseFacts) -> str:
    """That patients have several cases."""
    return f"by their TCGA barcodes {patients_have(facts.parted)} slides of several cases"


def cases_in_words(facts: CaseFacts) -> str:
    """Sentences on how far a split by case keeps patients on one side."""
    if facts.unknown:
        return (
            f"The split is by case where the case is known. {facts.unknown:,} of {facts.slides:,} slides have no known "
            "case, and each counts as a case of its own. Slides of one patient may be on both sides, and the held-out "
            "figures too good."
        )
    if facts.not_recorded:
        return (
            "The split is by case as far as cases were given. It is not known whether they were: the plan, of an "
            f"earlier version, does not record it for {facts.not_recorded:,} of {facts.slides:,} slides. "
            "Slides of one patient may be on both sides."
        )
    if facts.parted:
        return (
            f"The split is by the manifest's case_id, but {_parted_words(facts)}, which may be on both sides, and the "
            "held-out figures too good."
        )
    if facts.repeats_ids:
        return (
            "The split is by the manifest's case_id, which is each slide's own id. No slide is on both sides, but it "
            "is not known whether patients have several slides."
        )
    return "The split is by case: no case, and so no slide, is on both sides."
