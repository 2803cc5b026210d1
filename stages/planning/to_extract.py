"""The plan that stage one works by: read as it is, or made from a manifest beside the store. An earlier one is reused
if nothing has changed.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.base.console import counted, say
from pipeline.base.errors import ConfigError, PlanError
from pipeline.cohort.annotated import changed_annotations
from pipeline.cohort.audit import EXCLUDED
from pipeline.cohort.draws.budget import Prices
from pipeline.cohort.leakage.exclusions import changed_exclusions, exclude_rows
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.manifest.rows import Manifest, row_hash
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.base import differences
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.disk.locks import exclusive
from pipeline.disk.objects.places import as_place, real_name
from pipeline.disk.raw_arrays import METADATA
from pipeline.encoders.table import named_spec
from pipeline.sampling import rank_slides
from pipeline.store.create import is_store
from pipeline.store.store import Store
from stages.plan import load_sampler
from stages.planning.prices import prices_of
from stages.planning.write import failed_slides, write_new_plan
from stages.reports.plan import audit_table, estimate


def plan_beside(
    manifest_path: Path, config: PlanConfig, store: Path, prices: Callable[[], Prices] | None = None
) -> tuple[Plan, Path]:
    """Plan a manifest for a store, or read the plan of an earlier call if nothing has changed; returns the plan and its
    file beside the store. `prices` says what a patch costs; it is called only if there is no plan.

    Who reduces patches, and the rules by which tissue is found, are as in the earlier plan, unless the call says them.
    The slides lie where the manifest says now.
    If the plan is gone, that of a store that was begun is written again: a new one would differ where an earlier
    version made it, and the store could not be continued.

    Raises:
        PlanError: the earlier plan was made with other options or from other rows; the message lists them.
        StoreError: `store` exists and is not a store; nothing has been planned.
    """
    is_begun = is_store(store)  # refuses what is neither a store nor free, before anything is planned
    if not store.name:
        raise PlanError(f"cannot write a plan beside {store}. Choose another --out")
    path = store.with_name(store.name.removesuffix(".zarr") + ".plan.h5")
    is_gone = not path.exists()
    if is_gone and not is_begun:
        return write_new_plan(manifest_path, config, path, prices() if prices else None), path
    plan = Store(store).plan if is_gone else read_plan(path)
    config = config.continuing(plan.config)
    sampler = load_sampler(config, 1)  # only its name matters here
    now = config.for_plan(sampler.name if sampler else None)
    changes = differences(plan.config.deciding(), now.deciding(), PlanConfig.unsaid())
    manifest = read_manifest(manifest_path, config.slides_root)
    excluded = config.exclude_cases or ()
    changes += changed_rows(plan, manifest, max_slides=config.max_slides, seed=config.seed, exclude_cases=excluded)
    changes += changed_annotations(plan, manifest, config.tissue_from)
    if changes:
        raise of_other_inputs(f"the plan in {store}" if is_gone else str(path), changes, is_begun=is_begun)
    if is_gone:
        with exclusive(path, "g2l plan"):
            write_plan(plan, path)
        say(f"note: {path} is gone, and was written again from {store}, which holds its plan")
    if num_failed := failed_slides(plan):
        remedy = "choose another --out" if is_begun else "delete the plan"
        slides = counted(num_failed, "slide has", "slides have")
        say(f"note: {slides} failed in {path}, or could be read in part alone; {remedy} to try again")
    return replace(plan, slides_root=as_place(real_name(manifest.slides_root))), path


def of_other_inputs(name: str, changes: Sequence[str], *, is_begun: bool) -> PlanError:
    """The error for a plan of this name, in which the `changes` are listed. Once a store is begun, it is of one plan:
    to delete that is of no use.
    """
    listing = "\n".join(f"  {line}" for line in changes[:20])
    remedy = "Choose" if is_begun else "Delete it, or choose"
    return PlanError(f"{name} was made from other inputs (plan -> now):\n{listing}\n{remedy} another --out")


@dataclass(frozen=True)
class PlanToExtract:
    """The plan for `extract-teacher`, read or newly made.

    Attributes:
        plan: the plan.
        source: the file or store that holds it.
        num_bad_slides: slides of the manifest that failed or are damaged; 0 if the call named a plan or a store.
        reports: texts to show about a plan made from a manifest.
    """

    plan: Plan
    source: Path
    num_bad_slides: int = 0
    reports: tuple[str, ...] = ()


def plan_to_extract(
    source: Path,
    store: Path,
    extract: ExtractConfig,
    plan_options: Collection[str],
    plan_config: Callable[[], PlanConfig],
) -> PlanToExtract:
    """Read the plan from the file or store `source`; if `source` is a manifest, plan it first.

    Args:
        store: where the embeddings will go; a manifest's plan is written beside it.
        extract: options for the estimate of the store's size.
        plan_options: names of the options in the call that only `g2l plan` has.
        plan_config: makes the options of the plan; called only for a manifest.

    Raises:
        G2LError: planning options for a finished plan; wrong input; an earlier plan from other inputs.
    """
    if source.suffix.lower() == ".csv":
        config = plan_config()
        require_teacher(extract.teacher, config.patch_px)
        made, path = plan_beside(source, config, store, partial(prices_of, config, extract))
        reports = [audit_table(made)]
        if not (store / METADATA).exists():
            reports.append(
                estimate(
                    made,
                    width=named_spec(extract.teacher).width or None,
                    dtype=extract.dtype,
                    rows_per_shard=extract.rows_per_shard,
                    pixels=extract.pixels,
                )
            )
        return PlanToExtract(made, path, failed_slides(made), (*reports, f"plan {made.hash[:12]} is in {path}"))
    is_store = source.suffix == ".zarr" or (source / METADATA).exists()
    if plan_options:
        flags = ", ".join("--" + name.replace("_", "-") for name in sorted(plan_options))
        verb = "holds" if is_store else "is"
        raise ConfigError(f"{flags}: {source} {verb} a finished plan; these options belong to g2l plan")
    return PlanToExtract(Store(source).plan if is_store else read_plan(source), source)


def require_teacher(name: str, patch_px: int) -> None:
    """See, before slides are audited for hours, that there is a teacher of that name for patches of this side.

    Raises:
        EncoderError: there is none.
    """
    from pipeline.encoders.build import require_known  # loads torch, which a plan alone does not need

    require_known(name, patch_px)


def changed_rows(
    plan: Plan, manifest: Manifest, *, max_slides: int | None, seed: int, exclude_cases: Collection[str] = ()
) -> list[str]:
    """List how a manifest, less the cases to exclude, differs from the one that a plan was made from, a line a slide.

    Raises:
        ConfigError: a list of cases cannot be used.
    """
    rows = {row.slide_id: row for row in manifest.rows}
    now = exclude_rows(manifest.rows, exclude_cases).excluded_ids
    before = {row.slide_id for row in plan.audit if row.status == EXCLUDED}
    chosen = rank_slides(sorted(rows.keys() - now), seed)[:max_slides]
    audited = {row.slide_id: row.row_hash for row in plan.audit if row.slide_id not in before}
    lines = changed_exclusions(before, audited.keys(), now, set(chosen))
    lines += [f"{name}: new in the manifest" for name in sorted(set(chosen) - audited.keys() - before)]
    lines += [f"{name}: no longer in the manifest" for name in sorted(audited.keys() - set(chosen) - now)]
    changed = [name for name in sorted(audited.keys() & set(chosen)) if row_hash(rows[name]) != audited[name]]
    return lines + [
        f"{name}: another path, case, center, mpp, split, sha256 or annotations in the manifest" for name in changed
    ]
