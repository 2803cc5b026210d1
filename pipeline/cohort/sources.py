"""Make a manifest from a folder of slides, or from a list of the Genomic Data Commons (`gdc`).

A TCGA barcode in a file name gives the case and the centre. Left out: downloading, which the GDC's client does, and
opening the slides.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.base.console import counted
from pipeline.base.errors import ManifestError
from pipeline.cohort.barcodes import barcode_of_path, frozen_sections
from pipeline.cohort.cases import case_facts, cases_warning, counted_cases
from pipeline.cohort.copies import copies_of_slides
from pipeline.cohort.gdc import kinds_of_samples, rows_from_gdc, source_sites
from pipeline.cohort.manifest.checks import repeated_ids
from pipeline.cohort.manifest.read import id_trouble, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.walk import SLIDE_SUFFIXES, passed_over, slide_paths
from pipeline.disk.asides import remove_asides_of
from pipeline.disk.files import require_new_file
from pipeline.disk.locks import exclusive
from pipeline.disk.tables import Problem, composed, refuse


@dataclass(frozen=True)
class SlideList:
    """Rows sorted by `slide_id`, the folder that their paths start from, and notes on what was skipped."""

    rows: tuple[ManifestRow, ...]
    root: Path
    notes: tuple[str, ...] = ()


def make_manifest(source: Path, out: Path) -> list[str]:
    """Write a manifest of the slides that `source` lists; returns what it holds, notes and warnings, a line each.

    Raises:
        G2LError: the slides cannot be listed, or `out` exists or cannot be written.
    """
    listing = list_slides(source)
    rows = listing.rows
    with exclusive(out, "g2l make-manifest"):
        require_new_file(out, "Delete it first, or choose another --out.")
        remove_asides_of(out)
        write_manifest(out, rows)
    centers = {row.center for row in rows if row.center}
    counts = f"{counted(len(rows), 'slide')} of {counted_cases(rows)} and {counted(len(centers), 'centre')}"
    lines = [f"{out}: {counts}; paths are relative to {listing.root}", *(f"note: {note}" for note in listing.notes)]
    if warning := cases_warning(case_facts(rows)):
        lines.append(f"warning: {warning}")
    frozen = frozen_sections((row.path, row.labels.get("slide_type", "")) for row in rows)
    return lines + [f"warning: {each}" for each in frozen]


def list_slides(source: Path) -> SlideList:
    """List the slides of a folder, each once, or of a list of the GDC.

    A GDC list's paths start from its own folder; if the files are elsewhere, pass that folder as `slides_root` when
    reading.

    Raises:
        ManifestError: as `list_folder` and `rows_from_gdc`.
    """
    if source.is_dir():
        return list_folder(source, copies=False)
    rows = rows_from_gdc(source)
    return SlideList(tuple(rows), source.parent, tuple(filter(None, [kinds_of_samples(rows)])))


def list_folder(folder: Path, *, copies: bool = True) -> SlideList:
    """One row for each slide anywhere below `folder`, with paths relative to it.

    The id is the file's stem; if stems clash, the relative path with `__` for `/`. A TCGA barcode in the file's name,
    or of the nearest folder that has one, gives the case and, if its site is known, the centre.
    Skipped: hidden files and folders, links to folders, links to listed slides, the data folder of an .mrxs file, and
    all but one DICOM file of a series, the first by name that is a level of the slide. Without `copies` also
    byte-for-byte copies of listed files.

    Raises:
        ManifestError: the folder cannot be listed or has no slides, a name cannot be an id, or copies name different
            cases.
    """
    paths, notes = slide_paths(folder)
    problems: list[Problem] = []
    if not copies:
        paths, notes_on_copies = _without_copies(folder, paths, problems)
        notes += notes_on_copies
    if not paths:
        raise ManifestError(
            "\n".join([f"no slides below {folder}; looked for {' '.join(sorted(SLIDE_SUFFIXES))}", *notes])
        )
    num_same = Counter(composed(path.stem) for path in paths)
    rows = []
    for path in paths:
        slide_id = path.stem if num_same[composed(path.stem)] == 1 else str(path).replace("/", "__")
        barcode = barcode_of_path(path.parts)
        case_id, center = (barcode.case_id, source_sites().get(barcode.site)) if barcode else (slide_id, None)
        rows.append(ManifestRow(slide_id, str(path), case_id, center, has_case=barcode is not None))
        if trouble := _utf8_trouble(str(path)) or id_trouble(slide_id):
            problems.append((0, f"the file name {str(path)!r} {trouble}; rename it"))
    refuse(folder, problems + repeated_ids(rows))
    return SlideList(tuple(sorted(rows, key=lambda row: row.slide_id)), folder, tuple(notes))


def _without_copies(
    folder: Path, paths: Sequence[PurePosixPath], problems: list[Problem]
) -> tuple[list[PurePosixPath], list[str]]:
    """The paths without copies, and notes on the copies; copies named after different cases go to `problems`."""
    dropped: dict[PurePosixPath, PurePosixPath] = {}
    for group in copies_of_slides([Path(folder / path) for path in paths]):
        cases = {paths[i]: barcode.case_id for i in group if (barcode := barcode_of_path(paths[i].parts))}
        kept = next(iter(cases), paths[group[0]])
        if len(set(cases.values())) > 1:
            named = " and ".join(f"{path} ({case})" for path, case in cases.items())
            problems.append((0, f"{named} are copies of one slide, named after different cases; remove one"))
        dropped |= {paths[i]: kept for i in group if paths[i] != kept}
    return [path for path in paths if path not in dropped], passed_over(
        dropped, "copy of a listed slide", "copies of listed slides"
    )


def _utf8_trouble(path: str) -> str:
    """Why a path cannot be written to a CSV file; empty if it can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""
