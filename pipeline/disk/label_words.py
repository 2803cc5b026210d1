"""Interpret cells of a table: words for a missing value, names spelled in two ways, numbers as labels. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MISSING_WORDS = frozenset(
    {
        "na",
        "n/a",
        "n.a",
        "n/d",
        "n.d",
        "nan",
        "-nan",
        "1.#ind",
        "-1.#ind",
        "1.#qnan",
        "-1.#qnan",
        "null",
        "nil",
        "none",
        "missing",
        "unknown",
        "unk",
        "undefined",
        "not available",
        "not evaluated",
        "not reported",
        "not applicable",
        "not known",
        "indeterminate",
    }
)
"""Words for a missing value, in lower case: printed by pandas, R, SQL and C, or used in the clinical tables of the GDC
and cBioPortal. "none" is among them because pandas and Python write it (decision 0026).
"""
AS_WRITTEN = frozenset({"NaT", "\\N"})
"""pandas' missing time and the NULL of MySQL and Hive, case-sensitive: NAT is normal adjacent tissue."""
NO_LETTERS = re.compile(r"[-\u2010-\u2015\u2212.?*_/\s'\u2026]*")
"""Cells of punctuation only: `.` (SAS, Stata), `?` (UCI, Weka), dashes."""
SPREADSHEET_ERROR = re.compile(
    r"#\u00a1?(?:[^\W\d_]|[/0])+[!?]|#n/?[ad](?: n/?[ad])?|#nv|#(?:value|ref|name|num|null|div/0|spill|calc|field)"
    r"|#getting_data|#+|err:\d+",
    re.IGNORECASE,
)
"""`#VALUE!`, `#NAME?`, `#DIV/0!`, with or without the final mark, in other languages as well (`#WERT!`,
`#\u00a1VALOR!`, `#N/D`), `#N/A`, `Err:502`.
"""
BRACKETS = "[]<>(){}\"'"
WHOLE = re.compile(r"^(\d+)\.0+$")
"""A whole number written as a float."""
MAX_SHOWN = 5
"""Names that a note lists. Our choice."""
MAX_NUMERIC_CLASSES = 10
"""Most distinct numbers that still count as classes, such as grades. Our choice: there are nine Gleason sums."""


def is_unknown(cell: str) -> bool:
    """Whether a cell stands for a missing value: one rule for all columns of all tables."""
    text = cell.strip()
    bare = text.strip(BRACKETS).strip().lower().rstrip(".")
    if text in AS_WRITTEN:
        return True
    return bare in MISSING_WORDS or bool(NO_LETTERS.fullmatch(bare)) or bool(SPREADSHEET_ERROR.fullmatch(text))


def cell_value(cell: str) -> str:
    """A cell's text without surrounding blanks; "" if it stands for a missing value."""
    return "" if is_unknown(cell) else cell.strip()


def missing_notes(label: str, cells: Iterable[str]) -> list[str]:
    """A note that lists the words of a label column that count as missing, since one may be a class; empty if none
    do.
    """
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
    """A note on `names` that differ only in capitals, blanks or a .0 (pandas writes 7 as 7.0 in a column with gaps):
    they are rarely meant to be different. Empty if there are none.
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
    return [f"These {what} differ only in capitals, blanks or a .0 and count as different: {listed}{more}."]


def numeric_notes(label: str, names: Iterable[str]) -> list[str]:
    """A note on a label that looks like a measurement: more distinct numbers than classes would have. Else empty."""
    distinct = {str(name) for name in names}
    if len(distinct) <= MAX_NUMERIC_CLASSES or not all(_is_number(name) for name in distinct):
        return []
    return [
        f"The label {label} looks like a number: each of its {len(distinct):,} values counts as a class. Divide it "
        "into classes, such as above and below a limit."
    ]


def _is_number(text: str) -> bool:
    """Whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
