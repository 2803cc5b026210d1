"""Plan: audit every slide, find its tissue, sample its patches. Nothing after this decides anything.

G2L, section "Patch-based sampling": a fixed number of tissue patches from each of about 1,000 slides. The paper does
not say how they are drawn; here uniformly without replacement over the tissue grid.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cases import case_facts, cases_warning, counted_cases
from pipeline.config import PlanConfig
from pipeline.errors import PatchError, SlideError
from pipeline.files import sha256_file, sha256_json
from pipeline.geometry import PatchGeometry
from pipeline.images import encode_image
from pipeline.manifest import Manifest, ManifestRow, row_split
from pipeline.overlay import draw_overlay
from pipeline.plan import AuditRow, Plan, SlidePlan, build_plan
from pipeline.runlog import Progress, counted, table
from pipeline.sampling import GAP, SPLITS, TRAIN, VAL, rank_slides, sample_patches, split_strip
from pipeline.slides import Slide
from pipeline.tables import write_records
from pipeline.tissue_grid import lay_grid
from pipeline.units import format_bytes

ASSUMED_WIDTH = 1536
"""Width of the embedding in the estimate: the paper's teacher, H-optimus-0."""
ASSUMED_ROWS_PER_SHARD = 2048
TABLE_LINES = 40
"""Slides shown in the terminal; failed ones are always shown, the CSV has all."""


@dataclass(frozen=True)
class Audited:
    """What came of one slide: its audit row, and its part of the plan unless it failed."""

    audit: AuditRow
    slide: SlidePlan | None


def plan_slides(
    manifest: Manifest,
    config: PlanConfig,
    *,
    workers: int,
    overlays: Path | None = None,
    audit_csv: Path | None = None,
) -> Plan:
    """Audit the manifest's slides and make the plan; the result does not depend on the order of rows or on `workers`.

    The audit goes to `audit_csv` also when no plan comes of it.

    Raises:
        PlanError: no slide gives a patch.
    """
    rows = {row.slide_id: row for row in manifest.rows}
    chosen = rank_slides(sorted(rows), config.seed)[: config.max_slides]
    audited: list[Audited] = []
    with ThreadPoolExecutor(workers) as pool, Progress("planning", len(chosen), "slides") as progress:
        work = pool.map(lambda slide_id: audit_slide(rows[slide_id], manifest, config, overlays), sorted(chosen))
        for result in work:
            audited.append(result)
            progress.note(failed=sum(a.slide is None for a in audited))
            progress.step()
    if audit_csv is not None:
        write_audit([a.audit for a in audited], audit_csv)
    slides = [a.slide for a in audited if a.slide is not None]
    return build_plan(config.without_free(), slides, [a.audit for a in audited], manifest.slides_root.resolve())


def row_hash(row: ManifestRow) -> str:
    """A short hash of what a row of the manifest says that a plan depends on; labels are not among it."""
    return sha256_json([row.slide_id, row.path, row.case_id, row.center, row.mpp, row.split, row.sha256])[:16]


def audit_slide(row: ManifestRow, manifest: Manifest, config: PlanConfig, overlays: Path | None) -> Audited:
    """Look at one slide; a slide that fails is reported, never raised."""
    known: dict[str, Any] = {
        "slide_id": row.slide_id,
        "path": row.path,
        "case_id": row.case_id,
        "center": row.center or "",
        "row_hash": row_hash(row),
    }
    try:
        return _audit_open_slide(row, manifest.slide_path(row), config, overlays, known)
    except SlideError as error:
        return Audited(AuditRow(**known, status="failed", reason=str(error)), None)


def _audit_open_slide(
    row: ManifestRow, path: Path, config: PlanConfig, overlays: Path | None, known: dict[str, Any]
) -> Audited:
    if config.check_files and row.sha256:
        check_sha256(path, row.sha256)
    slide = Slide(path, row.mpp)
    info = slide.info
    grid = lay_grid(slide, config)
    geometry, tissue, available = grid.geometry, grid.tissue, grid.coords_l0_px

    if config.val_strip is None:
        split = np.full(len(available), SPLITS.index(row_split(row, config.val_fraction)), np.uint8)
    else:
        split = split_strip(available, geometry.patch_l0_px, config.val_strip)
    candidates, split = available[split != GAP], split[split != GAP]
    taken = sample_patches(row.slide_id, candidates, config.patches_per_slide, config.seed)
    coords, split = candidates[taken], split[taken]

    mm2 = (tissue.pixel_l0_px * info.mpp / 1000) ** 2
    unreadable_mm2 = float(tissue.unreadable.sum() * mm2)
    status, reason = ("damaged", "part of it cannot be read") if unreadable_mm2 else ("ok", "")
    if not len(coords):
        status, reason = "failed", grid.why_empty
    audit = AuditRow(
        **known,
        status=status,
        reason=reason,
        split="+".join(name for code, name in enumerate(SPLITS) if (split == code).any()),
        **info.audit_facts(),
        level_read=geometry.level,
        tissue_mm2=round(float(tissue.mask.sum() * mm2), 3),
        unreadable_mm2=round(unreadable_mm2, 3),
        patches_available=len(available),
        patches_taken=len(coords),
        pixel_bytes=_encoded_size(slide, coords, geometry) if len(coords) else None,
    )
    if overlays is not None:
        title = f"{row.slide_id}: {audit.tissue_mm2:.1f} mm2 of tissue, {len(coords):,} of {len(available):,} patches"
        draw_overlay(tissue, available, coords, split, geometry.patch_l0_px, title, overlays / f"{row.slide_id}.png")
    part = SlidePlan(
        slide_id=row.slide_id,
        path=row.path,
        case_id=row.case_id,
        center=row.center,
        manifest_mpp=row.mpp,
        quickhash=info.quickhash,
        size_l0_px=info.size_l0_px,
        geometry=geometry,
        coords_l0_px=coords,
        split=split,
        labels=dict(row.labels),
        has_case=row.has_case,
    )
    return Audited(audit, part if len(coords) else None)


def check_sha256(path: Path, sha256: str) -> None:
    """Compare a slide with the manifest.

    Raises:
        SlideError: it has another SHA-256, or cannot be read.
    """
    try:
        found = sha256_file(path)
    except OSError as error:
        raise SlideError(f"{path}: the slide cannot be read ({error.strerror})") from None
    if found != sha256.lower():
        raise SlideError(f"{path}: its SHA-256 is not the manifest's; the file is damaged or another one")


def _encoded_size(slide: Slide, coords: NDArray[np.int64], geometry: PatchGeometry) -> int | None:
    """Bytes of the slide's middle patch as lossless JPEG XL, or `None` if it cannot be read."""
    x, y = coords[len(coords) // 2]
    try:
        return len(encode_image(slide.read_patch(int(x), int(y), geometry), "jpegxl"))
    except PatchError:
        return None


def write_audit(rows: Sequence[AuditRow], path: Path) -> None:
    """The audit as CSV, one row a slide."""
    write_records(path, [asdict(row) for row in rows], [f.name for f in fields(AuditRow)])


def audit_table(plan: Plan) -> str:
    """The audit for the terminal: failed and damaged slides first, then the others, cut to a screenful."""
    order = sorted(plan.audit, key=lambda row: (row.status == "ok", row.slide_id))
    num_bad = sum(row.status != "ok" for row in order)
    shown = order[: max(TABLE_LINES, num_bad)]
    header = ("slide", "status", "um/px", "levels", "size", "tissue mm2", "available", "taken", "split")
    lines = [
        (row.slide_id, row.status, f"{row.mpp:.4g}", row.levels, f"{row.width} x {row.height}",
         "" if row.tissue_mm2 is None else row.tissue_mm2,
         row.patches_available, row.patches_taken, row.split)
        if row.mpp else (row.slide_id, row.status, "", "", "", "", "", "", "")
        for row in shown
    ]  # fmt: skip
    text = table(lines, header, right=(2, 3, 4, 5, 6, 7))
    if len(shown) < len(order):
        text += f"\n... and {len(order) - len(shown)} more in the CSV"
    reasons = [f"{row.slide_id}: {row.reason}" for row in order if row.reason]
    return "\n".join([text, *reasons])


def estimate(
    plan: Plan,
    *,
    width: int | None = ASSUMED_WIDTH,
    dtype: str = "float16",
    rows_per_shard: int = ASSUMED_ROWS_PER_SHARD,
    pixels: str = "jpegxl",
) -> str:
    """What stage one will write, in words: rows, shards, bytes of embeddings and of pixels; and what is odd of the
    split.

    `width` is `None` where the teacher's is not known before it is built.
    """
    rows, train, val = plan.num_rows, plan.count(TRAIN), plan.count(VAL)
    shard_rows = min(rows_per_shard, rows)
    centers = {s.center for s in plan.slides if s.center}
    if width is None:
        embeddings = f"{np.dtype(dtype).itemsize} bytes for each of them and each dimension of the teacher"
    else:
        size = format_bytes(rows * width * np.dtype(dtype).itemsize)
        embeddings = f"{size} of embeddings ({width}-d {dtype})"
    sizes = [row.pixel_bytes for row in plan.audit if row.pixel_bytes]
    lossless = format_bytes(float(np.mean(sizes)) * rows) if sizes else "an unknown amount"
    kept = {
        "jpegxl": f"about {lossless} of lossless pixels (measured on one patch a slide)",
        "jpeg": f"about half of {lossless} of JPEG pixels",
        "none": "no pixels",
    }[pixels]
    lines = [
        f"{counted(len(plan.slides), 'slide')} of {counted_cases(plan.slides)} and "
        f"{counted(len(centers), 'centre')}: {counted(rows, 'patch', 'patches')}, "
        f"{train:,} to train on and {val:,} held out.",
        f"Stage one will write {counted(-(-rows // shard_rows), 'shard')} of {counted(shard_rows, 'row')}: "
        f"{embeddings} and {kept}.",
    ]
    if plan.config.val_strip is None and (warning := cases_warning(case_facts(plan.slides))):
        lines.append(f"warning: {warning}")
    if not train:
        lines.append("warning: there is nothing to train on; see --val-fraction, --val-strip and the column split")
    if not val:
        lines.append("warning: nothing is held out, so a student cannot be scored; see --val-fraction and --val-strip")
    return "\n".join(lines)
