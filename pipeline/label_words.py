"""What cells of a table say: words for a missing value, names spelled in two ways, numbers as labels. Pure."""

import re
from collections.abc import Iterable

UNKNOWN_LABELS = frozenset(
    {"", "-", "--", "'--", "na", "n/a", "nan", "null", "missing", "unknown", "not available", "not evaluated",
     "not reported", "not applicable", "indeterminate"}
)  # fmt: skip
"""Labels that say that there is none, in any case and in square brackets or not: what pandas writes, and what the GDC's
and cBioPortal's clinical tables hold. "none" is not among them: it may be a class.
"""
WHOLE = re.compile(r"^(\d+)\.0+$")
"""A whole number as a float prints it."""
MAX_SHOWN = 5
"""Names that a note lists. Our choice."""
MAX_NUMERIC_CLASSES = 10
"""Different numbers up to which a label may be a class, such as a grade. Our choice: Gleason sums are nine."""


def is_unknown(cell: str) -> bool:
    """Whether a cell says that there is no label, see `UNKNOWN_LABELS`."""
    return cell.strip().strip("[]").strip().lower() in UNKNOWN_LABELS


def spelling_notes(what: str, names: Iterable[str]) -> list[str]:
    """A note on `names` that differ in capitals or blanks only, or as 7 and 7.0, which pandas makes of whole numbers in
    a column with gaps; they are rarely meant to be different. Else none.
    """
    alike: dict[str, list[str]] = {}
    for name in sorted({str(name) for name in names}):
        alike.setdefault(WHOLE.sub(r"\1", "".join(name.split()).casefold()), []).append(name)
    several = [" and ".join(repr(name) for name in group) for group in alike.values() if len(group) > 1]
    if not several:
        return []
    more = f" and {len(several) - MAX_SHOWN:,} more" if len(several) > MAX_SHOWN else ""
    listed = "; ".join(several[:MAX_SHOWN])
    return [f"These {what} differ in capitals, blanks or a .0 only and count as different: {listed}{more}."]


def numeric_notes(label: str, names: Iterable[str]) -> list[str]:
    """A note on a label that looks like a measurement: numbers, more of them than classes have; else none."""
    different = {str(name) for name in names}
    if len(different) <= MAX_NUMERIC_CLASSES or not all(_is_number(name) for name in different):
        return []
    return [
        f"The label {label} looks like a number: its {len(different):,} values count as a class each. Make classes of "
        "it, such as above and below a limit."
    ]


def _is_number(text: str) -> bool:
    """Whether it reads as one."""
    try:
        float(text)
    except ValueError:
        return False
    return True
