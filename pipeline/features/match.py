"""Which slide a file of features is of, by its name and, of STAMP's, by its place.

A file is called by the slide's id, or as the slide's file is without its ending. TRIDENT takes `.ome` off `x.ome.tif`
as well, STAMP and others do not: both are understood. STAMP keeps the subfolders of the slides: where slides or files
have one name, they tell which is whose. Where a file could still be of two slides, nobody knows whose features they
are: both fail, and so do two files that could be of one slide; the others go on. What it leaves out: looking into the
files.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.console import say
from pipeline.cohort.copies import copies_of_slides
from pipeline.cohort.manifest import ManifestRow, parse_manifest
from pipeline.cohort.plan import AuditRow
from pipeline.cohort.sources import list_folder
from pipeline.config.tools import ImportConfig
from pipeline.disk.file_names import file_named
from pipeline.disk.tables import composed
from pipeline.features.importing import ImportedSlide

OME = ".ome"
"""Part of the ending of OME-TIFF, `.ome.tif` (docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff)."""


@dataclass(frozen=True)
class Matched:
    """Slides with their files of features, in the order of ids; what has none or no single one, as failed; and the
    folder below which paths hang.
    """

    pairs: tuple[tuple[ManifestRow, Path], ...]
    failed: tuple[ImportedSlide, ...]
    root: Path


def match_slides(files: Mapping[str, Path], config: ImportConfig, tree: Path | None = None) -> Matched:
    """Find the slide of every file of features; `files` are by their names without ending, or by more where that is
    not one file's; `tree` is the folder that they lie in.

    Raises:
        ManifestError: the manifest or the folder of slides cannot be used.
    """
    if config.manifest:
        manifest = parse_manifest(config.manifest, config.slides_root)
        rows, root = list(manifest.rows), manifest.slides_root
    else:
        listed = list_folder(config.slides_root)
        for note in listed.notes:
            say(f"note: {config.slides_root}: {note}")
        rows, root = list(listed.rows), config.slides_root
    meant, reasons = _meant(rows, root, files, tree, config)
    pairs: dict[str, tuple[ManifestRow, Path]] = {}
    unclear: dict[str, list[str]] = {}
    failed = []
    for name, path in files.items():
        if name in reasons:
            for row in meant[name]:
                unclear.setdefault(row.slide_id, []).append(name)
        else:
            pairs[meant[name][0].slide_id] = (meant[name][0], path)
    told = set()
    for row in rows:
        if row.slide_id in pairs:
            continue
        reason = f"{root / row.path}: no file of features for this slide"
        if of := unclear.get(row.slide_id):
            first = row.slide_id if row.slide_id in of else of[0]
            reason = reasons[first]
            told.add(first)
        failed.append(ImportedSlide(AuditRow(row.slide_id, "failed", reason, row.path, row.case_id)))
    failed += [ImportedSlide(AuditRow(name, "failed", why)) for name, why in reasons.items() if name not in told]
    return Matched(tuple(pairs[slide_id] for slide_id in sorted(pairs)), tuple(failed), root)


def _meant(
    rows: Sequence[ManifestRow], root: Path, files: Mapping[str, Path], tree: Path | None, config: ImportConfig
) -> tuple[dict[str, list[ManifestRow]], dict[str, str]]:
    """The slides that each file may be of, by the file's name, and why it is of none, where it is not of one."""
    num_same = Counter(composed(path.stem) for path in files.values())
    by_name = _by_name(rows, num_same.keys())
    meant = {name: by_name.get(composed(path.stem), []) for name, path in files.items()}
    by_place = _by_place(meant, files, root, tree) if tree else {}
    keeps_places = any(files[name].parent != tree for name in by_place)
    reasons, where = {}, config.manifest or config.slides_root
    for name, path in files.items():
        found = meant[name]
        is_disputed = config.manifest is not None and _is_disputed(composed(path.stem), found)
        if not found:
            reasons[name] = f"{path}: no slide {path.stem} in {where}"
        elif is_disputed:
            reasons[name] = (f"{path}: is it of {_paths(found, root)}? In {where}, {path.stem} is one's "
                             "slide_id and the other's file. Give slide_ids that are no other file's name")  # fmt: skip
        elif name not in by_place and (keeps_places or num_same[composed(path.stem)] > 1):
            others = "other slides do" if keeps_places else "other files have this name"
            reasons[name] = (f"{path}: no slide of this name lies below {root} as this file does below {tree}, and "
                             f"{others}. Are these the folder of STAMP's extractor, and the folder of slides that it "
                             "read?")  # fmt: skip
        else:
            found = by_place.get(name, found)
            if config.manifest and all(_stem(row) == composed(path.stem) for row in found):
                found = [row for row in found if composed(row.slide_id) == composed(path.stem)] or found
            meant[name] = found
        if name not in reasons and len(meant[name]) > 1:
            reasons[name] = (f"{path}: is it of {_paths(meant[name], root)}? Name the slides' files apart, or give a "
                             "--manifest whose slide_id is the name of the file of features")  # fmt: skip
    claims = Counter(found[0].slide_id for name, found in meant.items() if name not in reasons)
    for name, path in files.items():
        if name not in reasons and claims[meant[name][0].slide_id] > 1:
            reasons[name] = f"{path}: another file could be of {_paths(meant[name], root)}, too. Which one is?"
    return meant, reasons


def _is_disputed(name: str, rows: Sequence[ManifestRow]) -> bool:
    """Whether a name is the id of one slide and of another only the file's. Of slides whose files have one name, the id
    tells which is meant.
    """
    return len(rows) > 1 and any(composed(row.slide_id) == name != _stem(row) for row in rows)


def _stem(row: ManifestRow) -> str:
    """The name of a slide's file without its ending, accents composed."""
    return composed(Path(row.path).stem)


def _paths(rows: Sequence[ManifestRow], root: Path) -> str:
    return " or ".join(str(root / row.path) for row in rows)


def _by_name(rows: Sequence[ManifestRow], stems: Set[str]) -> dict[str, list[ManifestRow]]:
    """Slides by the names that a file of theirs may have; `stems` are the names that there are. All are composed."""
    found: dict[str, list[ManifestRow]] = {}
    for row in rows:
        stem = _stem(row)
        names = {composed(row.slide_id), stem}
        if stem.lower().endswith(OME) and not names & stems:
            names.add(stem[: -len(OME)])
        for name in names:
            found.setdefault(name, []).append(row)
    return found


def _by_place(
    meant: Mapping[str, Sequence[ManifestRow]], files: Mapping[str, Path], root: Path, tree: Path
) -> dict[str, list[ManifestRow]]:
    """Of the slides that each file may be of, those at its place, as STAMP keeps it; only where there are some.

    If every file that has a slide has one at the same path below `root` as its own below `tree`, that is its place.
    Otherwise STAMP read another folder of slides: then a slide is at its place if its path ends as the file's.
    """
    places = {
        name: composed(Path(os.path.relpath(path.with_suffix(""), tree)).as_posix()) for name, path in files.items()
    }
    if not any("/" in place for place in places.values()):
        return {}  # of a tool that keeps no subfolders, or of slides without
    top = composed(os.path.abspath(root))
    paths = {
        row.slide_id: composed(Path(os.path.abspath(root / row.path)).with_suffix("").as_posix())
        for found in meant.values()
        for row in found
    }
    same = {
        name: [row for row in found if paths[row.slide_id] == f"{top}/{places[name]}"] for name, found in meant.items()
    }
    if not all(same[name] for name, found in meant.items() if found):
        same = {
            name: [row for row in found if paths[row.slide_id].endswith(f"/{places[name]}")]
            for name, found in meant.items()
        }
    return {name: found for name, found in same.items() if found}


def fail_copies(slides: Sequence[ImportedSlide], root: Path) -> list[ImportedSlide]:
    """The slides, with those failed that are copies of another: all of them where they are of different cases, for it
    cannot be known whose they are, else all but the first. `root` is the folder below which paths hang.
    """
    well = [index for index, slide in enumerate(slides) if slide.slide is not None]
    kept = list(slides)
    for group in copies_of_slides([file_named(root / slides[index].audit.path) for index in well]):
        parts = [(well[i], part) for i in group if (part := slides[well[i]].slide) is not None]
        cases = {part.case_id for _, part in parts if part.has_case}
        names = " and ".join(str(root / part.path) for _, part in parts)
        for index, part in parts if len(cases) > 1 else parts[1:]:
            why = f"of several cases ({', '.join(sorted(cases))}); take out the wrong ones" if len(cases) > 1 else (
                f"taken once, as {parts[0][1].slide_id}")  # fmt: skip
            kept[index] = slides[index].failed(f"{root / part.path}: {names} are copies of one slide, {why}")
    return kept
