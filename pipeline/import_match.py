"""Which slide a file of features is of, by its name alone.

A file is called by the slide's id, or as the slide's file is without its ending. TRIDENT takes `.ome` off `x.ome.tif`
as well, STAMP and others do not: both are understood. Where a name could be that of two slides, nobody knows whose
features they are: both fail, and the others go on. What it leaves out: looking into the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.imported import ImportedSlide
from pipeline.manifest import ManifestRow, parse_manifest
from pipeline.manifest_sources import rows_from_folder
from pipeline.plan import AuditRow
from pipeline.tool_config import ImportConfig

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


def match_slides(files: Mapping[str, Path], config: ImportConfig) -> Matched:
    """Find the slide of every file of features; `files` are by their names without ending.

    Raises:
        ManifestError: the manifest or the folder of slides cannot be used.
    """
    if config.manifest:
        manifest = parse_manifest(config.manifest, config.slides_root)
        rows, root = list(manifest.rows), manifest.slides_root
    else:
        rows, root = rows_from_folder(config.slides_root), config.slides_root
    by_name = _by_name(rows, files, ids_are_given=config.manifest is not None)
    pairs: dict[str, tuple[ManifestRow, Path]] = {}
    unclear: dict[str, str] = {}
    slides_of_unclear: dict[str, str] = {}
    failed = []
    for name, path in files.items():
        found = by_name.get(name, [])
        if len(found) > 1:
            slides = " or ".join(str(root / row.path) for row in found)
            reason = (f"{path}: is it of {slides}? Name the slides' files apart, or give a --manifest whose slide_id "
                      "is the name of the file of features")  # fmt: skip
            unclear[name] = reason
            slides_of_unclear |= {row.slide_id: name for row in found}
        elif not found:
            where = config.manifest or config.slides_root
            failed.append(ImportedSlide(AuditRow(name, "failed", f"{path}: no slide {name} in {where}")))
        elif found[0].slide_id in pairs:
            failed.append(ImportedSlide(AuditRow(name, "failed", f"{path}: the slide has another file")))
        else:
            pairs[found[0].slide_id] = (found[0], path)
    for row in rows:
        if row.slide_id not in pairs:
            of_two = slides_of_unclear.get(row.slide_id)
            reason = unclear[of_two] if of_two else f"{root / row.path}: no file of features for this slide"
            failed.append(ImportedSlide(AuditRow(row.slide_id, "failed", reason, row.path, row.case_id)))
    told = {name for slide_id, name in slides_of_unclear.items() if slide_id not in pairs}
    failed += [ImportedSlide(AuditRow(name, "failed", why)) for name, why in unclear.items() if name not in told]
    return Matched(tuple(pairs[slide_id] for slide_id in sorted(pairs)), tuple(failed), root)


def _by_name(
    rows: Sequence[ManifestRow], files: Mapping[str, Path], *, ids_are_given: bool
) -> dict[str, list[ManifestRow]]:
    """Slides by the names that a file of theirs may have. An id that a manifest gives is nobody else's name."""
    found: dict[str, list[ManifestRow]] = {}
    for row in rows:
        stem = Path(row.path).stem
        names = {row.slide_id, stem}
        if stem.lower().endswith(OME) and not names & files.keys():
            names.add(stem[: -len(OME)])
        for name in names:
            found.setdefault(name, []).append(row)
    if ids_are_given:
        found |= {row.slide_id: [row] for row in rows}
    return found
