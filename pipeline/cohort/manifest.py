"""Read and write the manifest: a CSV of slides, their cases, and which cases are held out.

The paper trains on about a thousand slides of one cancer (arXiv 2510.11176). A manifest with errors is refused with all
of them listed at once. `sources` makes the rows of new manifests. Left out: whether a slide opens, and its mpp; the
plan checks these.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.base.console import counted
from pipeline.base.errors import ManifestError
from pipeline.base.outside import NO_FILE, file_trouble
from pipeline.base.units import check_mpp
from pipeline.cohort.copies import copies_of_slides
from pipeline.disk.file_names import name_trouble
from pipeline.disk.files import sha256_json
from pipeline.disk.label_words import case_value, cell_value, is_unknown
from pipeline.disk.objects.places import ObjectPath, as_place, place_below, place_trouble, real_name
from pipeline.disk.objects.present import absent_places
from pipeline.disk.tables import Problem, Record, composed, plain_name, read_table, refuse, write_table

Split = Literal["train", "val"]

OVERRIDES: Mapping[str, Literal["yes"] | None] = {"": None, "no": None, "yes": "yes"}
SPLIT_CELLS: Mapping[str, Split] = {"train": "train", "val": "val"}
"""What the column split may say; a slide without one is assigned by its case."""
REQUIRED_COLUMNS = ("slide_id", "path")
COLUMNS = (*REQUIRED_COLUMNS, "case_id", "center", "mpp", "mpp_overrides", "split", "sha256", "annotations")
"""Known columns in the order of writing, read in any spelling (`plain_name`); every other column is a label."""
CASE_NAMES = ("patient_id", "patient", "case")
"""What may stand for `case_id`, the first before the others."""
LEAST_LETTERS, ALIKE = 6, 0.8
"""Names of so many letters are alike from this ratio of difflib on; shorter ones if one slip of the keyboard makes one
of the other. Our choice: "annotaions" and "centre" are, a label such as "site", "class" or "patient_age" is like none.
"""
ENDINGS = re.compile(r"_(file|files|path|name|dir|folder|um_px|x)$")
"""What people put after a column's name, as in "annotation_file" or "mpp_x"."""
SHA256 = re.compile(r"[0-9a-f]{64}")

MOST_SHOWN = 5
"""Files, and lines of each, that a note of shared annotations lists. Our choice."""
MAX_SLIDE_ID_BYTES = 200
"""Our choice: file systems allow 255 bytes per name, and outputs append an ending to the id."""


@dataclass(frozen=True)
class ManifestRow:
    """One slide. `path` is as written; `mpp` is um/px of level 0, and replaces the slide's own if `mpp_overrides` is
    "yes"; `annotations` is a file as written; `line` counts from 1 (0: not from a file).

    `has_case` is false if the manifest gives no case; `case_id` is then the slide's id. Comparisons ignore `has_case`
    and `line`, since the order of rows does not matter.
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
    mpp_overrides: Literal["yes"] | None = None
    has_case: bool = field(default=True, compare=False)
    annotations: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, sorted by `slide_id`, the folder that their relative paths start from, and what a reader
    must know of how it was read.
    """

    rows: tuple[ManifestRow, ...]
    path: Path
    slides_root: Path
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Manifest({str(self.path)!r}, {len(self.rows):,} slides)"

    def slide_path(self, row: ManifestRow) -> Path:
        """Path of the row's slide, or its address in a bucket (`disk.objects.places`)."""
        return place_below(self.slides_root, row.path)

    def annotations_path(self, row: ManifestRow) -> Path | None:
        """Path of the row's file of annotations; finds the file if only the encoding of accents in its name differs.
        `None` without one.
        """
        return place_below(self.slides_root, row.annotations) if row.annotations else None


def read_manifest(path: Path, slides_root: Path | None = None) -> Manifest:
    """Read and check a manifest; every slide and every file of annotations must exist, and each slide be listed once.

    Relative paths start from `slides_root`, or from the manifest's folder if it is `None`.

    Raises:
        ManifestError: anything is wrong; lists the first 20 problems by line, and how many more.
        ObjectError: a bucket cannot be asked for its slides.
    """
    manifest, problems = _parse(path, slides_root)
    missing = _missing_slides(manifest) + _missing_annotations(manifest)
    hint = f"\nRelative paths start from {manifest.slides_root}; --slides-root sets another folder."
    refuse(path, problems + missing + _copies(manifest), hint if missing else "")
    return manifest


def parse_manifest(path: Path, slides_root: Path | None = None) -> Manifest:
    """Read and check a manifest as `read_manifest` does, but without looking for the slides.

    Raises:
        ManifestError: as `read_manifest`, except for missing slides and copies.
    """
    manifest, problems = _parse(path, slides_root)
    refuse(path, problems)
    return manifest


def is_manifest(path: Path) -> bool:
    """Whether a file is a table with the columns of a manifest, whatever its name and its rows are."""
    try:
        read_table(path, REQUIRED_COLUMNS, ",", COLUMNS, any_spelling=True)
    except ManifestError:
        return False
    return True


def split_of_case(case_id: str, val_fraction: float) -> Split:
    """The split of a case, from the SHA-256 of its id alone, so that adding or removing slides does not change it.

    A case held out at one fraction is held out at every larger one.

    Raises:
        ValueError: `val_fraction` is not within 0 to 1.
    """
    if not 0 <= val_fraction <= 1:
        raise ValueError(f"val_fraction must be 0 to 1, not {val_fraction:g}")
    # A float holds 48 bits exactly, and the quotient is below 1: fraction 0 holds out nothing, 1 everything.
    position = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:6], "big") / 2**48
    return "val" if position < val_fraction else "train"


def row_split(row: ManifestRow, val_fraction: float) -> Split:
    """The row's split in the manifest, else the split of its case's hash."""
    return row.split or split_of_case(row.case_id, val_fraction)


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write rows as CSV, sorted by `slide_id`, complete or absent.

    Columns: slide_id, path, case_id (empty if unknown); those of the other `COLUMNS` that any row has; then the labels
    in the order of their first use.
    """
    ordered = sorted(rows, key=lambda row: row.slide_id)
    fixed = [c for c in COLUMNS if any(getattr(row, c) is not None for row in ordered)] or COLUMNS[:3]
    labels = list(dict.fromkeys(label for row in ordered for label in row.labels))
    cells = (
        [getattr(row, c) if c != "case_id" or row.has_case else "" for c in fixed]
        + [row.labels.get(label, "") for label in labels]
        for row in ordered
    )
    write_table(path, [*fixed, *labels], cells)


def _missing_slides(manifest: Manifest) -> list[Problem]:
    """Slides that are not there, but for those whose addresses cannot be.

    Raises:
        ObjectError: a bucket cannot be asked for its slides.
    """
    named = [row for row in manifest.rows if row.path and not place_trouble(manifest.slides_root, row.path)]
    places = [(row, manifest.slide_path(row)) for row in named]
    absent = absent_places(place for _, place in places)
    return [
        (row.line, f"no slide file {place}" if absent[place] == NO_FILE else f"{place}: {absent[place]}")
        for row, place in places
        if place in absent
    ]


def _missing_annotations(manifest: Manifest) -> list[Problem]:
    """Files of annotations that are none, but for those in a bucket, which are not read at all."""
    annotations = [(row, file) for row in manifest.rows if (file := manifest.annotations_path(row))]
    return [
        (
            row.line,
            f"no file of annotations {file}, of the slide {row.slide_id!r}{_found_elsewhere(manifest, row)}"
            if why == NO_FILE
            else f"annotations {file} of the slide {row.slide_id!r}: {why}",
        )
        for row, file in annotations
        if not isinstance(file, ObjectPath) and (why := file_trouble(file))
    ]


def _found_elsewhere(manifest: Manifest, row: ManifestRow) -> str:
    """Where a file of annotations is that is not at its place: beside the slide, or below the manifest's folder; "" if
    it is at neither.
    """
    name, slide = Path(row.annotations or ""), manifest.slide_path(row)
    places = [manifest.path.parent / name, manifest.path.parent / name.name]
    places += [] if isinstance(slide, ObjectPath) else [slide.parent / name, slide.parent / name.name]
    for place in places:
        if os.path.isfile(place):
            return f"; there is one at {os.path.abspath(place)}: write that path"
    return ""


def _parse(path: Path, slides_root: Path | None) -> tuple[Manifest, list[Problem]]:
    """Parse a manifest; returns it with all problems that show without the slides."""
    root = path.parent if slides_root is None else as_place(slides_root)
    if slides_root is not None and not (isinstance(root, ObjectPath) or os.path.isdir(root)):
        raise ManifestError(f"--slides-root {slides_root} is not a folder")
    records, problems = read_table(path, REQUIRED_COLUMNS, ",", COLUMNS, any_spelling=True)
    records, notes = _with_cases(path, records)
    notes += _misspelt_columns(path, records)
    rows = sorted((_parse_row(*record, problems) for record in records), key=lambda row: row.slide_id)
    manifest = Manifest(tuple(rows), path, root, notes)
    manifest = replace(manifest, notes=notes + _shared_annotations(manifest))
    problems += [*repeated_ids(rows), *_unclear_files(manifest), *_repeated_files(manifest)]
    problems += _mixed_cases(rows, dict(records))
    return manifest, problems


def _with_cases(path: Path, records: list[Record]) -> tuple[list[Record], tuple[str, ...]]:
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


def _misspelt_columns(path: Path, records: list[Record]) -> tuple[str, ...]:
    """A note for each label whose name is nearly that of a column that the manifest lacks."""
    names = list(records[0][1]) if records else []
    lacking = [column for column in COLUMNS if column not in names]
    lacking += CASE_NAMES if "case_id" in lacking else ()
    found = [(name, _nearly(name, lacking)) for name in names if name not in (*COLUMNS, *CASE_NAMES)]
    return tuple(
        f"{path}: the column {name!r} is only kept as a label; rename it if "
        f"{'case_id' if known in CASE_NAMES else known} is meant"
        for name, known in found
        if known
    )


def _nearly(name: str, known: Iterable[str]) -> str:
    """The name that this one is nearly; "" if none."""
    typed = ENDINGS.sub("", plain_name(name))
    close = difflib.get_close_matches(typed, known, n=len(COLUMNS), cutoff=0.0)
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


def _parse_row(line: int, record: Mapping[str, str], problems: list[Problem]) -> ManifestRow:
    """Parse a record. A wrong cell is added to `problems` and counts as empty."""
    cells = {column: cell_value(record.get(column, "")) for column in COLUMNS}
    cells["case_id"] = case_value(record.get("case_id", ""))
    mpp, mpp_trouble = _parse_mpp(cells["mpp"])
    problems += [(line, trouble) for trouble in (mpp_trouble, *_cell_troubles(record, cells, mpp)) if trouble]
    return ManifestRow(
        slide_id=record["slide_id"],
        path=record["path"] if cells["path"] else "",
        case_id=cells["case_id"] or record["slide_id"],
        center=cells["center"] or None,
        mpp=mpp,
        split=SPLIT_CELLS.get(cells["split"]),
        sha256=cells["sha256"].lower() or None,
        labels={column: cell.strip() for column, cell in record.items() if column not in COLUMNS},
        line=line,
        mpp_overrides=OVERRIDES.get(cells["mpp_overrides"].lower()),
        has_case=bool(cells["case_id"]),
        annotations=cells["annotations"] or None,
    )


def _parse_mpp(cell: str) -> tuple[float | None, str]:
    """The mpp (um/px) in a cell, `None` if it is empty or wrong, and what is wrong."""
    if not cell:
        return None, ""
    hint = "give um/px at level 0, such as 0.25, or nothing"
    try:
        if "_" in cell:  # Python reads 0_25 as 25
            raise ValueError
        mpp = float(cell)
    except ValueError:
        return None, f"mpp {cell!r} is not a number; {hint}"
    try:
        return check_mpp(mpp, "the manifest"), ""
    except ValueError as error:
        return None, f"{error}; {hint}"


def _cell_troubles(record: Mapping[str, str], cells: Mapping[str, str], mpp: float | None) -> Iterator[str]:
    """What is wrong with the cells other than mpp; `mpp` is the parsed value."""
    slide_id, path = record["slide_id"], record["path"]
    if trouble := id_trouble(slide_id):
        yield f"slide_id {slide_id!r} {trouble}"
    if not cells["path"]:
        yield f"path {path!r} stands for a missing value" if path.strip() else "path is empty"
    overrides = cells["mpp_overrides"].lower()
    if overrides not in OVERRIDES or (OVERRIDES[overrides] and mpp is None):
        yield f"mpp_overrides {cells['mpp_overrides']!r} is not yes (with an mpp), no, or empty"
    if cells["split"] not in ("", *SPLIT_CELLS):
        yield f"split {cells['split']!r} is not one of train, val, or empty"
    sha256 = cells["sha256"].lower()
    if sha256 and not SHA256.fullmatch(sha256):
        yield f"sha256 {sha256!r} is not 64 hexadecimal digits"


def id_trouble(slide_id: str) -> str:
    """Why an id cannot name a file and an HDF5 group; empty if it can."""
    if not slide_id.strip():
        return "is empty"
    if is_unknown(slide_id) and not slide_id.startswith("."):
        return "stands for a missing value"
    if slide_id != slide_id.strip() or slide_id.startswith("."):
        return "starts or ends with a space, or starts with a dot"
    if not slide_id.isprintable() or "/" in slide_id or "\\" in slide_id:
        return "has a slash, a backslash or a character that does not print"
    if len(slide_id.encode()) > MAX_SLIDE_ID_BYTES:
        return f"is longer than {MAX_SLIDE_ID_BYTES} bytes"
    return ""


def _groups(rows: Iterable[ManifestRow], key: Callable[[ManifestRow], str]) -> dict[str, list[ManifestRow]]:
    """Groups of two or more rows that share a key, by key; each in the order of lines."""
    groups: dict[str, list[ManifestRow]] = {}
    for row in sorted(rows, key=lambda row: row.line):
        groups.setdefault(key(row), []).append(row)
    return {name: group for name, group in groups.items() if len(group) > 1}


def repeated_ids(rows: Iterable[ManifestRow]) -> list[Problem]:
    """Ids that several rows share, or that differ only in the encoding of accents."""
    return [
        (
            group[0].line,
            f"slide_id {slide_id!r} is given {_lines(group)}; every slide needs its own id"
            + ("" if len({row.slide_id for row in group}) == 1 else " (they differ only in the encoding of accents)"),
        )
        for slide_id, group in _groups(rows, lambda row: composed(row.slide_id)).items()
        if slide_id.strip()
    ]


def _unclear_files(manifest: Manifest) -> list[Problem]:
    """Paths that match several files, addresses that name no object, and annotations that hang below a bucket."""
    rows, root, problems = [row for row in manifest.rows if row.path], manifest.slides_root, list[Problem]()
    for row in rows:
        if trouble := place_trouble(root, row.path):
            problems.append((row.line, trouble))
        elif not isinstance(manifest.slide_path(row), ObjectPath) and (trouble := name_trouble(root / row.path)):
            problems.append((row.line, f"path {row.path!r} {trouble}"))
    return problems + [
        (row.line, f"annotations {file} are not read from a bucket; give an absolute path of a file")
        for row in manifest.rows
        if isinstance(file := manifest.annotations_path(row), ObjectPath)
    ]


def _repeated_files(manifest: Manifest) -> list[Problem]:
    """Slide files with several ids, whatever links and dots their paths contain."""
    groups = _groups(manifest.rows, lambda row: _inode(manifest.slide_path(row)))
    return [
        (
            group[0].line,
            f"the file {real_name(manifest.slide_path(group[0]))} has several ids {_lines(group)}; "
            "keep one row per file",
        )
        for group in groups.values()
        if group[0].path and len({row.slide_id for row in group}) > 1
    ]


def _shared_annotations(manifest: Manifest) -> tuple[str, ...]:
    """A note of files of annotations that several slides share, as cells copied by mistake do. No refusal: slides
    without regions may share an empty file.
    """
    files = [(row, file) for row in manifest.rows if (file := manifest.annotations_path(row))]
    inodes = {row.slide_id: _inode(file) for row, file in files}
    groups = list(_groups((row for row, _ in files), lambda row: inodes[row.slide_id]).values())
    shown = "; ".join(f"{group[0].annotations} {_lines(group[:MOST_SHOWN])}" for group in groups[:MOST_SHOWN])
    cut = len(groups) > MOST_SHOWN or any(len(group) > MOST_SHOWN for group in groups)
    words = f"several slides have the same file of annotations: {shown}{' and more' if cut else ''}"
    return (f"{manifest.path}: {words}. Is it of each of them?",) if groups else ()


def _inode(path: Path) -> str:
    """A key shared by all names of a file, links and hard links; for a missing file its path, for an object its
    address.
    """
    if isinstance(path, ObjectPath):
        return str(path)
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return os.path.realpath(path)
    return f"{stat.st_dev}:{stat.st_ino}"


def _copies(manifest: Manifest) -> list[Problem]:
    """Slides with several ids, through copies of a file or several files of one DICOM series; of those in buckets only
    the audit knows.
    """
    places = [(row, manifest.slide_path(row)) for row in reversed(manifest.rows) if row.path]
    rows = list({_inode(place): row for row, place in places if not isinstance(place, ObjectPath)}.values())
    problems = []
    for indices in copies_of_slides([manifest.slide_path(row) for row in rows]):
        group = sorted((rows[index] for index in indices), key=lambda row: row.line)
        named = " and ".join(f"{row.slide_id!r} ({manifest.slide_path(row)})" for row in group)
        problems.append(
            (
                group[0].line,
                f"one slide has several ids {_lines(group)}: {named} are copies, or files of "
                "one DICOM series. Keep one row per slide",
            )
        )
    return problems


def row_hash(row: ManifestRow) -> str:
    """A short hash of the fields of a manifest row that a plan depends on, without its labels."""
    hashed: list[Any] = [row.slide_id, row.path, row.case_id, row.center, row.mpp, row.split, row.sha256]
    if row.mpp_overrides:  # absent otherwise, so that rows of earlier versions keep their hash
        hashed.append({"mpp_overrides": row.mpp_overrides})
    if row.annotations:
        hashed.append({"annotations": row.annotations})
    return sha256_json(hashed)[:16]


def refuse_near_copies(manifest: Manifest, groups: Iterable[tuple[Iterable[str], str]]) -> None:
    """Refuse slides of several cases that are one slide; `groups` has their ids and by what it is known.

    Raises:
        ManifestError: there are such slides.
    """
    rows = {row.slide_id: row for row in manifest.rows}
    problems = []
    for ids, by in groups:
        group = sorted((rows[slide_id] for slide_id in ids), key=lambda row: row.line)
        if len({row.case_id for row in group}) > 1:
            named = " and ".join(f"{row.slide_id!r} ({manifest.slide_path(row)})" for row in group)
            problems.append(
                (
                    group[0].line,
                    f"one slide has several cases {_lines(group)}: {named} are one by {by}, though "
                    "their files differ. Keep one row per slide",
                )
            )
    refuse(manifest.path, problems)


def _mixed_cases(rows: Iterable[ManifestRow], records: Mapping[int, Mapping[str, str]]) -> list[Problem]:
    """Cases whose rows do not all have the same split, or all have none; ignores rows with a wrong split."""
    problems = []
    sound = [row for row in rows if row.split or not cell_value(records[row.line].get("split", ""))]
    for case_id, group in _groups(sound, lambda row: row.case_id).items():
        parts = [(name, [row for row in group if row.split == name]) for name in ("train", "val", None)]
        words = [f"{name or 'none given'} {_lines(part)}" for name, part in parts if part]
        if case_id and len(words) > 1:
            problems.append(
                (
                    group[0].line,
                    f"case {case_id!r} is in more than one split: {', '.join(words)}; give "
                    "all its rows the same split, or none",
                )
            )
    return problems


def _lines(rows: Iterable[ManifestRow]) -> str:
    """The lines of rows in words, or their paths if they are not from a file."""
    rows = list(rows)
    if not all(row.line for row in rows):
        return "for " + ", ".join(row.path for row in rows)
    return f"on line{'s' * (len(rows) > 1)} " + ", ".join(str(row.line) for row in rows)
