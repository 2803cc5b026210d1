"""Rows of a manifest from a folder of slides, or from a download manifest of the Genomic Data Commons (GDC).

A TCGA barcode in a file name gives the case and the centre. What it leaves out: downloading, which the GDC's own client
does, and opening the slides.
"""

import csv
import functools
import io
import os
import re
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pipeline.errors import ManifestError
from pipeline.manifest import ManifestRow, id_trouble, read_table, refuse, repeated_ids

GDC_COLUMNS = ("id", "filename", "md5", "size")
"""docs.gdc.cancer.gov/Encyclopedia/pages/Manifest_File; its `state` is not needed."""

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm", ".czi", ".avs"}
)
"""File endings that OpenSlide 4.0.1 reads (openslide.org/formats); 4.0.0 reads neither .czi nor .avs."""

SITES_FILE = "tcga_source_sites.csv"
BARCODE = re.compile(r"(TCGA-([A-Z0-9]{2})-[A-Z0-9]{4})(?![A-Za-z0-9])")
"""Case (1) and the code of its source site (2); docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode."""


def make_manifest(source: Path) -> tuple[list[ManifestRow], Path]:
    """Rows from a folder of slides or from a GDC manifest, and the folder below which their paths hang.

    For a GDC manifest that is its own folder; who downloads to another names it as `slides_root` when reading.

    Raises:
        ManifestError: as `rows_from_folder` and `rows_from_gdc`.
    """
    if source.is_dir():
        return rows_from_folder(source), source
    return rows_from_gdc(source), source.parent


def rows_from_folder(folder: Path) -> list[ManifestRow]:
    """One row for each slide anywhere below `folder`, with paths relative to it, sorted by `slide_id`.

    The id is the file's stem; files whose stems clash take their relative path with `__` for `/`. A name that
    starts with a TCGA barcode gives the case and, if its site is known, the centre. Passed over: hidden files and
    folders, links to folders, and the data folder of an .mrxs file. Of DICOM files only the first by name in each
    folder is listed, because there a slide is a series of files: keep one slide a folder.

    Raises:
        ManifestError: the folder cannot be listed or has no slide, or a name cannot be an id.
    """
    found: list[PurePosixPath] = []
    for parent, folders, names in os.walk(folder, onerror=_raise_unlisted):
        files = [PurePosixPath(name) for name in sorted(names) if not name.startswith(".")]
        dicom = [file for file in files if file.suffix.lower() == ".dcm"]
        data_folders = {file.stem for file in files if file.suffix.lower() == ".mrxs"}
        folders[:] = [name for name in folders if not name.startswith(".") and name not in data_folders]
        slides = [file for file in files if file.suffix.lower() in SLIDE_SUFFIXES and file not in dicom[1:]]
        found += [PurePosixPath(Path(parent).relative_to(folder)) / file for file in slides]
    if not found:
        raise ManifestError(f"no slides below {folder}; looked for {' '.join(sorted(SLIDE_SUFFIXES))}")
    num_same = Counter(path.stem for path in found)
    rows, problems = [], []
    for path in found:
        slide_id = path.stem if num_same[path.stem] == 1 else str(path).replace("/", "__")
        case_id, center = slide_id, None
        if barcode := BARCODE.match(path.name):
            case_id, center = barcode[1], source_sites().get(barcode[2])
        rows.append(ManifestRow(slide_id, str(path), case_id, center))
        if trouble := id_trouble(slide_id) or _utf8_trouble(str(path)):
            problems.append((0, f"the file name {str(path)!r} {trouble}; rename it"))
    refuse(folder, problems + repeated_ids(rows))
    return sorted(rows, key=lambda row: row.slide_id)


def rows_from_gdc(tsv: Path) -> list[ManifestRow]:
    """One row for each slide of a GDC download manifest (TSV: id, filename, md5, size), sorted by `slide_id`.

    Paths are `id/filename`, as gdc-client lays files out. The slide's id is the file name up to the first dot, or
    its whole stem where that clashes. Labels: site (its code), file_name, gdc_id, md5, bytes.

    Raises:
        ManifestError: not such a file; a file that is no slide, has no TCGA barcode or is from an unknown site.
    """
    records, problems = read_table(tsv, GDC_COLUMNS, "\t")
    num_same = Counter(record["filename"].split(".")[0] for _, record in records)
    rows = []
    for line, record in records:
        name, short = record["filename"], record["filename"].split(".")[0]
        barcode = BARCODE.match(name)
        if barcode is None:
            problems.append((line, f"{name!r} does not start with a TCGA barcode (TCGA-XX-YYYY)"))
        elif barcode[2] not in source_sites():
            problems.append((line, f"{name!r} has the unknown site code {barcode[2]!r}; add it to {SITES_FILE}"))
        elif Path(name).suffix.lower() not in SLIDE_SUFFIXES:
            problems.append((line, f"{name!r} is not a slide; take the line out"))
        else:
            slide_id = short if num_same[short] == 1 else Path(name).stem
            labels = {"site": barcode[2], "file_name": name, "gdc_id": record["id"]}
            labels |= {"md5": record["md5"], "bytes": record["size"]}
            path, center = f"{record['id']}/{name}", source_sites()[barcode[2]]
            rows.append(ManifestRow(slide_id, path, barcode[1], center, labels=labels, line=line))
    refuse(tsv, problems + repeated_ids(rows))
    return sorted(rows, key=lambda row: row.slide_id)


@functools.cache
def source_sites() -> Mapping[str, str]:
    """TCGA source site code to centre; gdc.cancer.gov/resources-tcga-users/tcga-code-tables."""
    text = resources.files("pipeline").joinpath("data", SITES_FILE).read_text("utf-8")
    return {record["code"]: record["center"] for record in csv.DictReader(io.StringIO(text))}


def _utf8_trouble(path: str) -> str:
    """Why a path cannot be written to a CSV file; empty if it can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def _raise_unlisted(error: OSError) -> NoReturn:
    raise ManifestError(f"cannot list the folder {error.filename}: {error.strerror}") from error
