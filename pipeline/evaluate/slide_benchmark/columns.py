"""Which column of a table of slides means what, and which slides are of one case or patient.

Columns may have other names, capitals, blanks and dashes. Folds go by what `groups.coarsest` makes of all columns
of cases and patients. What it leaves out: what the rows say; `data` reads them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.disk.label_words import cell_value
from pipeline.disk.tables import Problem, Record
from pipeline.evaluate.groups import coarsest

COLUMNS = ("slide_id", "case_id", "center", "split")
"""Columns that have a meaning beside that of the labels."""
SYNONYMS = {
    "slide_id": ("slide", "filename"),
    "case_id": ("case", "patient_id", "patient"),
    "center": ("centre", "medical_center"),
}
"""Other names of columns, which count where the first name is not there. STAMP's slide table has FILENAME, the feature
file, and PATIENT.
"""
CASES = ("case_id", *SYNONYMS["case_id"])
"""Columns of cases and patients; all of them count."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that have a meaning.

    Attributes:
        records: cells of `COLUMNS` under these names, of the label and of what is not used under their own.
        written: what the table calls those of `COLUMNS` that it has.
        of_cases: the table's columns of cases and patients.
        groups: the case or patient of each row, "" where no column says it (N,). Folds keep it together.
        unused: columns that mean nothing here.
        note: how the groups came about, else "".
    """

    records: list[Record]
    written: Mapping[str, str]
    of_cases: tuple[str, ...]
    groups: tuple[str, ...]
    unused: tuple[str, ...]
    note: str


def find_columns(records: Sequence[Record], label: str, problems: list[Problem]) -> Columns:
    """The columns of a table; that of the label is nothing else. Columns that are spelled alike, and words for a
    missing case, are added to `problems`.

    Where the table has no slides, `case_id` is the column that feature files are named after: the first with a value.

    Raises:
        BenchmarkError: two columns of cases cross each other.
    """
    header = list(records[0][1]) if records else []
    known = {*COLUMNS, *(other for others in SYNONYMS.values() for other in others)}
    by_name: dict[str, list[str]] = {}
    for name in header:
        plain = re.sub(r"[\s-]+", "_", name.strip().lower())
        if name != label and plain in known:
            by_name.setdefault(plain, []).append(name)
    problems += [
        (1, f"columns {', '.join(names)} are spelled alike; keep one of them")
        for names in by_name.values()
        if len(names) > 1
    ]
    written = {
        own: by_name[name][0]
        for own in COLUMNS
        if own not in ("case_id", label)
        and (name := next((name for name in (own, *SYNONYMS.get(own, ())) if name in by_name), ""))
    }
    of_cases = {name: by_name[name][0] for name in CASES if name in by_name and label != "case_id"}
    cells_of = {name: [cell_value(cells[column]) for _, cells in records] for name, column in of_cases.items()}
    grouping = coarsest(cells_of)
    if grouping.column:
        first = next((name for name, cells in cells_of.items() if any(cells)), grouping.column)
        written["case_id"] = of_cases[grouping.column if "slide_id" in written else first]
    problems += [
        (line, f"{column} {cells[column].strip()!r} stands for a missing value; give the case, or leave the cell empty "
               "for a slide that is a case of its own")
        for (line, cells), group in zip(records, grouping.names or ("",) * len(records), strict=True)
        for column in of_cases.values()
        if not group and cells[column].strip() and not cell_value(cells[column])
    ]  # fmt: skip
    columns = {column: own for own, column in written.items()}
    dropped = {*written, *(column for names in by_name.values() for column in names)} - {label}
    unused = tuple(name for name in header if name not in {*columns, *of_cases.values(), label})
    renamed = [
        (line, {name: cell for name, cell in cells.items() if name not in dropped}
               | {own: cells[column].strip() for column, own in columns.items()})
        for line, cells in records
    ]  # fmt: skip
    names = grouping.names or ("",) * len(records)
    return Columns(renamed, written, tuple(of_cases.values()), names, unused, grouping.note)
