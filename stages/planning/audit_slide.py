"""Audit one slide: open it, find its tissue, sample its patches, and say what is known of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import say
from pipeline.base.errors import SlideError, Source
from pipeline.cohort.annotated import SeenAnnotations, class_areas, file_hashes, slide_annotations
from pipeline.cohort.audit import AuditRow, split_column
from pipeline.cohort.copies import pixels_digest
from pipeline.cohort.draws.by_method import sample_of_slide
from pipeline.cohort.draws.candidates import NONE_READABLE, describe_candidates
from pipeline.cohort.leakage.rescans import SlidePrint, slide_print
from pipeline.cohort.manifest.rows import Manifest, ManifestRow, row_hash, row_split
from pipeline.cohort.plan import SlidePlan
from pipeline.config.groups import Grid, Sampling, TissueFiles
from pipeline.sampling import GAP, SPLIT_NAMES, split_strip
from pipeline.slides.annotations.on_grid import eligible_grid, source_of_notes
from pipeline.slides.artefacts.dropped import DroppedPatch
from pipeline.slides.artefacts.rules import dropped_mm2
from pipeline.slides.identity import check_sha256
from pipeline.slides.patch_sample import PatchSample, measure_patches
from pipeline.slides.reader import Slide, slide_failures
from pipeline.slides.tissue_grid import TissueGrid, covering_rules
from pipeline.slides.whole_slide import long_reading_note
from stages.reports.plan_pictures import show_slide

TISSUE_EVERYWHERE = 0.95
"""The audit warns if more than this share of the scanned area counts as tissue. Our choice."""


@dataclass(frozen=True)
class Audited:
    """Result for one slide: its audit row, and its part of the plan unless it failed. `pixels` tells copies, `look`
    scans of one slide, `sample` how fast patches are read, `dropped` are for the sheet, `facts`, uint16 (N, D), what
    its candidates look like with `--sample cluster`, `spellings` how its annotations spell each class, and `about` what
    of it is at fault, or to be warned of; all these are kept nowhere.
    """

    audit: AuditRow
    slide: SlidePlan | None
    pixels: str | None = None
    sample: PatchSample | None = None
    look: SlidePrint | None = None
    dropped: tuple[DroppedPatch, ...] = ()
    facts: NDArray[np.uint16] | None = None
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    about: Source = "slide"


def audit_slide(
    row: ManifestRow,
    manifest: Manifest,
    grid: Grid,
    sampling: Sampling,
    check_file: bool,
    overlays: Path | None,
    num_measured: int,
    tissue_files: TissueFiles = TissueFiles(),
    cuts_late: bool = False,
    copy: Path | None = None,
    seen: SeenAnnotations | None = None,
) -> Audited:
    """Audit one slide; a failing slide is reported in its audit row.

    Args:
        check_file: whether its SHA-256 must be the manifest's, if that gives one.
        overlays: folder for its picture.
        num_measured: patches to encode, to estimate how many bytes pixels will take.
        tissue_files: folders that its tissue is read from and written to.
        cuts_late: whether its patches are chosen later; unless it has none, its picture is drawn later too.
        copy: of a slide in a bucket (`cohort.object_slides`); its SHA-256 was compared where `check_file` asks for it.
        seen: annotations that were read already.

    Raises:
        OSError: its overlay or its tissue cannot be written.
    """
    known = known_of(row)
    path, read_from = manifest.slide_path(row), tissue_files.read_from
    slide: Slide | None = None
    try:
        known |= file_hashes(manifest, row, read_from)
        if check_file and row.sha256 and copy is None:
            check_sha256(path, row.sha256)
        slide = Slide(path, row.mpp, mpp_overrides=row.mpp_overrides is not None, copy=copy)
        if note := long_reading_note(slide):
            say(f"note: {note}")
        with slide_failures(path):
            annotations = slide_annotations(manifest, row, slide, tissue_files.origin, seen)
            laid = eligible_grid(slide, row.slide_id, annotations, grid, sampling, tissue_files)
            known |= class_areas(annotations)
            part = sample_slide(row, slide, laid, sampling)
            part, looks, unread = describe_candidates(slide, part) if sampling.looks_at_once else (part, None, "")
            sample = measure_patches(slide, part.coords_l0_px, laid.geometry, num_measured)
            audit = audit_open_slide(slide, laid, part, known, sample).with_warning(unread)
        tissue = laid.tissue
        pixels = pixels_digest(tissue.thumbnail, tissue.unreadable, slide.info.size_l0_px)
        look = slide_print(tissue.thumbnail, tissue.mask, tissue.unreadable, tissue.pixel_l0_px * slide.info.mpp)
    except SlideError as error:
        facts = slide.info.audit_facts() if slide else dict(error.facts)
        return Audited(AuditRow(**known, status="failed", reason=str(error), **facts), None, about=error.about)
    spellings = annotations.spellings if annotations else {}
    about = source_of_notes(laid, annotations, read_from)
    pictures = None if cuts_late and len(part.coords_l0_px) else overlays
    dropped = show_slide(slide, row, laid, part, audit, pictures, tissue_files)
    if not len(part.coords_l0_px):
        return Audited(audit, None, dropped=dropped, spellings=spellings, about=about)
    return Audited(audit, part, pixels, sample, look, dropped, looks, spellings, about)


def known_of(row: ManifestRow) -> dict[str, Any]:
    """The columns of the audit that come from the manifest."""
    return {
        "slide_id": row.slide_id,
        "path": row.path,
        "case_id": row.case_id,
        "center": row.center or "",
        "row_hash": row_hash(row),
    }


def sample_slide(row: ManifestRow, slide: Slide, grid: TissueGrid, sampling: Sampling) -> SlidePlan:
    """Sample a slide's patches, perhaps none, and assign their split."""
    available, classes = grid.coords_l0_px, grid.classes
    if sampling.val_strip is None:
        split = np.full(len(available), SPLIT_NAMES.index(row_split(row, sampling.val_fraction)), np.uint8)
    else:
        split = split_strip(available, grid.geometry.patch_l0_px, sampling.val_strip)
    if classes:
        classes = classes.take(split != GAP)
    candidates, split = available[split != GAP], split[split != GAP]
    taken = sample_of_slide(row.slide_id, candidates, classes, sampling)
    return SlidePlan(
        slide_id=row.slide_id,
        path=row.path,
        case_id=row.case_id,
        center=row.center,
        manifest_mpp=row.mpp,
        quickhash=slide.info.quickhash,
        size_l0_px=slide.info.size_l0_px,
        geometry=grid.geometry,
        coords_l0_px=candidates[taken],
        split=split[taken],
        labels=dict(row.labels),
        identity_facts=slide.identity().record(),
        has_case=row.has_case,
        classes=classes.take(taken) if classes else None,
    )


def audit_open_slide(
    slide: Slide, grid: TissueGrid, part: SlidePlan, known: dict[str, Any], sample: PatchSample
) -> AuditRow:
    """Audit row of a slide that could be opened; `known` has the columns from the manifest."""
    tissue, coords = grid.tissue, part.coords_l0_px
    mm2 = (tissue.pixel_l0_px * slide.info.mpp / 1000) ** 2
    unreadable_mm2 = float(tissue.unreadable.sum() * mm2)
    status, reason = ("damaged", "part of it cannot be read") if unreadable_mm2 else ("ok", "")
    if not len(coords):
        status, reason = "failed", grid.why_empty or NONE_READABLE
    warnings = [*slide.info.warnings, *grid.warnings]
    scanned_l0_px = math.prod(slide.info.bounds_l0_px[2:]) * (1 - tissue.bare)
    covered = float(tissue.mask.sum()) * tissue.pixel_l0_px**2 / max(scanned_l0_px, 1)
    if covered > TISSUE_EVERYWHERE and not unreadable_mm2:
        warnings.append(f"{min(covered, 1):.0%} of it counts as tissue: is there no glass, or is glass taken for it?")
    warnings += sample.warnings()
    return AuditRow(
        **known | slide.info.audit_facts() | sample.audit_facts() | {"warnings": "; ".join(warnings)},
        status=status,
        reason=reason,
        split=split_column(part.split),
        level_read=grid.geometry.level,
        tissue_mm2=round(float(tissue.mask.sum() * mm2), 3),
        dropped_mm2=json.dumps(areas) if (areas := dropped_mm2(tissue, mm2)) else "",
        unreadable_mm2=round(unreadable_mm2, 3),
        patches_available=len(grid.coords_l0_px),
        patches_taken=len(coords),
        patches_covered=int(grid.rejected_covered.sum()),
        covered_by=json.dumps(covering) if (covering := covering_rules(grid)) else "",
    )
