"""What cells of a table say: words for a missing value, names spelled in two ways, numbers as labels. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MISSING_WORDS = frozenset(
    {"na", "n/a", "n.a", "n/d", "n.d", "nan", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "null", "nil", "none",
     "missing", "unknown", "unk", "undefined", "not available", "not evaluated", "not reported", "not applicable",
     "not known", "indeterminate"}
)  # fmt: skip
"""Words that say that there is no value, in small letters: what pandas, R, SQL and C print, and what the clinical
tables of the GDC and cBioPortal hold. "none" is among them, for pandas and Python write it (decision 0026).
"""
AS_WRITTEN = frozenset({"NaT", "\\N"})
"""pandas' missing time and the NULL of MySQL and Hive, in these capitals only: NAT is normal adjacent tissue."""
NO_LETTERS = re.compile(r"[-\u2010-\u2015\u2212.?*_/\s'\u2026]*")
"""Cells of such marks only: `.` of SAS and Stata, `?` of UCI and Weka, dashes."""
SPREADSHEET_ERROR = re.compile(
    r"#\u00a1?(?:[^\W\d_]|[/0])+[!?]|#n/?[ad](?: n/?[ad])?|#nv|#(?:value|ref|name|num|null|div/0|spill|calc|field)"
    r"|#getting_data|#+|err:\d+",
    re.IGNORECASE,
)
"""`#VALUE!`, `#NAME?`, `#DIV/0!`, without their mark too, and what they are called in other languages (`#WERT!`,
`#\u00a1VALOR!`, `#N/D`), `#N/A`, `Err:502`.
"""
BRACKETS = "[]<>(){}\"'"
WHOLE = re.compile(r"^(\d+)\.0+$")
"""A whole number as a float prints it."""
MAX_SHOWN = 5
"""Names that a note lists. Our choice."""
MAX_NUMERIC_CLASSES = 10
"""Different numbers up to which a label may be a class, such as a grade. Our choice: Gleason sums are nine."""


def is_unknown(cell: str) -> bool:
    """Whether a cell says that there is no value: the one rule for every column of every table that is read."""
    text = cell.strip()
    bare = text.strip(BRACKETS).strip().lower().rstrip(".")
    if text in AS_WRITTEN:
        return True
    return bare in MISSING_WORDS or bool(NO_LETTERS.fullmatch(bare)) or bool(SPREADSHEET_ERROR.fullmatch(text))


def cell_value(cell: str) -> str:
    """What a cell says without blanks around it, "" where it says that there is no value."""
    return "" if is_unknown(cell) else cell.strip()


def missing_notes(label: str, cells: Iterable[str]) -> list[str]:
    """A note on words in a column of labels that count as none, for one of them may be a class; else none."""
    words = Counter(cell.strip() for cell in cells if cell.strip() and is_unknown(cell))
    if not words:
        return []
    listed = ", ".join(f"{word!r} ({count:,})" for word, count in words.most_common(MAX_SHOWN))
    more = f" and {len(words) - MAX_SHOWN:,} more" if len(words) > MAX_SHOWN else ""
    return [
        f"These words in the column {label} count as a missing value: {listed}{more}. If one of them is a class, "
        "give it another name, such as 'absent' for 'none'."
    ]


def spelling_notes(what: str, names: Iterable[str]) -> list[str]:
    """A note on `names` that differ in capitals or blanks only, or as 7 and 7.0, which pandas makes of whole numbers in
    a column with gaps; they are rarely meant to be different. Else none.
    """
    alike: dict[str, list[str]] = {}
    for name in sorted({str(name) for name in names}):
        plain = unicodedata.normalize("NFKC", "".join(name.split())).casefold()
        alike.setdefault(WHOLE.sub(r"\1", plain), []).append(name)
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
