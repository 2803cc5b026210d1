"""The columns of a manifest: which are known, which gives the cases, and which may be misspelt."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.base.console import counted
from pipeline.disk.label_words import case_value
from pipeline.disk.tables import Record, plain_name

MANIFEST_NEEDS = ("slide_id", "path")
MANIFEST_COLUMNS = (*MANIFEST_NEEDS, "case_id", "center", "mpp", "mpp_overrides", "split", "sha256", "annotations")
"""Known columns in the order of writing, read in any spelling (`plain_name`); every other column is a label."""
CASE_NAMES = ("patient_id", "patient", "case")
"""What may stand for `case_id`, the first before the others."""
LEAST_LETTERS, ALIKE = 6, 0.8
"""Names of so many letters are alike from this ratio of difflib on; shorter ones if one slip of the keyboard makes one
of the other. Our choice: "annotaions" and "centre" are, a label such as "site", "class" or "patient_age" is like none.
"""
ENDINGS = re.compile(r"_(file|files|path|name|dir|folder|um_px|x)$")
"""What people put after a column's name, as in "annotation_file" or "mpp_x"."""


def with_cases(path: Path, records: list[Record]) -> tuple[list[Record], tuple[str, ...]]:
    """The records with the cases under `case_id`, and notes: if another column gives them, and if others give those of
    rows that have none. These are not filled in, for a column called "case" may be a label (case or control).
    """
    column, *others = _columns_of_cases(records)
    blank = [cells for _, cells in records if not case_value(cells.get(column, ""))]
    counts = {name: sum(bool(case_value(cells[name])) for cells in blank) for name in others}
    notes = tuple(
        f"{path}: {name} gives the case of {counted(count, 'row')} without a {column}, each of which counts as a case "
        f"of its own; fill {column} from {name}, or remove {name}"
        for name, count in counts.items()
        if count
    )
    if column == "case_id":
        return records, notes
    renamed = [
        (line, {n: cell for n, cell in cells.items() if n not in ("case_id", column)} | {"case_id": cells[column]})
        for line, cells in records
    ]
    return renamed, (f"{path}: the column {column} is taken for case_id", *notes)


def _columns_of_cases(records: list[Record]) -> list[str]:
    """The columns that may give the cases, that which does first: `case_id`, unless it is absent or empty and another
    has values. Patients come before cases, which are parts of theirs.
    """
    header = list(records[0][1]) if records else []
    others = [name for known in CASE_NAMES for name in header if plain_name(name) == known]
    filled = [name for name in ("case_id", *others) if any(case_value(cells.get(name, "")) for _, cells in records)]
    return filled or ["case_id"]


def misspelt_columns(path: Path, records: list[Record]) -> tuple[str, ...]:
    """A note for each label whose name is nearly that of a column that the manifest lacks."""
    names = list(records[0][1]) if records else []
    lacking = [column for column in MANIFEST_COLUMNS if column not in names]
    lacking += CASE_NAMES if "case_id" in lacking else ()
    found = [(name, _nearly(name, lacking)) for name in names if name not in (*MANIFEST_COLUMNS, *CASE_NAMES)]
    return tuple(
        f"{path}: the column {name!r} is only kept as a label; rename it if "
        f"{'case_id' if known in CASE_NAMES else known} is meant"
        for name, known in found
        if known
    )


def _nearly(name: str, known: Iterable[str]) -> str:
    """The name that this one is nearly; "" if none."""
    typed = ENDINGS.sub("", plain_name(name))
    close = difflib.get_close_matches(typed, known, n=len(MANIFEST_COLUMNS), cutoff=0.0)
    alike = [other for other in close if _slips(typed) & _slips(other) or _is_alike(typed, other)]
    return alike[0] if alike else ""


def _is_alike(one: str, other: str) -> bool:
    """Whether two long names are alike (`ALIKE`)."""
    is_long = min(len(one), len(other)) >= LEAST_LETTERS
    return is_long and difflib.SequenceMatcher(None, one, other).ratio() >= ALIKE


def _slips(name: str) -> set[str]:
    """A name and it without any one letter. Two names share one if a letter more, less, another or swapped with its
    neighbour makes one of the other.
    """
    return {name} | {name[:place] + name[place + 1 :] for place in range(len(name))}
