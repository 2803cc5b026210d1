"""Plan: audit every slide, find its tissue, sample its patches. Later stages make no choices of their own.

G2L, section "Patch-based sampling": a fixed number of tissue patches from each of about 1,000 slides. The paper does
not say how they are drawn; here, uniformly without replacement from the tissue grid, or as `--sample` says.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Progress, counted, say, table
from pipeline.base.cores import few_objects_to_look_at, give_back_memory
from pipeline.base.errors import SlideError, Source
from pipeline.base.images import require_lanczos
from pipeline.base.units import format_seconds
from pipeline.cohort.annotated import (
    SeenAnnotations,
    class_areas,
    class_spelling_notes,
    file_hashes,
    require_known_classes,
    require_tissue_files,
    slide_annotations,
)
from pipeline.cohort.audit import EXCLUDED, AuditRow, split_column, write_audit
from pipeline.cohort.copies import BY_PIXELS, BY_QUICKHASH, near_copies, near_copy_warning, pixels_digest
from pipeline.cohort.draws.budget import USUAL_PRICES, Prices, cut_to_budget
from pipeline.cohort.draws.by_cluster import cut_by_cluster
from pipeline.cohort.draws.by_method import sample_of_slide
from pipeline.cohort.draws.candidates import NONE_READABLE, PoolSampler, describe_candidates
from pipeline.cohort.draws.cluster_sheet import draw_cluster_examples
from pipeline.cohort.draws.cut import NOTHING_LEFT, balance_notes, balanced_by_center
from pipeline.cohort.leakage.exclusions import PartedRows, exclude_rows
from pipeline.cohort.leakage.rescans import SlidePrint, rescan_warnings, slide_print
from pipeline.cohort.manifest.checks import refuse_near_copies
from pipeline.cohort.manifest.rows import Manifest, ManifestRow, row_hash, row_split
from pipeline.cohort.object_slides import audit_of_uncopied, copy_to_audit, require_copies, staged_objects
from pipeline.cohort.plan import Plan, SlidePlan, in_order
from pipeline.config.budget import Budget
from pipeline.config.groups import Grid, Sampling, TissueFiles
from pipeline.config.plan import PlanConfig
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.places import as_place, real_name
from pipeline.sampling import GAP, SPLIT_NAMES, rank_slides, split_strip
from pipeline.slides import dicom
from pipeline.slides.annotations.on_grid import eligible_grid, source_of_notes
from pipeline.slides.artefacts.dropped import DroppedPatch, draw_dropped
from pipeline.slides.artefacts.rules import dropped_mm2
from pipeline.slides.identity import check_sha256
from pipeline.slides.patch_sample import PatchSample, measure_patches, patches_to_measure
from pipeline.slides.reader import Slide, slide_failures
from pipeline.slides.tissue_grid import TissueGrid, covering_rules
from pipeline.slides.whole_slide import long_reading_note
from stages.reports.plan_pictures import draw_late_overlays, show_slide

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


@dataclass(frozen=True)
class CheckedCohort:
    """What a plan is made from, once the options have been held against it.

    Attributes:
        sampler: the encoder of candidates, if there is one.
        parted: the manifest's rows, with and without the cases to exclude.
        planned: the rows that are planned, by slide id.
        seen: annotations that were read to look for classes.
    """

    sampler: PoolSampler | None
    parted: PartedRows
    planned: list[ManifestRow]
    seen: SeenAnnotations


def check_cohort(manifest: Manifest, config: PlanConfig, workers: int) -> CheckedCohort:
    """See whether a manifest can be planned by these options, before anything is written or a slide is opened.

    Raises:
        PlanError: no slide has a class that an option names.
        ConfigError: this torch cannot reduce patches, and the options ask for it; a list of cases cannot be used;
            slides in a bucket have no folder to be copied into; there are no files of corrected tissue.
        G2LError: there is no such encoder of candidates, or it has no such weights.
    """
    if config.resampling == "lanczos-torch":
        require_lanczos("--resampling lanczos-torch")
    if config.tissue_from and (config.use_rule or config.skip_rule != PlanConfig.model_fields["skip_rule"].default):
        say("note: --tissue-from takes the tissue from files, so --use-rule and --skip-rule change nothing")
    sampler = load_sampler(config, workers)
    parted = part_manifest(manifest, config.exclude_cases)
    planned = rows_to_plan(parted.kept, config.max_slides, config.seed)
    require_copies(manifest, planned, config.stage_folder)
    of_planned = replace(manifest, rows=tuple(planned))
    if config.tissue_from:
        require_tissue_files(config.tissue_from, of_planned)
    sampling = config.sampling
    classes, origin = sampling.classes, config.annotation_origin
    seen = require_known_classes(of_planned, classes, sampling.method, config.stage_folder, origin)
    return CheckedCohort(sampler, parted, planned, seen)


def rows_to_plan(kept: Sequence[ManifestRow], max_slides: int | None, seed: int) -> list[ManifestRow]:
    """The rows that are planned, of those whose cases are not excluded: all, or `max_slides` drawn by the seed; in the
    order of their slide ids. Pure.
    """
    rows = {row.slide_id: row for row in kept}
    chosen = rank_slides(sorted(rows), seed)[:max_slides]
    return [rows[name] for name in sorted(chosen)]


def plan_slides(
    manifest: Manifest,
    config: PlanConfig,
    *,
    workers: int,
    overlays: Path | None = None,
    audit_csv: Path | None = None,
    prices: Prices = USUAL_PRICES,
    checked: CheckedCohort | None = None,
) -> Plan:
    """Audit the slides of a manifest and make the plan; the result does not depend on row order or `workers`.

    Writes the audit to `audit_csv` even if there is no plan. With a budget or balance all patches of all slides are
    held until all slides are audited, 17 bytes each; `prices` is what one costs. Overlays then are drawn from the
    slides once more. `checked` are the inputs, if they have been checked already.

    Raises:
        PlanError: no slide gives a patch.
        ManifestError: slides of several cases are one slide.
        G2LError: as `check_cohort`.
    """
    inputs = checked or check_cohort(manifest, config, workers)
    sampler, root = inputs.sampler, as_place(real_name(manifest.slides_root))
    num_measured = patches_to_measure(len(inputs.planned))
    grid, sampling, check, tissue = config.grid, config.sampling, config.check_files, config.tissue_files
    stage = config.stage_folder

    def audit(row: ManifestRow, copy: Path | None) -> Audited:
        how = grid, sampling, check, overlays, num_measured, tissue, config.cuts_late
        return audit_slide(row, manifest, *how, copy, seen=inputs.seen)

    found = audit_with_copies(
        manifest, inputs.planned, audit, stage, workers, check_files=check, tissue_from=tissue.read_from
    )
    say_spellings(found)
    audited, same = note_near_copies(found)
    audited = note_rescans(audited, same)
    if config.balance:
        audited = balance_centers(audited, config.patches_per_slide, sampling)
    parts, audit_rows, spent = within_budget(audited, config.parsed_budget, prices, sampling)
    parts, audit_rows, examples = within_clusters(audited, parts, audit_rows, sampling, sampler, root, manifest, stage)
    audit_rows += audit_of_excluded(inputs.parted)
    if audit_csv is not None:
        write_audit(sorted(audit_rows, key=attrgetter("slide_id")), audit_csv)
    refuse_near_copies(manifest, same)
    dropped = [patch for a in audited for patch in a.dropped]
    if overlays is not None and not any(len(part.coords_l0_px) for part in parts):
        draw_dropped(dropped, overlays)  # there will be no plan; which rules took all patches can be seen all the same
    slides, in_plan = in_order(parts, audit_rows)
    plan = Plan(slides, root, config.for_plan(sampler.name if sampler else None), in_plan, spent)
    dropped += draw_late_overlays(plan, parts, manifest, overlays, tissue, stage)
    if overlays is not None:
        draw_dropped(dropped, overlays)
        draw_cluster_examples(plan, examples, overlays)
    say_decoding(plan)
    say_reading_time([a.sample for a in audited if a.sample], plan.num_rows, workers)
    return plan


def load_sampler(config: PlanConfig, workers: int) -> PoolSampler | None:
    """The encoder that describes candidates, if the options name one; it is built before any slide is read.

    Raises:
        G2LError: there is none of that name, its weights do not fit, or there is no such device.
    """
    if config.sampler_encoder is None:
        return None
    from stages.planning.sampler import build_sampler  # loads torch, which no other plan needs

    return build_sampler(config.sampler_encoder, config.patch_px, config.device, workers)


def audit_with_copies(
    manifest: Manifest,
    rows: Sequence[ManifestRow],
    audit: Callable[[ManifestRow, Path | None], Audited],
    stage: StageFolder | None,
    workers: int,
    *,
    check_files: bool,
    tissue_from: Path | None,
) -> list[Audited]:
    """Audit slides in that many threads, with copies in `stage` of those in a bucket; in the order of the rows.

    Raises:
        ConfigError: there are such slides, and no folder.
        G2LError: the folder cannot be written, or a bucket does not answer.
    """

    def audit_row(row: ManifestRow) -> Audited:
        with copy_to_audit(manifest.slide_path(row), staging) as (copy, why):
            if why:
                return Audited(audit_of_uncopied(row, manifest, known_of(row), tissue_from, why), None)
            result = audit(row, copy)
        give_back_memory()
        return result

    with staged_objects(manifest, rows, stage, check_files=check_files) as staging:
        return audit_in_threads(rows, audit_row, workers)


def within_budget(
    audited: Sequence[Audited], budget: Budget | None, prices: Prices, sampling: Sampling
) -> tuple[list[SlidePlan], list[AuditRow], dict[str, Any] | None]:
    """The slides that did not fail and the audit of all, cut to the budget if there is one; and what it came to."""
    slides, audit = [a.slide for a in audited if a.slide is not None], [a.audit for a in audited]
    if budget is None:
        return slides, audit, None
    return cut_to_budget(slides, audit, budget, prices, sampling)


def within_clusters(
    audited: Sequence[Audited],
    slides: list[SlidePlan],
    audit: list[AuditRow],
    sampling: Sampling,
    sampler: PoolSampler | None,
    slides_root: Path,
    manifest: Manifest,
    stage: StageFolder | None,
) -> tuple[list[SlidePlan], list[AuditRow], dict[int, list[tuple[str, int, int]]]]:
    """Slides and audit, cut to equal shares of clusters if the options ask for it; and examples of each cluster. A
    `sampler` reads slides once more, those in a bucket from another copy in `stage`.
    """
    if sampling.method != "cluster":
        return slides, audit, {}
    facts = {a.audit.slide_id: a.facts for a in audited if a.facts is not None}
    if sampler is not None:
        rows = {row.slide_id: row for row in manifest.rows}
        with staged_objects(manifest, [rows[part.slide_id] for part in slides], stage) as staging:
            pool = sampler.describe(slides, audit, slides_root, staging)
        slides, audit, facts = pool.slides, pool.audit, pool.facts
    cut = cut_by_cluster(slides, audit, facts, sampling)
    header = ("cluster", "candidates", "taken", "uniform takes", "slides", "cases")
    say(table(cut.table, header, right=(0, 1, 2, 3, 4, 5)))
    return cut.slides, cut.audit, cut.examples


def part_manifest(manifest: Manifest, lists: Sequence[str] | None) -> PartedRows:
    """The rows of a manifest with and without the cases of `lists`; says how many those are."""
    parted = exclude_rows(manifest.rows, lists or ())
    for note in parted.notes:
        say(f"note: {note}")
    return parted


def audit_in_threads(
    rows: Sequence[ManifestRow], audit_row: Callable[[ManifestRow], Audited], workers: int
) -> list[Audited]:
    """Audit slides in that many threads, and show how far it is; in the order of the rows."""
    audited: list[Audited] = []
    failed = 0
    with (
        few_objects_to_look_at(),
        ThreadPoolExecutor(workers) as pool,
        Progress("planning", len(rows), "slides") as progress,
    ):
        for result in pool.map(audit_row, rows):
            audited.append(result)
            failed += result.slide is None
            progress.note(failed=failed)
            progress.step()
    return audited


def audit_of_excluded(parted: PartedRows) -> list[AuditRow]:
    """The audit rows of slides that were left out on purpose."""
    return [AuditRow(**known_of(row), status=EXCLUDED, reason=reason) for row, reason in parted.excluded]


def say_spellings(audited: Sequence[Audited]) -> None:
    """Tell of classes of annotations whose names are spelled in several ways."""
    for note in class_spelling_notes(a.spellings for a in audited):
        say(f"note: {note}")


def say_decoding(plan: Plan) -> None:
    """Tell how many slides of a plan at half are decoded in full, if any."""
    in_full = sum(slide.geometry.decode == "full" for slide in plan.slides)
    if plan.config.decode == "half" and in_full:
        number = counted(len(plan.slides), "slide")
        say(f"note: --decode half: {in_full} of {number} are decoded in full; the audit says why")


def say_reading_time(samples: Sequence[PatchSample], num_rows: int, workers: int) -> None:
    """Tell how long stage one will read for, by the patches that were measured; nothing if none were."""
    seconds, number = sum(sample.seconds for sample in samples), sum(sample.measured for sample in samples)
    if not number:
        return
    each = seconds / number
    say(
        f"estimate: reading and encoding {counted(num_rows, 'patch', 'patches')} takes about "
        f"{format_seconds(num_rows * each / workers)} with {counted(workers, 'thread')} ({each * 1000:.3g} ms a patch, "
        f"measured on {number:,}); `g2l extract-teacher` measures the teacher before it starts"
    )


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


def note_near_copies(audited: Sequence[Audited]) -> tuple[list[Audited], list[tuple[list[str], str]]]:
    """Warn in the audit of slides that are one slide, though their files differ; also returns the ids of each group,
    and by what it is known.
    """
    noted, groups = list(audited), []
    quickhashes = [
        a.slide.quickhash if a.slide is not None and a.audit.vendor != dicom.VENDOR else None for a in audited
    ]
    for group in near_copies(quickhashes, [a.pixels for a in audited]):
        shared = {quickhashes[index] for index in group}
        by = BY_QUICKHASH if len(shared) == 1 and None not in shared else BY_PIXELS
        for index in group:
            words = near_copy_warning((audited[i].audit.slide_id for i in group if i != index), by)
            noted[index] = replace(audited[index], audit=audited[index].audit.with_warning(words))
        groups.append(([audited[i].audit.slide_id for i in group], by))
    return noted, groups


def note_rescans(audited: Sequence[Audited], same: Sequence[tuple[Sequence[str], str]]) -> list[Audited]:
    """Warn in the audit of slides that may be one piece of glass scanned twice; `same` has the ids of those that surely
    are, as `note_near_copies` returns them.
    """
    rows = [a.audit for a in audited]
    ids, cases = [row.slide_id for row in rows], [row.case_id for row in rows]
    warnings = rescan_warnings([a.look for a in audited], ids, cases, [group for group, _ in same])
    noted = list(audited)
    for index, words in warnings.items():
        noted[index] = replace(noted[index], audit=rows[index].with_warning(words))
    return noted


def balance_centers(audited: Sequence[Audited], patches_per_slide: int, sampling: Sampling) -> list[Audited]:
    """Cut slides with all their patches so that centres give equally many (`cohort.draws.cut`); says what came out."""
    with_patches = [a.slide for a in audited if a.slide is not None]
    balanced = {slide.slide_id: slide for slide in balanced_by_center(with_patches, patches_per_slide, sampling)}
    for note in balance_notes(list(balanced.values()), patches_per_slide) if balanced else []:
        say(f"note: {note}")
    noted = list(audited)
    for index, each in enumerate(audited):
        if (part := balanced.get(each.audit.slide_id)) is not None:
            row = replace(each.audit, patches_taken=len(part.split), split=split_column(part.split))
            noted[index] = replace(each, slide=part, audit=row if len(part.split) else row.with_reason(NOTHING_LEFT))
    return noted


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
