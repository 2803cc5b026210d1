"""Read and write tables, CSV or TSV: the one reader of tables from outside, and the one writer of ours.

A spreadsheet takes a cell that begins with = + - or @ for a formula, and slide names come from outside. So the writer
puts an apostrophe before such a cell, as spreadsheets do, and the reader removes it: tables of ours read back
unchanged. The same inside a cell, after a semicolon, tab or line end: some spreadsheets split there, and quotes that do
not begin a cell of theirs do not hold it together. Numbers stay numbers. Left out: what the cells mean; `label_words`
knows the words for a missing value.
"""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import ManifestError, did_you_mean
from pipeline.base.outside import require_regular
from pipeline.disk.files import write_bytes

Record = tuple[int, dict[str, str]]
"""Line number (from 1) and the cells by column."""
Problem = tuple[int, str]
"""Line number (from 1; 0: none) and what is wrong there."""

MAX_TABLE_BYTES = 1 << 28
"""Our choice: a million rows of 250 bytes; keeps a slide named by mistake from being read whole."""
OTHER_MARKS = {";": "semicolons", "\t": "tabs", ",": "commas"}
"""What may separate cells; spreadsheets of some countries save CSV with semicolons."""
SEPARATOR_LINE = re.compile(r"""(?i)"?sep=([^\w\s"]|\t)"?[,;\t ]*(?=[\r\n]|$)""")
"""A first line by which Excel is told what separates the cells, such as `sep=;`."""
STORE_MARK = "zarr.json"
"""A file that every store has at its top."""
BINARY_KINDS = {
    b"\x89HDF": "an HDF5 file (a plan, or features)",
    b"PK\x03\x04": "a zip archive or an Excel file",
    b"II": "a TIFF file",
    b"MM": "a TIFF file",
    b"\x89PNG": "a PNG picture",
}
"""Binary files that are named by mistake, by their first bytes."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
MAX_SHOWN_PROBLEMS = 20
VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between problems of one kind: quoted cells, and numbers."""
KIND_WORDS = 3
"""Words at the beginning of a problem, without its `VALUES`, that tell its kind: paths come behind them. Our choice."""
MAX_SHOWN_COLUMNS = 12
MAX_SHOWN_CHARS = 200
"""Characters of each name in a rejected header. Our choice, as the two above: fits a screen."""

FILE_COLUMNS = frozenset({"path", "filename", "slide_id", "slide"})
"""Columns that name files, in lower case: their cells are kept byte for byte."""
FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff0b\uff0d\uff1d\uff20]|[\t\r\n])")
"""Start of a cell that a spreadsheet may take for a formula, with or without apostrophes; the last four are full-width
= + - @ (owasp.org/www-community/attacks/CSV_Injection).
"""
INNER = r"(?=(?:[^\S\t\r\n]|[\"'])*[=+\-@\uff0b\uff0d\uff1d\uff20])"
INNER_FORMULA, INNER_GUARD = re.compile(rf"(?<=[;\t\r\n]){INNER}"), re.compile(rf"(?<=[;\t\r\n])'{INNER}")
"""Inside a cell: where a formula begins for a spreadsheet that splits there, and the apostrophe put there. Numbers are
not spared: the rest of the line would follow them in their cell.
"""
QUOTE, NO_TEXT = '"', '""'
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def read_table(
    path: Path,
    required: tuple[str, ...],
    delimiter: Literal[",", "\t"],
    known: Sequence[str] = (),
    first_line: int = 1,
    *,
    any_spelling: bool = False,
) -> tuple[list[Record], list[Problem]]:
    """Read the records of a table, and the problems of rows with too few or too many cells; skips blank lines.

    Accents are composed (NFC), so that names that look the same are equal, except in cells that name files
    (`FILE_COLUMNS`). Column names in `required` and `known` match in any case; with `any_spelling` also with blanks
    and dashes (`plain_name`). The columns are named in the line `first_line` (from 1) or below; lines above it are
    passed over. What a first line such as `sep=;` says separates the cells does so instead of `delimiter`; last columns
    that are empty from their name down, as spreadsheets leave them, are dropped.

    Raises:
        ManifestError: the file cannot be read, is not UTF-8 text or not a table, or lacks a required column.
    """
    text = _text(path)
    if first_line > 1:
        above = first_line - 1
        text = "\n" * above + "".join(text.splitlines(keepends=True)[above:])
    text, mark = _without_separator_line(path, text, delimiter)
    lines = _without_empty_columns(_cells(path, text, mark))
    if not lines:
        raise ManifestError(f"{path} is empty; its first line must name the columns {', '.join(required)}")
    header = _header(path, lines.pop(0)[1], required, mark, known, any_spelling)
    if not lines:
        raise ManifestError(f"{path} has a header but no rows")
    width = len(header)
    problems = [
        (line, f"{len(cells)} cells where the header has {width}; put quotes around a cell with a separator")
        for line, cells in lines
        if len(cells) != width
    ]
    records = [
        (
            line,
            {
                name: cell if name.lower() in FILE_COLUMNS else composed(cell)
                for name, cell in zip(header, cells, strict=True)
            },
        )
        for line, cells in lines
        if len(cells) == width
    ]
    return records, problems


def _text(path: Path) -> str:
    """Read a file's text, without a byte order mark.

    Raises:
        ManifestError: it cannot be read, is no regular file, is too large, or is not UTF-8 text.
    """
    if os.path.exists(os.path.join(path, STORE_MARK)):
        raise ManifestError(
            f"{path} is a store, not a table. Its plan is in it: `g2l inspect` shows it, and `g2l extract-teacher` and "
            "`g2l train-student` take the store itself. A new plan is made from the manifest of its slides (CSV)"
        )
    if os.path.isdir(path):
        raise ManifestError(
            f"{path} is a folder, not a table. A manifest of the slides in it is made with: "
            f"g2l make-manifest {path} --out slides.csv"
        )
    try:
        require_regular(path)
        with open(path, "rb") as f:
            data = f.read(MAX_TABLE_BYTES + 1)
        if len(data) > MAX_TABLE_BYTES:
            raise ManifestError(f"{path} is larger than {MAX_TABLE_BYTES >> 20} MiB; is it a table?")
        text = data.decode().removeprefix("\ufeff")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ManifestError(f"{path} {_other_than_text(data, error.start)}") from error
        raise ManifestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if "\0" in text:
        raise ManifestError(f"{path} is not a text file: it contains NUL bytes; save it as CSV UTF-8")
    return text


def _other_than_text(data: bytes, start: int) -> str:
    """What bytes are, of which the one at `start` is not of UTF-8 text, and what to do."""
    if b"\0" in data and not data.startswith(UTF16_MARKS):
        kind = next((kind for first, kind in BINARY_KINDS.items() if data.startswith(first)), "a binary file")
        return f"is {kind}, not a table; a CSV in UTF-8 is expected"
    line = data.count(b"\n", 0, start) + 1
    return f"is {'UTF-16, ' if data.startswith(UTF16_MARKS) else ''}not UTF-8 text (line {line}); save it as CSV UTF-8"


def _without_separator_line(path: Path, text: str, delimiter: str) -> tuple[str, str]:
    """The text with a blank line for one such as `sep=;`, and what separates its cells: `delimiter` if no line says so.

    Raises:
        ManifestError: the line names another mark than those of `OTHER_MARKS`.
    """
    found = SEPARATOR_LINE.match(text)
    if not found:
        return text, delimiter
    if found[1] not in OTHER_MARKS:
        raise ManifestError(
            f"{path} says in line 1 that {found[1]!r} separates its cells; save it with {OTHER_MARKS[delimiter]} "
            "instead, and without that line"
        )
    return text[found.end() :], found[1]


def _without_empty_columns(lines: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The lines without their last columns if these have neither a name nor a filled cell."""
    width = max((place for place, cell in enumerate(lines[0][1], 1) if cell.strip()), default=0) if lines else 0
    if not lines or width == len(lines[0][1]) or any(cell.strip() for _, cells in lines for cell in cells[width:]):
        return lines
    return [(line, cells[:width]) for line, cells in lines]


def _cells(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """The cells of each row that is not blank, with the number of its first line.

    Raises:
        ManifestError: it is not well-formed CSV.
    """
    lines: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((start, [unguarded(cell) for cell in cells]))
            start = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path} is not well-formed CSV from line {start} on: {error}") from error
    return lines


def _header(
    path: Path, cells: Sequence[str], required: Sequence[str], delimiter: str, known: Sequence[str], any_spelling: bool
) -> list[str]:
    """The column names.

    Raises:
        ManifestError: one is missing, unnamed or repeated.
    """
    names = {composed(name): name for name in (*known, *required)}
    written = [composed(cell).strip() for cell in cells]
    simplified = plain_name if any_spelling else str.lower
    header = [names.get(name) or names.get(simplified(name), name) for name in written]
    if missing := [column for column in required if column not in header]:
        columns = "columns" if len(missing) > 1 else "column"
        raise ManifestError(f"{path} lacks the {columns} {_what_it_has(missing, header, delimiter)}")
    _refuse_repeated(path, written, header)
    return header


def _refuse_repeated(path: Path, written: Sequence[str], header: Sequence[str]) -> None:
    """Refuse columns of one name, or without one; `written` are the names as in the file.

    Raises:
        ManifestError: there are such columns.
    """
    if wrong := [column for column, count in Counter(header).items() if count > 1 or not column]:
        hint = "" if header[0] else ". If pandas wrote row numbers into the first one, use to_csv(index=False)"
        others = [repr(cell) for cell, name in zip(written, header, strict=True) if name in wrong and cell != name]
        read_as = f" ({', '.join(others)} is read so)" if others else ""
        raise ManifestError(f"{path} has repeated or unnamed columns: {wrong}{read_as}; give each its own name{hint}")


def _what_it_has(missing: Sequence[str], header: Sequence[str], delimiter: str) -> str:
    """The missing columns, those that there are, and what may be wrong, in words."""
    split_at = OTHER_MARKS[delimiter]
    other = next((mark for mark in OTHER_MARKS if mark != delimiter and mark in header[0]), "")
    hint = f". Its cells are separated by {OTHER_MARKS.get(other)}; save it with {split_at} instead" if other else ""
    hint += ", or put the line sep=; above its header" if other == ";" else ""
    shown = [name if len(name) <= MAX_SHOWN_CHARS else name[:MAX_SHOWN_CHARS] + "..." for name in header]
    more = f" and {len(shown) - MAX_SHOWN_COLUMNS:,} more" if len(shown) > MAX_SHOWN_COLUMNS else ""
    return (
        f"{', '.join(missing)}{did_you_mean(missing[0], header)}; split at {split_at}, it has "
        f"{shown[:MAX_SHOWN_COLUMNS]}{more}{hint}"
    )


def plain_name(column: str) -> str:
    """The name of a column in small letters, with one underscore for blanks and dashes."""
    return re.sub(r"[\s_-]+", "_", column.strip().lower())


def composed(text: str) -> str:
    """The text with accents composed (NFC): file systems and keyboards encode them in two ways."""
    return unicodedata.normalize("NFC", text)


def guarded(cell: Any) -> Any:
    """A cell to write, with an apostrophe before text that a spreadsheet may take for a formula, inside it as well."""
    if not isinstance(cell, str):
        return cell
    is_formula = FORMULA.match(cell) and not NUMBER.fullmatch(cell)
    return INNER_FORMULA.sub("'", f"'{cell}" if is_formula else cell)


def unguarded(cell: str) -> str:
    """The inverse of `guarded` for text."""
    cell = INNER_GUARD.sub("", cell)
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: Literal[",", "\t"] = ",") -> str:
    """Format a table with a header; `None` is an empty cell."""
    lines = ([_written(cell, delimiter) for cell in row] for row in (columns, *rows))
    return "".join(f"{delimiter.join(cells) if cells != [''] else NO_TEXT}\n" for cells in lines)


def _written(cell: Any, delimiter: str) -> str:
    """Quote a cell if needed; Python's writer (before 3.13) leaves a carriage return unquoted."""
    text = "" if cell is None else str(guarded(cell))
    doubled = text.replace(QUOTE, 2 * QUOTE)
    return f"{QUOTE}{doubled}{QUOTE}" if any(mark in text for mark in (delimiter, QUOTE, "\r", "\n")) else text


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV, complete or absent. Bytes of a path that are not UTF-8 are written as `\\udc..`."""
    write_bytes(path, table_text(columns, rows).encode(errors="backslashreplace"))


def write_records(path: Path, records: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write records as CSV, complete or absent; `columns` defaults to those of the first record."""
    columns = columns or list(records[0])
    write_table(path, columns, ([record[column] for column in columns] for record in records))


def refuse(path: Path, problems: Iterable[Problem], hint: str = "") -> None:
    """Raise one error that lists the problems, if there are any.

    Raises:
        ManifestError: there are problems.
    """
    listed = sorted(problems)
    if listed:
        shown = [f"\n  line {line}: {problem}" if line else f"\n  {problem}" for line, problem in _shown_first(listed)]
        num_hidden = len(listed) - len(shown)
        more = f"\n  and {num_hidden} more" if num_hidden > 0 else ""
        raise ManifestError(f"{path} cannot be used:{''.join(shown)}{more}{hint}")


def _shown_first(listed: Sequence[Problem]) -> list[Problem]:
    """The problems to show, by line: some of every kind, so that a column that is wrong throughout hides no other."""
    kinds = Counter[tuple[str, ...]]()
    ranked: list[tuple[int, Problem]] = []
    for problem in listed:
        kind = tuple(VALUES.sub("", problem[1]).split()[:KIND_WORDS])
        ranked.append((kinds[kind], problem))
        kinds[kind] += 1
    return sorted(problem for _, problem in sorted(ranked)[:MAX_SHOWN_PROBLEMS])


def alike_columns(header: Sequence[str]) -> list[Problem]:
    """The problem of columns whose names differ in nothing but capitals."""
    counts = Counter(name.lower() for name in header)
    alike = [name for name in header if counts[name.lower()] > 1]
    return [(1, f"columns {', '.join(alike)} are spelled alike; keep one of them")] if alike else []


def unused_columns_note(columns: Iterable[str]) -> str:
    """A note that lists unused columns, since one may be a typing error; "" if there are none."""
    names = [repr(name) for name in columns]
    more = f" and {len(names) - MAX_SHOWN_COLUMNS} more" if len(names) > MAX_SHOWN_COLUMNS else ""
    return f"Unused columns of the CSV: {', '.join(names[:MAX_SHOWN_COLUMNS])}{more}." if names else ""
