"""The manifest: which slides there are, whose they are, and which cases are held out (CSV in, rows out).

The paper trains on about a thousand slides of one cancer (arXiv 2510.11176). This module reads such a list,
refuses it with every problem named at once, and writes one; `manifest_sources` makes its rows. What it leaves out:
whether a slide opens and what its mpp is; the plan sees to that.
"""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.errors import ManifestError, did_you_mean
from pipeline.files import write_text
from pipeline.units import check_mpp

Split = Literal["train", "val"]
Record = tuple[int, dict[str, str]]
"""1-based line and its cells by column."""
Problem = tuple[int, str]
"""1-based line (0: none) and what is wrong there."""

SPLITS: Mapping[str, Split] = {"train": "train", "val": "val"}
REQUIRED_COLUMNS = ("slide_id", "path")
COLUMNS = (*REQUIRED_COLUMNS, "case_id", "center", "mpp", "split", "sha256")
"""Columns with a meaning, in the order in which they are written; every other column is a label."""
SHA256 = re.compile(r"[0-9a-f]{64}")

MAX_SLIDE_ID_BYTES = 200
"""Our choice: file systems allow 255 bytes a name, and outputs add an ending to the id."""
OTHER_MARKS = {";": "semicolons", "\t": "tabs", ",": "commas"}
"""What tables are split at elsewhere; spreadsheets of some countries save CSV with semicolons."""
MAX_SHOWN_COLUMNS = 12
MAX_SHOWN_PROBLEMS = 20
"""Our choice: fits a screen."""


@dataclass(frozen=True)
class ManifestRow:
    """One slide; `path` is as written, `mpp` is um/px of level 0, `line` is 1-based (0: not from a file).

    `line` takes no part in comparisons, so that the order of a file's rows does not matter.
    """

    slide_id: str
    path: str
    case_id: str
    center: str | None = None
    mpp: float | None = None
    split: Split | None = None
    sha256: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, sorted by `slide_id`, and the folder below which their relative paths hang."""

    rows: tuple[ManifestRow, ...]
    path: Path
    slides_root: Path

    def slide_path(self, row: ManifestRow) -> Path:
        """Where the slide of `row` lies; an absolute path stays as it is."""
        return self.slides_root / row.path


def read_manifest(path: Path, slides_root: Path | None = None) -> Manifest:
    """Read and check a manifest, and see that every slide file is there.

    `slides_root` is the folder below which relative paths hang; None is the manifest's own folder.

    Raises:
        ManifestError: anything is wrong; lists the problems by line, the first 20 and how many more.
    """
    manifest, problems = _parse(path, slides_root)
    missing = [
        (row.line, f"no slide file {manifest.slide_path(row)}")
        for row in manifest.rows
        if row.path and not os.path.isfile(manifest.slide_path(row))
    ]
    hint = f"\nRelative paths hang below {manifest.slides_root}; --slides-root names another folder."
    refuse(path, problems + missing, hint if missing else "")
    return manifest


def parse_manifest(path: Path, slides_root: Path | None = None) -> Manifest:
    """Read and check a manifest as `read_manifest` does, without need of the slides.

    Raises:
        ManifestError: as `read_manifest`, but for missing slides.
    """
    manifest, problems = _parse(path, slides_root)
    refuse(path, problems)
    return manifest


def split_of_case(case_id: str, val_fraction: float) -> Split:
    """The split of a case, from the SHA-256 of its name alone, so that it stays when slides come or go.

    A case that is held out at one fraction is held out at every larger one.

    Raises:
        ValueError: `val_fraction` is not within 0 to 1.
    """
    if not 0 <= val_fraction <= 1:
        raise ValueError(f"val_fraction must be 0 to 1, not {val_fraction:g}")
    # 48 bits are exact in a float and always give less than 1: fraction 0 holds out nothing, 1 everything.
    position = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:6], "big") / 2**48
    return "val" if position < val_fraction else "train"


def row_split(row: ManifestRow, val_fraction: float) -> Split:
    """The split that the manifest gives the row, else that of its case's hash."""
    return row.split or split_of_case(row.case_id, val_fraction)


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write rows as CSV, sorted by `slide_id`, complete or absent.

    Columns: slide_id, path, case_id; of center, mpp, split, sha256 those that any row has; then the labels in the
    order of their first use.
    """
    ordered = sorted(rows, key=lambda row: row.slide_id)
    fixed = [c for c in COLUMNS if any(getattr(row, c) is not None for row in ordered)] or COLUMNS[:3]
    labels = list(dict.fromkeys(label for row in ordered for label in row.labels))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fixed, *labels])
    for row in ordered:
        writer.writerow([getattr(row, c) for c in fixed] + [row.labels.get(label, "") for label in labels])
    write_text(path, text.getvalue())


def read_table(
    path: Path, required: tuple[str, ...], delimiter: Literal[",", "\t"]
) -> tuple[list[Record], list[Problem]]:
    """Records, and the rows that have too few or too many cells; cells are as written, blank lines are passed over."""
    try:
        text = path.read_bytes().decode().removeprefix("\ufeff")
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path} is not UTF-8 text (line {line}); save it as CSV UTF-8") from error
    if "\0" in text:
        raise ManifestError(f"{path} is not a text file: it has zero bytes; save it as CSV UTF-8")
    lines: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path} is not well-formed CSV from line {start} on: {error}") from error
    if not lines:
        raise ManifestError(f"{path} is empty; its first line must name the columns {', '.join(required)}")
    header = [cell.strip() for cell in lines.pop(0)[1]]
    header = [name.lower() if name.lower() in (*required, *COLUMNS) else name for name in header]
    if missing := [column for column in required if column not in header]:
        split_at = {",": "commas", "\t": "tabs"}[delimiter]
        other = next((name for mark, name in OTHER_MARKS.items() if mark != delimiter and mark in header[0]), "")
        hint = f". It is split at {other}; save it with {split_at} between the cells" if other else ""
        raise ManifestError(
            f"{path} lacks the column {', '.join(missing)}{did_you_mean(missing[0], header)}; split at {split_at} it "
            f"has {header}{hint}"
        )
    if wrong := [column for column, count in Counter(header).items() if count > 1 or not column]:
        rows = "" if header[0] else ". The first is unnamed where pandas writes row numbers: use to_csv(index=False)"
        raise ManifestError(f"{path} has repeated or unnamed columns: {wrong}; give each a name of its own{rows}")
    if not lines:
        raise ManifestError(f"{path} has a header but no rows")
    width = len(header)
    problems = [
        (line, f"{len(cells)} cells where the header has {width}; put quotes around a cell with a separator")
        for line, cells in lines
        if len(cells) != width
    ]
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in lines if len(cells) == width], problems


def _parse(path: Path, slides_root: Path | None) -> tuple[Manifest, list[Problem]]:
    """The manifest, and everything that is wrong with it as far as the file alone tells."""
    if slides_root is not None and not slides_root.is_dir():
        raise ManifestError(f"the slides' folder {slides_root} is not a folder; mend --slides-root")
    records, problems = read_table(path, REQUIRED_COLUMNS, ",")
    rows = sorted((_parse_row(*record, problems) for record in records), key=lambda row: row.slide_id)
    manifest = Manifest(tuple(rows), path, path.parent if slides_root is None else slides_root)
    problems += repeated_ids(rows) + _repeated_files(manifest) + _mixed_cases(rows, dict(records))
    return manifest, problems


def _parse_row(line: int, record: Mapping[str, str], problems: list[Problem]) -> ManifestRow:
    """The row of a record; a cell that is wrong is added to `problems` and counts as empty."""
    slide_id, path = record["slide_id"], record["path"]
    cells = {column: record.get(column, "").strip() for column in COLUMNS}
    if trouble := id_trouble(slide_id):
        problems.append((line, f"slide_id {slide_id!r} {trouble}"))
    if not cells["path"]:
        problems.append((line, "path is empty"))
    mpp = None
    if cells["mpp"]:
        try:
            mpp = check_mpp(float(cells["mpp"]), "the manifest")
        except ValueError as error:
            why = error if "implausible" in str(error) else f"mpp {cells['mpp']!r} is not a number"
            problems.append((line, f"{why}; give um/px at level 0, such as 0.25, or nothing"))
    split = SPLITS.get(cells["split"])
    if cells["split"] and not split:
        problems.append((line, f"split {cells['split']!r} is not one of train, val, or empty"))
    sha256 = cells["sha256"].lower()
    if sha256 and not SHA256.fullmatch(sha256):
        problems.append((line, f"sha256 {sha256!r} is not 64 hexadecimal digits"))
    return ManifestRow(
        slide_id=slide_id,
        path=path if cells["path"] else "",
        case_id=cells["case_id"] or slide_id,
        center=cells["center"] or None,
        mpp=mpp,
        split=split,
        sha256=sha256 or None,
        labels={column: cell.strip() for column, cell in record.items() if column not in COLUMNS},
        line=line,
    )


def id_trouble(slide_id: str) -> str:
    """Why an id cannot name a file and an HDF5 group; empty if it can."""
    if not slide_id.strip():
        return "is empty"
    if slide_id != slide_id.strip() or slide_id.startswith("."):
        return "starts or ends with a space, or starts with a dot"
    if not slide_id.isprintable() or "/" in slide_id or "\\" in slide_id:
        return "has a slash, a backslash or a character that does not print"
    if len(slide_id.encode()) > MAX_SLIDE_ID_BYTES:
        return f"is longer than {MAX_SLIDE_ID_BYTES} bytes"
    return ""


def _groups(rows: Iterable[ManifestRow], key: Callable[[ManifestRow], str]) -> dict[str, list[ManifestRow]]:
    """The rows by key, as far as several share it; each group in the order of lines."""
    groups: dict[str, list[ManifestRow]] = {}
    for row in sorted(rows, key=lambda row: row.line):
        groups.setdefault(key(row), []).append(row)
    return {name: group for name, group in groups.items() if len(group) > 1}


def repeated_ids(rows: Iterable[ManifestRow]) -> list[Problem]:
    """Ids that several rows have."""
    return [
        (group[0].line, f"slide_id {slide_id!r} is given {_lines(group)}; every slide needs an id of its own")
        for slide_id, group in _groups(rows, lambda row: row.slide_id).items()
        if slide_id.strip()
    ]


def _repeated_files(manifest: Manifest) -> list[Problem]:
    """Slide files that have several ids, whatever links and dots their paths go through."""
    return [
        (group[0].line, f"the file {file} has several ids {_lines(group)}; keep one row a file")
        for file, group in _groups(manifest.rows, lambda row: os.path.realpath(manifest.slide_path(row))).items()
        if group[0].path and len({row.slide_id for row in group}) > 1
    ]


def _mixed_cases(rows: Iterable[ManifestRow], records: Mapping[int, Mapping[str, str]]) -> list[Problem]:
    """Cases whose rows do not all give the same split or all give none; a wrong split counts for nothing."""
    problems = []
    sound = [row for row in rows if row.split or not records[row.line].get("split", "").strip()]
    for case_id, group in _groups(sound, lambda row: row.case_id).items():
        parts = [(name, [row for row in group if row.split == name]) for name in ("train", "val", None)]
        words = [f"{name or 'none given'} {_lines(part)}" for name, part in parts if part]
        if case_id and len(words) > 1:
            what = f"case {case_id!r} is in more than one split: {', '.join(words)}"
            problems.append((group[0].line, f"{what}; give all its rows the same split, or none"))
    return problems


def _lines(rows: Iterable[ManifestRow]) -> str:
    """Where rows are, in words: by line, or by path if they are not from a file."""
    rows = list(rows)
    if not all(row.line for row in rows):
        return "for " + ", ".join(row.path for row in rows)
    return f"on line{'s' * (len(rows) > 1)} " + ", ".join(str(row.line) for row in rows)


def refuse(path: Path, problems: Iterable[Problem], hint: str = "") -> None:
    """Raise one error that lists all problems, if there are any."""
    found = [f"\n  line {line}: {what}" if line else f"\n  {what}" for line, what in sorted(problems)]
    if found:
        num_hidden = len(found) - MAX_SHOWN_PROBLEMS
        more = f"\n  and {num_hidden} more" if num_hidden > 0 else ""
        raise ManifestError(f"{path} cannot be used:{''.join(found[:MAX_SHOWN_PROBLEMS])}{more}{hint}")


def unused_columns_note(columns: Iterable[str]) -> str:
    """A note on columns that mean nothing here, which a typing error may be among; "" of none."""
    names = [repr(name) for name in columns]
    more = f" and {len(names) - MAX_SHOWN_COLUMNS} more" if len(names) > MAX_SHOWN_COLUMNS else ""
    return f"Columns of the CSV that are not used: {', '.join(names[:MAX_SHOWN_COLUMNS])}{more}." if names else ""
