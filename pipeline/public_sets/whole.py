"""Whether all of a public set was there: its published counts against what was found and could be used. Pure.

Figures of a part of a set are figures of another set: PASS and FAIL would mean nothing. Counted is what the reader
found, copies that are left out by rule included, for the published set has them too; and what the benchmark could not
use afterwards, such as an image that is cut short or a slide without features, is missing as well.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.public_sets.members import Row
from pipeline.report.content import Exclusion, Report

SHOWN_GROUPS = 3
"""Classes or splits that a reason names. Our choice: it is a line."""


@dataclass(frozen=True)
class PublishedCounts:
    """How many members a set has, as published.

    Attributes:
        source: where that is said.
        of: what is counted, in the plural.
        total: all of them; `None` where only `by` or `distinct` is known.
        by: by column of the reader's rows, such as `label` or `split`, how many have each value.
        distinct: by column, such as `slide_id`, how many values there are.
    """

    source: str
    of: str = "images"
    total: int | None = None
    by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    distinct: Mapping[str, int] = field(default_factory=dict)


def why_not_whole(counts: PublishedCounts | None, rows: Sequence[Row], num_left_out: int) -> str:
    """Why what a reader found is not the published set, such as "1,204 of 7,909 images are there"; "" if it is.

    Args:
        counts: `None` where a recipe states none. Then members that a list names and are not there, or that cannot be
            read, are all that can be seen.
        rows: what the reader found.
        num_left_out: members that the reader left out for a fault.
    """
    if counts is None:
        return f"{num_left_out:,} members are missing or cannot be read" if num_left_out else ""
    reasons = []
    if counts.total is not None and len(rows) != counts.total:
        reasons.append(_missing(len(rows), counts.total, f"{counts.of} are there"))
    for column, expected in counts.by.items():
        reasons += _differing(Counter(row.get(column, "") for row in rows), expected, column)
    for column, number in counts.distinct.items():
        if (here := len({row.get(column, "") for row in rows})) != number:
            reasons.append(_missing(here, number, f"values of {column} are there"))
    return "; ".join(reasons)


def why_not_all_used(report: Report, key: str) -> str:
    """Why the benchmark `key` scored only a part of what the reader found; "" if it scored all of it."""
    sections = [section for section in report.sections if section.key == key]
    number = num_failures(exclusion for section in sections for exclusion in section.exclusions)
    return f"{number:,} could not be used" if number else ""


def num_failures(exclusions: Iterable[Exclusion]) -> int:
    """How many things were left out because they failed, not by rule."""
    return sum(each.count for each in exclusions if not each.by_rule)


def _missing(here: int, published: int, what: str) -> str:
    """Both numbers in words, whichever is larger."""
    if here < published:
        return f"{here:,} of {published:,} {what}"
    return f"{here:,} {what}, {published:,} are published"


def _differing(here: Mapping[str, int], published: Mapping[str, int], column: str) -> list[str]:
    """The values of a column that more or fewer members have than are published, the first few of them."""
    names = sorted(name for name in here.keys() | published.keys() if here.get(name, 0) != published.get(name, 0))
    if not names:
        return []
    shown = [f"{name} {here.get(name, 0):,} of {published.get(name, 0):,}" for name in names[:SHOWN_GROUPS]]
    more = [f"and {len(names) - SHOWN_GROUPS} more"] if len(names) > SHOWN_GROUPS else []
    return [f"by {column}: {', '.join([*shown, *more])}"]
