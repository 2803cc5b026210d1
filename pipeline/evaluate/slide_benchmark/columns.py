"""Find out which column of a table of slides means what, and which slides are of one case or patient.

Columns may have other names, capitals, blanks and dashes. Folds go by what `groups.coarsest` makes of all columns
of cases and patients. Left out: the rows themselves; `data` reads them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.cohort.cases import CASE_COLUMNS
from pipeline.disk.label_words import case_value
from pipeline.disk.tables import Problem, Record
from pipeline.evaluate.groups import coarsest

COLUMNS = ("slide_id", "case_id", "center", "split")
"""Columns that have a meaning beside that of the labels."""
SYNONYMS = {"slide_id": ("slide", "filename"), "case_id": CASE_COLUMNS[1:], "center": ("centre", "medical_center")}
"""Other names of columns, which count where the first name is not there. STAMP's slide table has FILENAME, the feature
file, and PATIENT.
"""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that have a meaning.

    Attributes:
        records: cells of `COLUMNS` under these names, of the label and of what is not used under their own.
        written: the table's own names of those of `COLUMNS` that it has.
        case_columns: the table's columns of cases and patients.
        groups: the case or patient of each row, which folds keep together (N,); "" where no column gives it.
        unused: columns that mean nothing here.
        note: what a reader must know of how the groups came about, else "".
    """

    records: list[Record]
    written: Mapping[str, str]
    case_columns: tuple[str, ...]
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
    by_name = _by_plain_name(header, label)
    written = _written_names(by_name, label)
    case_columns = _case_columns(by_name, label)
    cells_of = {name: [case_value(cells[column]) for _, cells in records] for name, column in case_columns.items()}
    grouping = coarsest(cells_of)
    if grouping.column:
        first = next((name for name, cells in cells_of.items() if any(cells)), grouping.column)
        written["case_id"] = case_columns[grouping.column if "slide_id" in written else first]
    groups = grouping.names or ("",) * len(records)
    problems += _alike_columns(by_name)
    problems += _missing_case_problems(records, groups, list(case_columns.values()))
    unused = tuple(name for name in header if name not in {*written.values(), *case_columns.values(), label})
    renamed = _renamed(records, written, set(chain.from_iterable(by_name.values())), label)
    return Columns(renamed, written, tuple(case_columns.values()), groups, unused, grouping.note)


def _by_plain_name(header: Sequence[str], label: str) -> dict[str, list[str]]:
    """The table's columns that have a known name, by this name in small letters and with underscores; all but the
    label's.
    """
    known = {*COLUMNS, *(other for others in SYNONYMS.values() for other in others)}
    by_name: dict[str, list[str]] = {}
    for name in header:
        plain = re.sub(r"[\s-]+", "_", name.strip().lower())
        if name != label and plain in known:
            by_name.setdefault(plain, []).append(name)
    return by_name


def _case_columns(by_name: Mapping[str, Sequence[str]], label: str) -> dict[str, str]:
    """The table's own names of its columns of cases and patients, by those of `CASE_COLUMNS`. Where `case_id` is the
    label, no column counts.
    """
    return {} if label == "case_id" else {name: by_name[name][0] for name in CASE_COLUMNS if name in by_name}


def _alike_columns(by_name: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Columns whose names are the same but for capitals, blanks and dashes."""
    alike = [names for names in by_name.values() if len(names) > 1]
    return [(1, f"columns {', '.join(names)} are spelled alike; keep one of them") for names in alike]


def _written_names(by_name: Mapping[str, Sequence[str]], label: str) -> dict[str, str]:
    """The table's own name of each of `COLUMNS` that it has; without `case_id` and the label."""
    written = {}
    for column in COLUMNS:
        names = [name for name in (column, *SYNONYMS.get(column, ())) if name in by_name]
        if names and column not in ("case_id", label):
            written[column] = by_name[names[0]][0]
    return written


def _missing_case_problems(
    records: Sequence[Record], groups: Sequence[str], case_columns: Sequence[str]
) -> list[Problem]:
    """Words for a missing value in columns of cases, in rows that no other column gives a case or patient."""
    return [
        (
            line,
            f"{column} {cells[column].strip()!r} stands for a missing value; give the case, or leave the cell empty "
            "for a slide that is a case of its own",
        )
        for (line, cells), group in zip(records, groups, strict=True)
        for column in case_columns
        if not group and cells[column].strip() and not case_value(cells[column])
    ]


def _renamed(
    records: Sequence[Record], written: Mapping[str, str], known_columns: set[str], label: str
) -> list[Record]:
    """The records with the columns `written` under the names of `COLUMNS`, in place of all `known_columns`."""
    dropped = ({*written} | known_columns) - {label}
    return [
        (
            line,
            {name: cell for name, cell in cells.items() if name not in dropped}
            | {name: cells[column].strip() for name, column in written.items()},
        )
        for line, cells in records
    ]
