"""Cases that must not be trained on, since a benchmark asks about them: `--exclude-cases`.

A list names cases or slides: a case id, a slide id, a slide's file, or a TCGA barcode of any length, of which the
patient counts. A slide is excluded if its case, its id or its file is listed, or a barcode in one of them is of a
listed patient; and so is every further slide of its case. All that a row of a list names counts, and capitals do not
matter: better a slide too few than a leak. Left out: identifiers of the GDC (UUIDs), which no file name of a case
holds.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.base.console import counted
from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.base.outside import read_bytes, reading
from pipeline.cohort.barcodes import barcodes_in, find_barcode
from pipeline.cohort.cases import CASE_COLUMNS
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.walk import SLIDE_SUFFIXES
from pipeline.config.case_lists import case_list_names, case_list_text
from pipeline.disk.label_words import case_value, visible
from pipeline.disk.tables import composed, read_table, refuse, unguarded

FLAG = "--exclude-cases"
BARCODE_COLUMNS = ("case_submitter_id", "submitter_id", "bcr_patient_barcode", "barcode")
ID_COLUMNS = (*CASE_COLUMNS, *BARCODE_COLUMNS, "slide_id", "slide", "filename", "file_name")
"""Columns of a table that say which case or slide a row is of, in small letters; all that are filled count."""
SEPARATORS: Mapping[str, Literal[",", "\t"]] = {",": ",", "\t": "\t"}
OTHER_SEPARATORS = {";": "semicolons", "|": "vertical bars", '" "': "blanks"}
"""What other programs put between cells; the last is what R does."""
NOTE = re.compile(r"\s+#.*")
"""A note after a name."""
NOTE_CELL = re.compile(r"#+(?:\s|$)")
"""How the first cell of a note within a table begins; `#3` may be a case."""
NUMBER = re.compile(r"0*([0-9]+)(?:\.0+)?", re.ASCII)
"""A number as tables spell it: spreadsheets take off zeros (`12` for `0012`), and pandas adds some (`12.0`)."""
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
MOST_LIST_BYTES = 1 << 28
"""Our choice, that of tables: a million rows of 250 bytes; a slide named by mistake is not read whole."""
EXPECTED = "Give a text file with a case a line, or a CSV or TSV with a column case_id"
NAMED_CASES = 3
"""Cases that a note names. Our choice."""


@dataclass(frozen=True)
class Listed:
    """A line of a text, or a row of a table.

    Attributes:
        names: all that it names, as written, at least one; the first is what it is called, unless it has a barcode.
        source: the name of its list.
    """

    names: tuple[str, ...]
    source: str

    @functools.cached_property
    def name(self) -> str:
        """What notes call it and count it by: its patient if it has a barcode, else the first key."""
        barcode = next((found for found in map(find_barcode, self.names) if found), None)
        return barcode.case_id if barcode else key_of(self.names[0])


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
    return part_by_lists(rows, [listed for source in sources for listed in read_list(source)])


def part_by_lists(rows: Sequence[ManifestRow], listed: Sequence[Listed]) -> PartedRows:
    """Part rows by what is listed."""
    if not listed:
        return PartedRows(tuple(rows))
    of_rows = [_keys_of(row) for row in rows]
    known = set[str]().union(*of_rows)
    words, unmatched = _words_of(listed, known)
    found = [keys & words.keys() for keys in of_rows]
    cases = {key_of(row.case_id): min(keys) for row, keys in zip(rows, found, strict=True) if keys}
    reasons = [_reason(row, keys, cases, words) for row, keys in zip(rows, found, strict=True)]
    excluded = tuple((row, reason) for row, reason in zip(rows, reasons, strict=True) if reason)
    kept = tuple(row for row, reason in zip(rows, reasons, strict=True) if not reason)
    num_listed = len({each.name for each in listed})
    return PartedRows(kept, excluded, tuple(_notes(num_listed, sorted(unmatched), [row for row, _ in excluded])))


def _words_of(listed: Sequence[Listed], known: Set[str]) -> tuple[dict[str, str], set[str]]:
    """Why a row with a key is excluded, in words, for each listed key; and what is listed under no `known` key."""
    words: dict[str, str] = {}
    unmatched, matched = set[str](), set[str]()
    for each in listed:
        keys = _keys_of_listed(each, known)
        for key, text in keys.items():
            words.setdefault(key, f"{FLAG}: {text} is in {each.source}")
        (unmatched if known.isdisjoint(keys) else matched).add(each.name)
    return words, unmatched - matched


def changed_exclusions(before: Set[str], audited: Set[str], now: Set[str], kept: Set[str]) -> list[str]:
    """How the slides that are excluded differ from those of an earlier call, a line a slide. `before` are the ids of
    slides that were excluded then, and `audited` of the others; `now` and `kept` are the same of this call.
    """
    lines = [f"{name}: excluded now ({FLAG})" for name in sorted(now & audited)]
    return lines + [f"{name}: no longer excluded ({FLAG})" for name in sorted(before & kept)]


def _reason(row: ManifestRow, found: Set[str], cases: Mapping[str, str], words: Mapping[str, str]) -> str:
    """Why a row is excluded, in words; "" if it is not."""
    key = min(found) if found else cases.get(key_of(row.case_id), "")
    return words[key] if key else ""


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
    """What a case or slide is compared by: the patient of its TCGA barcode, a number without the zeros that tables take
    off or add, or else the name in small letters, with one space for each run of blanks and without what nobody sees.
    """
    name = visible(name)
    if barcode := find_barcode(name):
        return barcode.case_id
    plain = " ".join(composed(name).split()).casefold()
    number = NUMBER.fullmatch(plain)
    return number[1] if number else plain


def _keys_of(row: ManifestRow) -> set[str]:
    """All keys that a row may be listed by."""
    path = _without_ending(row.path)
    files = [place.replace("\\", "/").rpartition("/")[2] for place in (row.path, path)]
    return {*map(key_of, (row.case_id, row.slide_id, row.path, *files)), *_ends(row.path), *_ends(path)}


def _keys_of_listed(listed: Listed, known: Set[str]) -> dict[str, str]:
    """All keys that a line or row lists, each with the name that it is from, in words.

    A path counts by as many of its last parts as one of the `known` paths of slides has, at least by the file's name:
    where slides lie is rarely the same on two computers. A slide's file counts without its ending as well: slides are
    converted, and not every list names their files with it.
    """
    keys: dict[str, str] = {}
    for name in listed.names:
        keys.setdefault(key := key_of(name), key)
        bare = _without_ending(name)
        for barcode in barcodes_in(name):
            keys.setdefault(barcode.case_id, barcode.case_id)
        if "/" in name or "\\" in name:
            longest = next((end for place in (name, bare) for end in _ends(place) if end in known), None)
            if longest is not None:
                keys[longest] = key
        else:
            keys.setdefault(key_of(bare), key)
    return keys


def _without_ending(name: str) -> str:
    """A name or path without the ending of a slide's file, if it has one."""
    ending = Path(name.strip()).suffix
    return name.strip().removesuffix(ending).removesuffix(".ome") if ending.lower() in SLIDE_SUFFIXES else name


def _ends(path: str) -> list[str]:
    """The last parts of a path, from all of them to the last alone; with a slash before them, as no name has it."""
    parts = [part for part in composed(path).strip().casefold().replace("\\", "/").split("/") if part not in ("", ".")]
    return ["/" + "/".join(parts[start:]) for start in range(len(parts))]


def listed_ids(source: str) -> list[str]:
    """What the lines or rows of a list are called, each name once, in their order.

    Raises:
        ConfigError, ManifestError: as `exclude_rows`.
    """
    return list(dict.fromkeys(listed.name for listed in read_list(source)))


def read_list(source: str) -> list[Listed]:
    """What a file lists, or a list that comes with the project; each line or row once, in their order.

    Raises:
        ConfigError, ManifestError: as `exclude_rows`.
    """
    rows = _rows_of(source)
    for line, cells in rows:
        torn = next((text for text in _must_be_whole(cells) if _is_torn(text)), "")
        if torn:
            raise ConfigError(
                f"{FLAG} {source}: line {line}: {torn!r} is no TCGA barcode of one patient (TCGA-XX-XXXX, or longer). "
                "Give a case a line"
            )
    if not rows:
        raise ConfigError(f"{FLAG} {source}: lists no case. {EXPECTED}")
    return [Listed(names, Path(source).name) for names in dict.fromkeys(tuple(cells.values()) for _, cells in rows)]


def _must_be_whole(cells: Mapping[str, str]) -> list[str]:
    """The names of a row in which part of a barcode is an error: the first, and those of columns of barcodes if the row
    has no whole one.
    """
    first, *_ = cells.values()
    has_barcode = any(barcodes_in(text) for text in cells.values())
    return [first] + [text for name, text in cells.items() if _plain(name) in BARCODE_COLUMNS and not has_barcode]


def _is_torn(name: str) -> bool:
    """Whether a name has barcodes of several patients, or part of one; a folder may be of a project (TCGA-BRCA)."""
    file = name.replace("\\", "/").rpartition("/")[2]
    barcodes = barcodes_in(name)
    return len(barcodes) > 1 or (not barcodes and "TCGA" in file.upper())


def _rows_of(source: str) -> list[tuple[int, dict[str, str]]]:
    """The names of each line or row of a list that comes with the project, or of a file, with its line number.

    Names are by the column that they stand in; of a text, by their place.

    Raises:
        ConfigError, ManifestError: as `exclude_rows`.
    """
    names = case_list_names()
    if source in names:
        return _rows_of_text(source, _numbered(case_list_text(source)))
    if not Path(source).exists() and "/" not in source and "." not in source:
        hint = did_you_mean(source, names)
        raise ConfigError(f"{FLAG} {source}: no such file, nor one of the lists {', '.join(names)}{hint}")
    path = Path(source)
    with reading(f"{FLAG} {path}", "not a list of cases", ConfigError, EXPECTED):
        text = read_bytes(path, MOST_LIST_BYTES).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it is not a text file")
    lines = _numbered(text)
    separator = _separator(next((line for _, line in lines if not _is_note(line)), ""))
    if not separator:
        return _rows_of_text(source, lines)
    return _rows_of_table(path, separator, _head_line(path, lines, separator))


def _numbered(text: str) -> list[tuple[int, str]]:
    """The lines of a text that are not blank, from 1; without characters that nobody sees."""
    return [(number, line) for number, line in enumerate(visible(text).splitlines(), 1) if line.strip()]


def _is_note(line: str) -> bool:
    """Whether a line is a note."""
    return line.lstrip().startswith("#")


def _separator(first: str) -> Literal[",", "\t"] | None:
    """What separates the cells of a table with this first line; `None` if it is that of a text.

    A separator within a note after a name makes no table, unless the line names a column that counts.
    """
    bare = NOTE.sub(lambda note: note[0] if not NOTE_CELL.match(note[0].strip()) else "", first)
    for mark, separator in SEPARATORS.items():
        if mark in bare or (mark in first and _names_column(first, mark)):
            return separator
    return None


def _names_column(line: str, mark: str) -> bool:
    """Whether a line names a column that counts, if it is split at a mark."""
    return any(_plain(cell) in ID_COLUMNS for cell in line.split(mark))


def _head_line(path: Path, lines: Sequence[tuple[int, str]], separator: str) -> int:
    """The number of the line that names a table's columns: the first that is no note, if it names one that counts.

    A first column may be called `#`, and tables of other programs have `#` before their columns: such a line above is
    the head if it names a column that counts.

    Raises:
        ConfigError: two lines may be the head.
    """
    place = next(place for place, (_, line) in enumerate(lines) if not _is_note(line))
    first, text = lines[place]
    above = [(number, line) for number, line in lines[:place] if _names_column(line, separator)]
    marked = [number for number, line in above if line.split(separator)[0].strip() == "#"]
    if marked or not _names_column(text, separator):
        return (marked or [number for number, _ in above] or [first])[-1]
    _refuse_another_head(path, above, (first, text), separator)
    return first


def _refuse_another_head(path: Path, notes: Sequence[tuple[int, str]], head: tuple[int, str], separator: str) -> None:
    """Raise if one of the notes that name columns has as many cells as the head, and no blank after its mark."""
    for number, line in notes:
        is_tight = re.fullmatch(r"#\S+", line.split(separator)[0].strip()) is not None
        if is_tight and line.count(separator) == head[1].count(separator):
            raise ConfigError(
                f"{FLAG} {path}: both line {number} and line {head[0]} may name the columns; write '# ' before a note, "
                "and nothing before the names of columns"
            )


def _rows_of_text(source: str, lines: Sequence[tuple[int, str]]) -> list[tuple[int, dict[str, str]]]:
    """The names of each line of a text that is no note; a first line that names a column is passed over.

    Raises:
        ConfigError: it is a table of which the cells are not separated by commas or tabs.
    """
    lines = [(number, line.strip()) for number, line in lines if not _is_note(line)]
    for place, (number, line) in enumerate(lines):
        for mark, words in OTHER_SEPARATORS.items():
            if _is_split_at(mark, line, is_first=place == 0):
                raise ConfigError(
                    f"{FLAG} {source}: line {number}: its cells are separated by {words}; save it with commas instead. "
                    "A name with such a character in it has quotes around it"
                )
    rows = [(number, names) for number, line in lines if (names := _names_of_line(line))]
    if rows and _plain(rows[0][1][0]) in ID_COLUMNS:  # the head of a table of one column
        rows = rows[1:]
    return [(number, {str(place): name for place, name in enumerate(names)}) for number, names in rows]


def _is_split_at(mark: str, line: str, is_first: bool) -> bool:
    """Whether a line of a text has cells that such a mark separates."""
    if QUOTED.fullmatch(line) or mark not in (bare := NOTE.sub("", line)):
        return False
    return mark == '" "' or (is_first and (mark == ";" or _names_column(bare, mark)))


def _names_of_line(line: str) -> list[str]:
    """What a line of a text names: itself, without a note after it, and what stands before a separator in it.

    `Patient #3` is the name of a patient first, and a name with a note after it as well.
    """
    if quoted := QUOTED.fullmatch(line):
        names = [quoted[1].replace('""', '"')]
    else:
        bare = NOTE.sub("", line)
        is_note = NOTE_CELL.match(line[len(bare) :].strip())
        inner = QUOTED.fullmatch(bare)
        name = inner[1].replace('""', '"') if inner else bare
        names = [name, line] if is_note else [line, name]
        names += [] if inner else [re.split(r"[,;\t]", bare)[0]]
    filled = [text for name in names if (text := case_value(unguarded(name.strip())))]
    return list(dict.fromkeys(filled))


def _rows_of_table(path: Path, separator: Literal[",", "\t"], head: int) -> list[tuple[int, dict[str, str]]]:
    """The filled cells of each row of a table that say which case or slide it is of; notes are passed over.

    Raises:
        ConfigError, ManifestError: there is no such column, or the table is not well formed.
    """
    records, problems = read_table(path, (), separator, first_line=head)
    refuse(path, problems)
    columns = list(records[0][1])
    wanted = [name for known in ID_COLUMNS for name in columns if _plain(name) == known]
    if not wanted:
        raise ConfigError(
            f"{FLAG} {path}: a table without a column that names cases: one of {', '.join(ID_COLUMNS)}; it has "
            f"{', '.join(columns[:NAMED_CASES])}"
        )
    rows = [
        (line, {name: text for name in wanted if (text := case_value(visible(cells[name])))})
        for line, cells in records
        if not NOTE_CELL.match(cells[columns[0]].strip())
    ]
    return [(line, names) for line, names in rows if names]


def _plain(name: str) -> str:
    """The name of a column in small letters, with underscores between words, without quotes, a mark before it or the
    GDC's word for the table that it is of (`cases.submitter_id`).
    """
    return name.strip('"# \t').lower().removeprefix("cases.").replace(" ", "_").replace("-", "_")
