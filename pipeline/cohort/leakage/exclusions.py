"""Cases that must not be trained on, since a benchmark asks about them: `--exclude-cases`.

A list names cases or slides: a case id, a slide id, a slide's file, or a TCGA barcode of any length, of which the
patient counts. A slide is excluded if its case, its id or its file is listed, or a barcode in one of them is of a
listed patient; and so is every further slide of its case. Capitals do not matter: better a slide too few than a leak.
Left out: identifiers of the GDC (UUIDs), which no file name of a case holds.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.base.console import counted
from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.base.outside import read_bytes, reading
from pipeline.cohort.barcodes import find_barcode
from pipeline.cohort.cases import CASE_COLUMNS
from pipeline.cohort.manifest import ManifestRow
from pipeline.config.case_lists import case_list_names, case_list_text
from pipeline.disk.label_words import case_value
from pipeline.disk.tables import composed, read_table, refuse

FLAG = "--exclude-cases"
ID_COLUMNS = (
    *CASE_COLUMNS,
    "case_submitter_id",
    "submitter_id",
    "bcr_patient_barcode",
    "barcode",
    "slide_id",
    "slide",
    "filename",
    "file_name",
)
"""Columns of a table that say which case or slide a row is of, in small letters; the first that is filled counts."""
SEPARATORS: Mapping[str, Literal[",", "\t"]] = {",": ",", "\t": "\t"}
MOST_LIST_BYTES = 1 << 28
"""Our choice, that of tables: a million rows of 250 bytes; a slide named by mistake is not read whole."""
EXPECTED = "Give a text file with a case a line, or a CSV or TSV with a column case_id"
NAMED_CASES = 3
"""Cases that a note names. Our choice."""


@dataclass(frozen=True)
class PartedRows:
    """What lists of cases do to the rows of a manifest.

    Attributes:
        kept: the rows that may be planned, in their order.
        excluded: the others, each with the reason in words.
        notes: what a reader should know, such as listed cases that no slide is of.
    """

    kept: tuple[ManifestRow, ...]
    excluded: tuple[tuple[ManifestRow, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def excluded_ids(self) -> frozenset[str]:
        """The ids of the excluded slides."""
        return frozenset(row.slide_id for row, _ in self.excluded)


def exclude_rows(rows: Sequence[ManifestRow], sources: Iterable[str]) -> PartedRows:
    """Read the lists `sources`, files or names of lists that come with the project, and part the rows by them.

    Raises:
        ConfigError: a list is missing, names no case, or cannot be told what it lists.
        ManifestError: a table is not well formed.
    """
    listed: dict[str, str] = {}
    for source in sources:
        for name in listed_ids(source):
            listed.setdefault(name, Path(source).name)
    return part_by_lists(rows, listed)


def part_by_lists(rows: Sequence[ManifestRow], listed: Mapping[str, str]) -> PartedRows:
    """Part rows by the listed keys (`key_of`), each of which has the name of the list that it is in."""
    if not listed:
        return PartedRows(tuple(rows))
    keys = [_keys_of(row) & listed.keys() for row in rows]
    cases = {key_of(row.case_id): sorted(found)[0] for row, found in zip(rows, keys, strict=True) if found}
    reasons = [_reason(row, found, cases, listed) for row, found in zip(rows, keys, strict=True)]
    excluded = tuple((row, reason) for row, reason in zip(rows, reasons, strict=True) if reason)
    kept = tuple(row for row, reason in zip(rows, reasons, strict=True) if not reason)
    unmatched = sorted(listed.keys() - set().union(*keys))
    return PartedRows(kept, excluded, tuple(_notes(len(listed), unmatched, [row for row, _ in excluded])))


def changed_exclusions(before: Set[str], audited: Set[str], now: Set[str], kept: Set[str]) -> list[str]:
    """How the slides that are excluded differ from those of an earlier call, a line a slide. `before` are the ids of
    slides that were excluded then, and `audited` of the others; `now` and `kept` are the same of this call.
    """
    lines = [f"{name}: excluded now ({FLAG})" for name in sorted(now & audited)]
    return lines + [f"{name}: no longer excluded ({FLAG})" for name in sorted(before & kept)]


def _reason(row: ManifestRow, found: Iterable[str], cases: Mapping[str, str], listed: Mapping[str, str]) -> str:
    """Why a row is excluded, in words; "" if it is not."""
    name = next(iter(sorted(found)), "") or cases.get(key_of(row.case_id), "")
    return f"{FLAG}: {name} is in {listed[name]}" if name else ""


def _notes(num_listed: int, unmatched: Sequence[str], excluded: Sequence[ManifestRow]) -> list[str]:
    """What to say of the lists."""
    cases = len({row.case_id for row in excluded})
    slides, number = counted(len(excluded), "slide"), f"{num_listed:,}"
    notes = [f"{FLAG}: {slides} of {counted(cases, 'case')} left out of the plan, by {number} listed"]
    if unmatched:
        shown = ", ".join(unmatched[:NAMED_CASES]) + (", ..." if len(unmatched) > NAMED_CASES else "")
        odd = ". Are the list and the manifest of one kind of id?" if len(unmatched) == num_listed else ""
        notes.append(f"{FLAG}: of {len(unmatched):,} listed there is no slide: {shown}{odd}")
    return notes


def key_of(name: str) -> str:
    """What a case or slide is compared by: the patient of its TCGA barcode, or else the name in small letters."""
    barcode = find_barcode(name)
    return barcode.case_id if barcode else composed(name).strip().casefold()


def _keys_of(row: ManifestRow) -> set[str]:
    """All keys that a row may be listed by."""
    name = row.path.replace("\\", "/").rpartition("/")[2]
    barcode = find_barcode(row.path)
    names = {key_of(each) for each in (row.case_id, row.slide_id, row.path, name)}
    return names | ({barcode.case_id} if barcode else set())


def listed_ids(source: str) -> list[str]:
    """The keys of the cases that a file lists, or a list that comes with the project; in their order.

    Raises:
        ConfigError, ManifestError: as `exclude_rows`.
    """
    lines = _lines_of(source)
    ids = [(line, text) for line, cell in lines if (text := case_value(cell.strip())) and not text.startswith("#")]
    if ids and _plain(ids[0][1]) in ID_COLUMNS:  # the head of a table of one column
        ids = ids[1:]
    for line, text in ids:
        if "TCGA" in text.upper() and find_barcode(text) is None:
            raise ConfigError(
                f"{FLAG} {source}: line {line}: {text!r} is no TCGA barcode of one patient (TCGA-XX-XXXX, or longer). "
                "Give a case a line"
            )
    if not ids:
        raise ConfigError(f"{FLAG} {source}: lists no case. {EXPECTED}")
    return list(dict.fromkeys(key_of(text) for _, text in ids))


def _lines_of(source: str) -> list[tuple[int, str]]:
    """The lines of a list that comes with the project, or what a file says.

    Raises:
        ConfigError, ManifestError: as `exclude_rows`.
    """
    names = case_list_names()
    if source in names:
        return list(enumerate(case_list_text(source).splitlines(), 1))
    if not Path(source).exists() and "/" not in source and "." not in source:
        hint = did_you_mean(source, names)
        raise ConfigError(f"{FLAG} {source}: no such file, nor one of the lists {', '.join(names)}{hint}")
    return _lines_of_file(Path(source))


def _lines_of_file(path: Path) -> list[tuple[int, str]]:
    """The cells that name cases, with their lines: all lines of a text, or a column of a table.

    Raises:
        ConfigError, ManifestError: as `exclude_rows`.
    """
    with reading(f"{FLAG} {path}", "not a list of cases", ConfigError, EXPECTED):
        text = read_bytes(path, MOST_LIST_BYTES).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it is not a text file")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    first = next((line for _, line in lines if not line.lstrip().startswith("#")), "")
    separator = next((mark for mark in SEPARATORS if mark in first), "")
    if not separator:
        return lines
    return _cells_that_name(path, SEPARATORS[separator])


def _cells_that_name(path: Path, separator: Literal[",", "\t"]) -> list[tuple[int, str]]:
    """The cell of each row of a table that says which case or slide it is of.

    Raises:
        ConfigError, ManifestError: there is no such column, or the table is not well formed.
    """
    records, problems = read_table(path, (), separator)
    refuse(path, problems)
    columns = {_plain(name): name for name in records[0][1]}
    wanted = [columns[name] for name in ID_COLUMNS if name in columns]
    if not wanted:
        raise ConfigError(
            f"{FLAG} {path}: a table without a column that names cases: one of {', '.join(ID_COLUMNS)}; it has "
            f"{', '.join(list(columns.values())[:NAMED_CASES])}"
        )
    return [(line, next((cells[name] for name in wanted if case_value(cells[name])), "")) for line, cells in records]


def _plain(name: str) -> str:
    """The name of a column in small letters, with underscores between words."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")
