"""Read and write the manifest: a CSV of slides, their cases, and which cases are held out.

The paper trains on about a thousand slides of one cancer (arXiv 2510.11176). A manifest with errors is refused with all
of them listed at once. `sources` makes the rows of new manifests. Left out: whether a slide opens, and its mpp; the
plan checks these.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pipeline.base.errors import ManifestError
from pipeline.base.units import check_mpp
from pipeline.cohort.manifest.checks import (
    missing_annotations,
    missing_slides,
    mixed_cases,
    repeated_files,
    repeated_ids,
    shared_annotations,
    slides_with_copies,
    unclear_files,
)
from pipeline.cohort.manifest.columns import MANIFEST_COLUMNS, MANIFEST_NEEDS, misspelt_columns, with_cases
from pipeline.cohort.manifest.rows import Manifest, ManifestRow, Split
from pipeline.disk.label_words import case_value, cell_value, is_unknown
from pipeline.disk.objects.places import ObjectPath, as_place
from pipeline.disk.tables import Problem, read_table, refuse, write_table

OVERRIDES: Mapping[str, Literal["yes"] | None] = {"": None, "no": None, "yes": "yes"}
SPLIT_CELLS: Mapping[str, Split] = {"train": "train", "val": "val"}
"""What the column split may say; a slide without one is assigned by its case."""
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_SLIDE_ID_BYTES = 200
"""Our choice: file systems allow 255 bytes per name, and outputs append an ending to the id."""


def read_manifest(path: Path, slides_root: Path | None = None) -> Manifest:
    """Read and check a manifest; every slide and every file of annotations must exist, and each slide be listed once.

    Relative paths start from `slides_root`, or from the manifest's folder if it is `None`.

    Raises:
        ManifestError: anything is wrong; lists the first 20 problems by line, and how many more.
        ObjectError: a bucket cannot be asked for its slides.
    """
    manifest, problems = _parse(path, slides_root)
    missing = missing_slides(manifest) + missing_annotations(manifest)
    hint = f"\nRelative paths start from {manifest.slides_root}; --slides-root sets another folder."
    refuse(path, problems + missing + slides_with_copies(manifest), hint if missing else "")
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
        read_table(path, MANIFEST_NEEDS, ",", MANIFEST_COLUMNS, any_spelling=True)
    except ManifestError:
        return False
    return True


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write rows as CSV, sorted by `slide_id`, complete or absent.

    Columns: slide_id, path, case_id (empty if unknown); those of the other `MANIFEST_COLUMNS` that any row has; then
    the labels in the order of their first use.
    """
    ordered = sorted(rows, key=lambda row: row.slide_id)
    fixed = [c for c in MANIFEST_COLUMNS if any(getattr(row, c) is not None for row in ordered)] or MANIFEST_COLUMNS[:3]
    labels = list(dict.fromkeys(label for row in ordered for label in row.labels))
    cells = (
        [getattr(row, c) if c != "case_id" or row.has_case else "" for c in fixed]
        + [row.labels.get(label, "") for label in labels]
        for row in ordered
    )
    write_table(path, [*fixed, *labels], cells)


def _parse(path: Path, slides_root: Path | None) -> tuple[Manifest, list[Problem]]:
    """Parse a manifest; returns it with all problems that show without the slides."""
    root = path.parent if slides_root is None else as_place(slides_root)
    if slides_root is not None and not (isinstance(root, ObjectPath) or os.path.isdir(root)):
        raise ManifestError(f"--slides-root {slides_root} is not a folder")
    records, problems = read_table(path, MANIFEST_NEEDS, ",", MANIFEST_COLUMNS, any_spelling=True)
    records, notes = with_cases(path, records)
    notes += misspelt_columns(path, records)
    rows = sorted((_parse_row(*record, problems) for record in records), key=lambda row: row.slide_id)
    manifest = Manifest(tuple(rows), path, root, notes)
    manifest = replace(manifest, notes=notes + shared_annotations(manifest))
    problems += [*repeated_ids(rows), *unclear_files(manifest), *repeated_files(manifest)]
    problems += mixed_cases(rows, dict(records))
    return manifest, problems


def _parse_row(line: int, record: Mapping[str, str], problems: list[Problem]) -> ManifestRow:
    """Parse a record. A wrong cell is added to `problems` and counts as empty."""
    cells = {column: cell_value(record.get(column, "")) for column in MANIFEST_COLUMNS}
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
        labels={column: cell.strip() for column, cell in record.items() if column not in MANIFEST_COLUMNS},
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
