"""What each case of a plan gives: a table for the terminal, and the whole one as a file beside the plan."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pipeline.base.console import table
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.disk.tables import write_records
from pipeline.sampling import TRAIN, VAL

MOST_CASES = 20
"""Cases up to which all are listed; of more, half as many at each end. Our choice: a screenful."""
CASE_HEAD = ("case", "slides", "patches", "to train on", "held out")
JOINED_BY = " + "
"""Stands between the centres of a case that has slides of several."""


@dataclass
class CaseCounts:
    """What a case gives; the columns of `<plan>.cases.csv` are these.

    Attributes:
        case_id: the case.
        center: the centres of all its slides, joined; "" if none is known.
        slides: slides with patches.
        slides_without: slides that give no patch: failed, excluded, or nothing was left for them.
        patches, train, held_out: patches, and how many of them are in each split.
    """

    case_id: str
    center: str = ""
    slides: int = 0
    slides_without: int = 0
    patches: int = 0
    train: int = 0
    held_out: int = 0
    centers: set[str] = field(default_factory=set, repr=False)

    def add(self, slide: SlidePlan) -> None:
        """Count a slide that has patches."""
        self.slides += 1
        self.patches += len(slide.split)
        self.train += int((slide.split == TRAIN).sum())
        self.held_out += int((slide.split == VAL).sum())
        self.add_center(slide.center)

    def add_center(self, center: str | None) -> None:
        """Note the centre of one of its slides, with patches or without."""
        self.centers |= {center} if center else set()
        self.center = JOINED_BY.join(sorted(self.centers))

    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        return self.case_id, *(f"{number:,}" for number in (self.slides, self.patches, self.train, self.held_out))


COLUMNS = [each.name for each in fields(CaseCounts) if each.name != "centers"]


def counts_by_case(slides: Sequence[SlidePlan]) -> dict[str, CaseCounts]:
    """What each case of slides with patches gives, by its name."""
    counts: dict[str, CaseCounts] = {}
    for slide in slides:
        counts.setdefault(slide.case_id, CaseCounts(slide.case_id)).add(slide)
    return counts


def case_table(slides: Sequence[SlidePlan]) -> str:
    """The cases for the terminal, those with most patches first: all of them where they are few, else those with most
    and with fewest. "" if no slide's case is known, for then each is one.
    """
    if all(slide.has_case is False for slide in slides):
        return ""
    order = sorted(counts_by_case(slides).values(), key=lambda case: (-case.patches, case.case_id))
    lines = [case.cells() for case in order]
    hidden = order[MOST_CASES // 2 : -(MOST_CASES // 2)] if len(order) > MOST_CASES else []
    if hidden:
        patches = sum(case.patches for case in hidden)
        middle = (f"... {len(hidden):,} more", "", f"{patches:,}", "", "")
        lines = [*lines[: MOST_CASES // 2], middle, *lines[-(MOST_CASES // 2) :]]
    return table(lines, CASE_HEAD, right=range(1, len(CASE_HEAD)))


def write_cases(plan: Plan, path: Path) -> None:
    """Write what each case gives as CSV, in the order of their names; with cases that give nothing."""
    counts, planned = counts_by_case(plan.slides), {slide.slide_id for slide in plan.slides}
    for row in plan.audit:
        if row.slide_id not in planned:
            case = counts.setdefault(row.case_id, CaseCounts(row.case_id))
            case.slides_without += 1
            case.add_center(row.center)
    write_records(path, [asdict(counts[name]) for name in sorted(counts)], COLUMNS)
