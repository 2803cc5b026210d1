"""Plan: audit every slide, find its tissue, sample its patches. Later stages make no choices of their own.

G2L, section "Patch-based sampling": a fixed number of tissue patches from each of about 1,000 slides. The paper does
not say how they are drawn; here, uniformly without replacement from the tissue grid, or as `--sample` says.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline.base.console import Progress, counted, say, table
from pipeline.base.cores import few_objects_to_look_at, give_back_memory
from pipeline.base.images import require_lanczos
from pipeline.base.units import format_seconds
from pipeline.cohort.annotated import SeenAnnotations, class_spelling_notes, require_known_classes, require_tissue_files
from pipeline.cohort.audit import EXCLUDED, AuditRow, split_column, write_audit
from pipeline.cohort.draws.budget import USUAL_PRICES, Prices, cut_to_budget
from pipeline.cohort.draws.by_cluster import cut_by_cluster
from pipeline.cohort.draws.candidates import PoolSampler
from pipeline.cohort.draws.cluster_sheet import draw_cluster_examples
from pipeline.cohort.draws.cut import NOTHING_LEFT, balance_notes, balanced_by_center
from pipeline.cohort.leakage.exclusions import PartedRows, exclude_rows
from pipeline.cohort.manifest.checks import refuse_near_copies
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.object_slides import audit_of_uncopied, copy_to_audit, require_copies, staged_objects
from pipeline.cohort.plan import Plan, SlidePlan, in_order
from pipeline.config.budget import Budget
from pipeline.config.groups import Sampling
from pipeline.config.plan import PlanConfig
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.places import as_place, real_name
from pipeline.sampling import rank_slides
from pipeline.slides.artefacts.dropped import draw_dropped
from pipeline.slides.patch_sample import PatchSample, patches_to_measure
from stages.planning.audit_slide import Audited, audit_slide, known_of
from stages.planning.same_slides import note_near_copies, note_rescans
from stages.reports.plan_pictures import draw_late_overlays


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
