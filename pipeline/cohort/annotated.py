"""Annotations of the slides of a manifest: read them, see that the classes asked for exist, notice changed files."""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.base.console import Progress, counted, say
from pipeline.base.errors import AnnotationError, ConfigError, PlanError, SlideError, Source, did_you_mean
from pipeline.base.outside import NO_FILE, file_trouble, one_line
from pipeline.cohort.audit import EXCLUDED
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.config.class_rules import ClassRules, capitals_apart
from pipeline.config.groups import AnnotationOrigin, SampleMethod
from pipeline.config.staging import StageFolder
from pipeline.disk.files import sha256_file
from pipeline.disk.label_words import spelling_notes
from pipeline.slides.annotations.read import read_annotations
from pipeline.slides.annotations.regions import Annotations
from pipeline.slides.annotations.tissue_geojson import corrected_path
from pipeline.slides.reader import Slide
from pipeline.slides.staging.one import copy_of_slide

NO_ANNOTATIONS = "no row of the manifest has annotations; its column `annotations` names their files"
MOST_UNREAD = 3
"""Slides of which an error says why their annotations could not be read. Our choice."""
MOST_CLASSES = 40
"""Classes that an error lists. Our choice: a screenful."""
MOST_KEPT_BYTES = 256 << 20
"""Bytes of regions that are kept between the search for classes and the plan. Our choice: some 100,000 outlines of a
hundred points.
"""


class SeenAnnotations:
    """Annotations that were read in the search for classes, for the plan to take instead of reading them once more.

    As many as fit into `MOST_KEPT_BYTES`. One is given out once, and only for the same file and the same slide.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Annotations]] = {}
        self._num_bytes = 0
        self._lock = threading.Lock()

    def keep(self, slide_id: str, known_by: object, annotations: Annotations) -> None:
        """Keep what was read, if there is room; `known_by` says of what file and slide."""
        if self._num_bytes + (num_bytes := annotations.source.num_bytes()) <= MOST_KEPT_BYTES:
            self._kept[slide_id], self._num_bytes = (known_by, annotations), self._num_bytes + num_bytes

    def take(self, slide_id: str, ask: Callable[[], object]) -> Annotations | None:
        """Give out what was read of this file and slide, and let go of it; `None` if it was not kept. Only where it was
        is it asked what it must be known by.
        """
        with self._lock:
            kept = self._kept.pop(slide_id, None)
        if kept is None:
            return None
        known_by, annotations = kept
        return annotations if ask() == known_by else None


def slide_annotations(
    manifest: Manifest, row: ManifestRow, slide: Slide, origin: AnnotationOrigin, seen: SeenAnnotations | None = None
) -> Annotations | None:
    """The annotations of a slide; `None` if the manifest gives none. `origin` is where coordinates count from; `seen`
    are those that have been read already.

    Raises:
        SlideError: the file cannot be read, or is not of this slide.
    """
    path = manifest.annotations_path(row)
    if path is None:
        return None
    if seen is not None:
        annotations = seen.take(row.slide_id, partial(_known_by, path, slide, origin))
        if annotations is not None:
            return annotations
    names = {row.slide_id, Path(row.path).stem, slide.path.stem}
    try:
        return read_annotations(
            path,
            size_l0_px=slide.info.size_l0_px,
            mpp=slide.info.mpp,
            slide_names=names,
            scanned_l0_px=slide.info.bounds_l0_px,
            origin=origin,
        )
    except AnnotationError as error:
        raise SlideError(str(error), about="annotations") from None


def _known_by(path: Path, slide: Slide, origin: AnnotationOrigin) -> tuple[object, ...]:
    """What decides how annotations are read: their bytes, the slide's facts, the option.

    Raises:
        SlideError: the file cannot be read.
    """
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {one_line(error)}", about="annotations") from None
    return digest, slide.path, slide.info.size_l0_px, slide.info.mpp, slide.info.bounds_l0_px, origin


def file_hashes(manifest: Manifest, row: ManifestRow, tissue_from: Path | None) -> dict[str, str]:
    """SHA-256 of the files that decide about a slide's patches beside the slide itself, by their columns of the audit:
    its annotations, and its corrected tissue; "" for one that is not given or is not there.

    Raises:
        SlideError: one cannot be read.
    """
    corrected = tissue_from and corrected_path(tissue_from, row.slide_id)
    files: dict[Source, Path | None] = {"annotations": manifest.annotations_path(row), "tissue": corrected}
    hashes = {}
    for about, path in files.items():
        try:
            hashes[f"{about}_sha256"] = sha256_file(path) if path and path.is_file() else ""
        except OSError as error:
            raise SlideError(f"{path} cannot be read: {one_line(error)}", about=about) from None
    return hashes


def class_areas(annotations: Annotations | None) -> dict[str, str]:
    """The audit's column of the area of each class, mm2; nothing without annotations."""
    if annotations is None:
        return {}
    areas = {name: round(area / 1e6, 4) for name, area in annotations.areas_um2.items()}
    return {"classes_mm2": json.dumps(areas, sort_keys=True, ensure_ascii=False)}


def class_spelling_notes(slides: Iterable[Mapping[str, Sequence[str]]]) -> list[str]:
    """What to know of the names of classes over a cohort: those that slides spell differently and that were taken as
    one, and those that differ so little that they may be meant as one, and were not taken so. `slides` has, for each
    slide, how its annotations spell each class (`Annotations.spellings`).
    """
    counts: dict[str, Counter[str]] = {}
    for spellings in slides:
        for name, written in spellings.items():
            counts.setdefault(name, Counter()).update(written)
    notes = [
        f"class {name} is spelled in {len(by)} ways, taken as one: "
        + ", ".join(f"{written!a} ({counted(number, 'slide')})" for written, number in sorted(by.items()))
        for name, by in sorted(counts.items())
        if len(by) > 1
    ]
    return notes + spelling_notes("classes of annotations", counts)


def require_tissue_files(folder: Path, manifest: Manifest) -> None:
    """See that a folder of corrected tissue is there and has the file of some slide, before slides are planned.

    Raises:
        ConfigError: it is no folder that can be read, or has none.
    """
    why = "" if os.path.isdir(folder) else file_trouble(folder) or "it is a file"
    paths = [corrected_path(folder, row.slide_id) for row in manifest.rows]
    is_empty = not why and bool(paths) and not any(map(os.path.lexists, paths))
    if is_empty and (trouble := file_trouble(paths[0])) != NO_FILE:
        why = trouble
    if why:
        raise ConfigError(f"--tissue-from {folder} is not a folder that can be read: {why}")
    if is_empty:
        raise ConfigError(
            f"--tissue-from {folder} has the file of no slide that is planned; that of the first would be "
            f"{paths[0].name}. `g2l plan --tissue-geojson` writes them"
        )


def require_known_classes(
    manifest: Manifest,
    rules: ClassRules,
    method: SampleMethod,
    stage: StageFolder | None = None,
    origin: AnnotationOrigin = "auto",
) -> SeenAnnotations:
    """See that some slide has each class that an option names, before slides are planned; and that some slide has
    annotations, where a sample is drawn by them. The manifest's rows are those that will be planned.

    Reads annotations, slide by slide, only until all these classes have been seen, and shows how far it is; returns
    what it read, for the plan. Slides that cannot be opened or whose annotations cannot be read are passed over: their
    audit says why, or the error. One in a bucket is copied into `stage`.

    Raises:
        PlanError: no slide has a class, or no slide has annotations.
    """
    missing, classes, unread, empty = dict(rules.named), set[str](), list[str](), list[str]()
    annotated = [row for row in manifest.rows if row.annotations]
    if method == "class" and not annotated:
        raise PlanError(f"--sample class: {NO_ANNOTATIONS}")
    seen = SeenAnnotations()
    if not missing:
        return seen
    with Progress("looking for classes", len(annotated), "slides") as progress:
        for row in annotated:
            try:
                annotations = _read_ahead(manifest, row, stage, origin, seen)
            except SlideError as error:
                unread.append(f"{row.slide_id}: {error}")
                continue
            finally:
                progress.step()
            classes.update(annotations.classes if annotations else ())
            empty += _left_out(row.slide_id, annotations)
            missing = {name: flag for name, flag in missing.items() if name not in classes}
            if not missing:
                return seen
    raise PlanError(_unknown_classes(missing, sorted(classes), bool(annotated), unread, empty))


def _read_ahead(
    manifest: Manifest, row: ManifestRow, stage: StageFolder | None, origin: AnnotationOrigin, seen: SeenAnnotations
) -> Annotations | None:
    """Read the annotations of a slide before it is planned, and keep them in `seen`.

    Raises:
        SlideError: the slide cannot be opened, or its annotations cannot be read.
    """
    path, file = manifest.slide_path(row), manifest.annotations_path(row)
    with copy_of_slide(path, stage, tell=say) as copy:
        slide = Slide(path, row.mpp, mpp_overrides=row.mpp_overrides is not None, copy=copy)
        known_by = _known_by(file, slide, origin) if file is not None else None
        annotations = slide_annotations(manifest, row, slide, origin)
    if annotations is not None:
        seen.keep(row.slide_id, known_by, annotations)
    return annotations


def _left_out(slide_id: str, annotations: Annotations | None) -> list[str]:
    """What was left out of annotations that hold no class."""
    if annotations is None or annotations.classes or not annotations.notes:
        return []
    return [f"{slide_id}: {'; '.join(annotations.notes)}"]


def _unknown_classes(
    missing: Mapping[str, str], classes: list[str], is_annotated: bool, unread: Sequence[str], empty: Sequence[str]
) -> str:
    """What to say of classes that no slide has; `unread` is why some slides' annotations could not be read, `empty`
    what was left out of those that hold no class.
    """
    lines = [
        f"{flag} {name}: no slide has this class{capitals_apart(name, classes) or did_you_mean(name, classes)}"
        for name, flag in missing.items()
    ]
    if not is_annotated:
        return "\n".join([*lines, NO_ANNOTATIONS])
    more = f" and {len(classes) - MOST_CLASSES} more" if len(classes) > MOST_CLASSES else ""
    listing = ", ".join(classes[:MOST_CLASSES]) + more
    if not unread:
        lines.append(f"The annotations have {listing or 'no class at all'}")
        return "\n".join([*lines, *empty[:MOST_UNREAD]])
    others = f"Those of other slides have {listing}. " if listing else ""
    left = f"\nand {len(unread) - MOST_UNREAD} more" if len(unread) > MOST_UNREAD else ""
    which = counted(len(unread), "slide")
    why = "\n".join(unread[:MOST_UNREAD])
    return "\n".join([*lines, f"{others}The annotations of {which} could not be read:", f"{why}{left}"])


def changed_annotations(plan: Plan, manifest: Manifest, tissue_from: Path | None) -> list[str]:
    """How the files of annotations and of corrected tissue differ from those that a plan was made from, a line a file.

    Raises:
        SlideError: one cannot be read.
    """
    rows = {row.slide_id: row for row in manifest.rows}
    lines = []
    for audit in (row for row in plan.audit if row.status != EXCLUDED):  # of those nothing was read
        now = file_hashes(manifest, rows[audit.slide_id], tissue_from) if audit.slide_id in rows else {}
        for column, digest in now.items():
            if digest != getattr(audit, column):
                words = "its file of annotations" if column == "annotations_sha256" else "its file in --tissue-from"
                lines.append(f"{audit.slide_id}: another content of {words}, or none")
    return lines
