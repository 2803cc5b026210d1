"""Pictures of a plan: each slide with its tissue and patches, and which patches go onto the sheet of dropped ones."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.console import Progress, say
from pipeline.base.errors import SlideError
from pipeline.base.units import format_area
from pipeline.cohort.annotated import slide_annotations
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.object_slides import copy_to_audit, staged_objects
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.config.groups import TissueFiles
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.places import ObjectPath
from pipeline.slides.annotations.on_grid import eligible_grid
from pipeline.slides.annotations.tissue_geojson import write_tissue, written_corner
from pipeline.slides.artefacts.dropped import DroppedPatch, choose_dropped
from pipeline.slides.overlay import draw_overlay
from pipeline.slides.reader import Slide, slide_failures
from pipeline.slides.tissue_grid import TissueGrid


def show_slide(
    slide: Slide,
    row: ManifestRow,
    laid: TissueGrid,
    part: SlidePlan,
    audit: AuditRow,
    overlays: Path | None,
    tissue_files: TissueFiles,
) -> tuple[DroppedPatch, ...]:
    """Write a slide's overlay and its tissue, where folders are given for them; its patches for the sheet, none of a
    slide in a bucket.

    Raises:
        OSError: one cannot be written.
    """
    if tissue_files.write_to is not None:
        write_tissue(laid.tissue, row.slide_id, tissue_files.write_to, written_corner(slide, tissue_files.origin))
    if overlays is None:
        return ()
    draw_sample(laid, part, audit, overlays)
    if isinstance(slide.path, ObjectPath):  # the sheet reads its patches later, when the copy has gone
        return ()
    return choose_dropped(slide, row.slide_id, laid, row.mpp, row.mpp_overrides is not None)


def draw_sample(grid: TissueGrid, part: SlidePlan, audit: AuditRow, folder: Path) -> None:
    """Draw the overlay of a slide's tissue and patches.

    Raises:
        OSError: it cannot be written.
    """
    num, available = len(part.coords_l0_px), len(grid.coords_l0_px)
    title = f"{part.slide_id}: {format_area(audit.tissue_mm2 or 0)} mm2 of tissue, {num:,} of {available:,} patches"
    draw_overlay(
        grid.tissue,
        grid.coords_l0_px,
        part.coords_l0_px,
        part.split,
        grid.geometry.patch_l0_px,
        title,
        folder / f"{part.slide_id}.png",
    )


def draw_late_overlays(
    plan: Plan,
    parts: Sequence[SlidePlan],
    manifest: Manifest,
    folder: Path | None,
    tissue_files: TissueFiles,
    stage: StageFolder | None = None,
) -> list[DroppedPatch]:
    """Draw the overlays of the slides whose patches were chosen when all had been audited, `parts`, of some of which
    none is left; reads each slide once more, one in a bucket from another copy in `stage`. Returns their patches for
    the sheet.

    Raises:
        OSError: one cannot be written.
    """
    if folder is None or not plan.config.cuts_late:
        return []
    audit, rows = {row.slide_id: row for row in plan.audit}, {row.slide_id: row for row in manifest.rows}
    grid, sampling = plan.config.grid, plan.config.sampling
    dropped: list[DroppedPatch] = []
    ordered = [rows[part.slide_id] for part in parts]
    with staged_objects(manifest, ordered, stage) as staging, Progress("drawing", len(parts), "slides") as progress:
        for part, row in zip(parts, ordered, strict=True):
            path = plan.slide_path(part)
            with copy_to_audit(path, staging) as (copy, why):
                try:
                    if why:
                        raise SlideError(why)
                    slide = Slide(path, row.mpp, mpp_overrides=row.mpp_overrides is not None, copy=copy)
                    with slide_failures(path):
                        annotations = slide_annotations(manifest, row, slide, tissue_files.origin)
                        laid = eligible_grid(slide, row.slide_id, annotations, grid, sampling, tissue_files)
                except SlideError as error:
                    say(f"note: {part.slide_id} has no overlay: {error}")
                else:
                    dropped += show_slide(slide, row, laid, part, audit[part.slide_id], folder, TissueFiles())
            progress.step()
    return dropped
