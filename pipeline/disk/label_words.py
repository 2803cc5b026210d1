"""Interpret cells of a table: words for a missing value, names spelled in two ways, numbers as labels. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

MISSING_WORDS = frozenset(
    {
        "na",
        "n/a",
        "n.a",
        "n/d",
        "n.d",
        "n\\a",
        "n a",
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
        "undef",
        "unspecified",
        "tbd",
        "to be determined",
        "pending",
        "no data",
        "not available",
        "not evaluated",
        "not reported",
        "not applicable",
        "not known",
        "not specified",
        "not recorded",
        "not done",
        "not determined",
        "not assessed",
        "not performed",
        "not provided",
        "not collected",
        "not stated",
        "not tested",
        "indeterminate",
    }
)
"""Words for a missing value, in lower case: printed by pandas, R, SQL and C, or used in clinical tables, those of the
GDC and cBioPortal among them. "none" is among them because pandas and Python write it (decision 0026).
"""
MAYBE_CLASSES = frozenset({"nd", "nr", "blank", "empty"})
"""Words that are a class or a missing value: NR is a non-responder or not reported, ND not detected or not done, blank
and empty are kinds of tile. They are classes of a label, which a note tells, and no case (decision 0026).
"""
STATUS_IN_BRACKETS = re.compile(r"\[(?!completed\])[a-z][a-z /]{2,}\]", re.IGNORECASE)
"""Words in square brackets stand for missing values in TCGA's clinical tables (biotab): `[Discrepancy]`. Only
`[Completed]` is a status.
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
BLANKS = re.compile(r"(?<=\w)[\s_]+(?=\w)")
"""What stands between words: `not_reported`."""
WHOLE = re.compile(r"^0*(\d+)(?:\.0+)?$", re.ASCII)
"""A whole number as tables spell it: pandas writes 7 as 7.0, and spreadsheets write 007 as 7."""
MAX_SHOWN = 5
"""Names that a note lists. Our choice."""
MAX_NUMERIC_CLASSES = 10
"""Most distinct numbers that still count as classes, such as grades. Our choice: there are nine Gleason sums."""


def is_unknown(cell: str) -> bool:
    """Whether a cell stands for a missing value: one rule for all columns of all tables."""
    text = cell.strip()
    bare = BLANKS.sub(" ", text.strip(BRACKETS).strip().lower()).rstrip(".")
    if text in AS_WRITTEN or STATUS_IN_BRACKETS.fullmatch(text):
        return True
    return bare in MISSING_WORDS or bool(NO_LETTERS.fullmatch(bare)) or bool(SPREADSHEET_ERROR.fullmatch(text))


def cell_value(cell: str) -> str:
    """A cell's text without surrounding blanks; "" if it stands for a missing value."""
    return "" if is_unknown(cell) else cell.strip()


def case_value(cell: str) -> str:
    """As `cell_value`, for a column of cases: "" also for a word that may be a class, which is no patient's name."""
    return "" if cell.strip().lower() in MAYBE_CLASSES else cell_value(cell)


def missing_notes(label: str, cells: Iterable[str]) -> list[str]:
    """Notes that list the words of a label column that count as missing, though one may be a class, and those that
    count as classes, though one may be missing; empty if there are none.
    """
    filled = Counter(cell.strip() for cell in cells if cell.strip())
    words = Counter({word: count for word, count in filled.items() if is_unknown(word)})
    notes = _maybe_missing(label, filled)
    if not words:
        return notes
    listed = ", ".join(f"{word!r} ({count:,})" for word, count in words.most_common(MAX_SHOWN))
    more = f" and {len(words) - MAX_SHOWN:,} more" if len(words) > MAX_SHOWN else ""
    return [
        f"These words in the column {label} count as a missing value: {listed}{more}. If one of them is a class, "
        "give it another name, such as 'absent' for 'none'.",
        *notes,
    ]


def _maybe_missing(label: str, counts: Mapping[str, int]) -> list[str]:
    """A note that lists the classes that may stand for a missing value; not NR beside R, or ND beside D."""
    plain = {word.lower() for word in counts}
    unclear = [word for word in sorted(counts) if word.lower() in MAYBE_CLASSES and word.lower()[1:] not in plain]
    listed = ", ".join(f"{word!r} ({counts[word]:,})" for word in unclear)
    return [f"In the column {label}, {listed} count as classes. Leave cells that are missing empty."] if unclear else []


def visible(text: str) -> str:
    """The text without characters that nobody sees (Unicode's category Cf), such as zero-width spaces and byte order
    marks, which come with what is copied out of web pages and Word.
    """
    return text if text.isascii() else "".join(letter for letter in text if unicodedata.category(letter) != "Cf")


def spelling_notes(what: str, names: Iterable[str]) -> list[str]:
    """A note on `names` that differ only in capitals, blanks, characters that nobody sees, a .0 (pandas writes 7 as 7.0
    in a column with gaps) or leading zeros (spreadsheets write 007 as 7): they are rarely meant to be different. Empty
    if there are none.
    """
    alike: dict[str, list[str]] = {}
    for name in sorted({str(name) for name in names}):
        plain = unicodedata.normalize("NFKC", "".join(visible(name).split())).casefold()
        alike.setdefault(WHOLE.sub(r"\1", plain), []).append(name)
    several = [" and ".join(repr(name) for name in group) for group in alike.values() if len(group) > 1]
    if not several:
        return []
    more = f" and {len(several) - MAX_SHOWN:,} more" if len(several) > MAX_SHOWN else ""
    listed = "; ".join(several[:MAX_SHOWN])
    return [
        f"These {what} differ only in spelling (capitals, blanks, zeros, ...) and count as different: {listed}{more}."
    ]


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
