"""Write a plan and the files beside it; reuse an earlier plan if nothing has changed; never overwrite one.

PLAN.h5            the plan
PLAN.audit.csv     the audit of each slide, also written if there is no plan
PLAN.cases.csv     what each case gives
PLAN.config.toml   the options; can be passed to --config
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.base.console import counted, say
from pipeline.base.cores import usable_cores
from pipeline.base.errors import ConfigError, G2LError, PlanError
from pipeline.cohort.annotated import changed_annotations
from pipeline.cohort.audit import EXCLUDED
from pipeline.cohort.draws.budget import ASSUMED_WIDTH, Prices
from pipeline.cohort.draws.cluster_sheet import CLUSTER_SHEET
from pipeline.cohort.leakage.exclusions import changed_exclusions, exclude_rows
from pipeline.cohort.manifest import Manifest, read_manifest, row_hash
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.base import differences, read_options, to_toml
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.disk.asides import remove_asides, remove_asides_of
from pipeline.disk.at_hand import remove_notes, watched
from pipeline.disk.files import make_output_folder, require_absent, require_names_apart, require_new_file, write_text
from pipeline.disk.locks import exclusive
from pipeline.disk.objects.places import as_place, real_name
from pipeline.disk.raw_arrays import METADATA
from pipeline.disk.second_look import Work
from pipeline.encoders.table import named_spec
from pipeline.sampling import rank_slides
from pipeline.slides.annotations.tissue_geojson import TISSUE_ENDING, is_as_written
from pipeline.slides.artefacts.dropped import DROPPED_SHEET
from pipeline.slides.patch_sample import patches_to_measure
from pipeline.slides.staging.one import with_own_copy
from pipeline.store.create import is_store
from pipeline.store.store import Store
from pipeline.store.teachers import made_with
from stages.plan import audit_slide, check_cohort, load_sampler, plan_slides
from stages.planning.rates import rate_differences, rate_options, rate_words
from stages.reports.plan import audit_table, estimate
from stages.reports.plan_cases import write_cases

FEW_PATCHES = 1000
"""Fewest patches whose rate says that of a cohort. Our choice: some batches more than a start takes."""
PICTURE_ENDING = ".png"
"""Of the picture of a slide, after its id."""


@dataclass(frozen=True)
class SlideFolder:
    """A folder that gets a file of each slide: the ending of its name, and the option that names the folder."""

    path: Path
    ending: str
    option: str


def beside(out: Path, ending: str) -> Path:
    """Path of the file with this ending beside a plan. Only `p` and `p.h5` share theirs; the second is refused."""
    return out.with_name(out.name.removesuffix(".h5") + ending)


def prices_of(config: PlanConfig, extract: ExtractConfig | None = None) -> Prices:
    """What a patch costs: by the options of the plan, else by those of the stage one that it is made for.

    Raises:
        ConfigError: a budget in bytes, and the width of the teacher's embedding is not known; or a budget in time, and
            the store whose rate counts has nothing finished.
        StoreError: that is no store.
    """
    prices, kind = Prices(), config.parsed_budget.kind if config.parsed_budget else None
    if kind == "bytes":
        width, each, pixels = ASSUMED_WIDTH, 2, prices.pixels
        if extract is not None:
            width = named_spec(extract.teacher).width
            each, pixels = np.dtype(extract.dtype).itemsize * (extract.views or 1), extract.pixels
        if not (config.budget_width or width):
            raise ConfigError(f"--budget {config.budget}: say with --budget-width how wide the teacher's embedding is")
        prices = Prices((config.budget_width or width) * each, config.budget_pixels or pixels)
    if kind == "seconds":
        now = {"--patch-px": config.patch_px, "--tile-px": config.read_px} | (rate_options(extract) if extract else {})
        prices = Prices(patches_a_second=config.rate or stored_rate(config.rate_from, now))
    return prices


def stored_rate(store: Path | None, now: Mapping[str, str | int]) -> float:
    """Patches a second of one process, with all their views, by the ledgers of a store's first teacher and its rounds.
    Says what they are of, and what was otherwise in that store than in the stage one that is planned, of which `now`
    has what is known (`planning.rates`).

    Raises:
        ConfigError: they do not say, or a round is not finished, so that nobody knows how many views are meant.
        StoreError: it is no store.
    """
    assert store is not None  # the options see to it
    first = Store(store).first
    if made_with(first) != "extract-teacher":
        raise ConfigError(f"--rate-from {store}: its features were imported, so it does not say the rate. Give --rate")
    each = first.ledger.row_seconds()
    if each is None:
        raise ConfigError(f"--rate-from {store}: nothing there is finished. Give --rate, or a store that is")
    for made in first.rounds:
        of_round = made.ledger.row_seconds()
        if of_round is None or made.pending:
            raise ConfigError(
                f"--rate-from {store}: view {made.own_view} is not finished, and the rate is that of patches with all "
                "their views. Finish it with the same `g2l extract-teacher`, or give --rate"
            )
        each += of_round
    patches = first.ledger.num_done()
    if patches < FEW_PATCHES:
        say(
            f"note: --rate-from {store}: the rate is that of {counted(patches, 'patch', 'patches')}, in which the "
            f"start counts; {FEW_PATCHES:,} and more say it better"
        )
    say(f"note: --rate-from {store}: {1 / each:.4g} patches a second of {rate_words(first)}")
    if others := rate_differences(first, now):
        say(
            f"warning: --rate-from {store} was made with other options ({'; '.join(others)}), so that stage one may "
            "take far more time than the budget, or less. Give a store that was made alike, or --rate"
        )
    return 1 / each


def write_new_plan(manifest_path: Path, config: PlanConfig, out: Path, prices: Prices | None = None) -> Plan:
    """Plan a manifest, and write the plan and the files beside it. `prices` is what a patch costs, by default
    by these options.

    A call that is refused before it opens a slide leaves nothing new. Then the options are written. Options without a
    plan show that an attempt was stopped, or found no patch, which its audit explains; the same command may then
    overwrite its files.

    Raises:
        G2LError: a file would be overwritten or cannot be written; wrong input.
    """
    prices, manifest = prices or prices_of(config), read_manifest(manifest_path, config.slides_root)
    for note in manifest.notes:
        say(f"note: {note}")
    overlays = config.overlays
    folders = folders_of(overlays, config.tissue_geojson)
    with without_new_folders(out.parent, *(folder.path for folder in folders)), ExitStack() as locks:
        locks.enter_context(exclusive(out, "g2l plan"))
        if out.name:  # `p` and `p.h5` share the files beside them
            locks.enter_context(exclusive(beside(out, ".config.toml"), "g2l plan"))
        for folder in folders:
            locks.enter_context(exclusive(folder.path, "g2l plan", folder.option))
        require_way(manifest, out, folders)
        workers = config.workers or usable_cores()
        checked = check_cohort(manifest, config, workers)
        make_way(manifest, out, folders)
        audit_csv, record_path = beside(out, ".audit.csv"), beside(out, ".config.toml")
        record = {"manifest": str(manifest_path.absolute()), "out": str(out.absolute())} | config.stored()
        write_text(record_path, to_toml({"plan": record}))
        rows = {manifest.slide_path(row): row for row in manifest.rows}
        num_measured = patches_to_measure(min(len(rows), config.max_slides or len(rows)))

        def audit_again(path: Path) -> Work:
            sampling = replace(config.sampling, by_encoder=False)  # candidates are read as well
            work = audit_slide, (rows[path], manifest, config.grid, sampling, False, None, num_measured)
            return with_own_copy(path, config.stage_folder, work)

        with watched(out, rows, audit_again, tell=say):
            plan = plan_slides(
                manifest,
                config,
                workers=workers,
                overlays=overlays,
                audit_csv=audit_csv,
                prices=prices,
                checked=checked,
            )
            write_cases(plan, beside(out, ".cases.csv"))
            write_plan(plan, out)
        return plan


def folders_of(overlays: Path | None, tissue_geojson: Path | None) -> list[SlideFolder]:
    """The folders that get a file of each slide, of those that the options of these names give."""
    named = ((overlays, PICTURE_ENDING, "--overlays"), (tissue_geojson, TISSUE_ENDING, "--tissue-geojson"))
    return [SlideFolder(folder, ending, option) for folder, ending, option in named if folder]


@contextmanager
def without_new_folders(*folders: Path) -> Iterator[None]:
    """If the block refuses, remove those of the folders and their parents that are new and have stayed empty."""
    new = _absent(folders)
    try:
        yield
    except G2LError:
        _remove_empty(new)
        raise


def _absent(folders: Sequence[Path]) -> set[Path]:
    """Those of the folders and their parents that are not there."""
    return {place for folder in folders for place in (folder, *folder.parents) if not os.path.lexists(place)}


def _remove_empty(folders: Collection[Path]) -> None:
    """Remove those of the folders that are there and empty."""
    for place in sorted(folders, key=lambda place: len(place.parts), reverse=True):
        with suppress(OSError):  # something is in it, or it was never made
            place.rmdir()


def require_folders(manifest: Manifest, folders: Sequence[SlideFolder]) -> None:
    """See that a plan could make and write the folders; leaves nothing behind.

    Raises:
        G2LError: as `make_way`.
    """
    new = _absent([folder.path for folder in folders])
    try:
        make_slide_folders(manifest, folders)
    finally:
        _remove_empty(new)


def require_way(manifest: Manifest, out: Path, folders: Sequence[SlideFolder]) -> None:
    """See that nothing is overwritten by a plan and the files beside it; writes nothing.

    Raises:
        G2LError: one exists that no earlier attempt wrote, or that was changed since, as tissue is in QuPath.
    """
    if out.is_file():
        remove_notes(out)
    require_new_file(out, "Delete it first, or choose another --out.")
    *tables, record_path = files_beside(out)
    hint, filled = "Delete it first, or choose another place.", set[Path]()
    if is_attempt(record_path, out):
        filled = folders_of_attempt(record_path)
    else:
        for path in (*tables, record_path):
            require_new_file(path, hint)
    for folder in folders:
        sheets = [DROPPED_SHEET, str(CLUSTER_SHEET)] if folder.ending == PICTURE_ENDING else []
        is_filled = folder.path.absolute() in filled
        for name in sheets if not is_filled else ():
            require_absent(folder.path / name, hint)
        for row in manifest.rows:
            path = folder.path / f"{row.slide_id}{folder.ending}"
            if not is_filled or (folder.ending == TISSUE_ENDING and not is_as_written(path, row.slide_id)):
                require_absent(path, hint)


def folders_of_attempt(record_path: Path) -> set[Path]:
    """The folders that an earlier attempt filled, by its record of options."""
    options = read_options(record_path, "plan")
    named = (options.get(name) for name in ("overlays", "tissue_geojson"))
    return {Path(str(folder)).absolute() for folder in named if folder}


def make_way(manifest: Manifest, out: Path, folders: Sequence[SlideFolder]) -> None:
    """Make the folders, and clear away what a killed run left half written; as `require_way`.

    Raises:
        G2LError: a folder cannot be made or written, or would hold two slides' files under one name.
    """
    make_slide_folders(manifest, folders)
    for folder in folders:
        for place in (folder.path, (folder.path / CLUSTER_SHEET).parent):
            remove_asides(place, recursive=False)
    for path in (out, *files_beside(out)):
        remove_asides_of(path)


def make_slide_folders(manifest: Manifest, folders: Sequence[SlideFolder]) -> None:
    """Make the folders.

    Raises:
        G2LError: as `make_way`.
    """
    for folder in folders:
        make_output_folder(folder.path, folder.option)
        require_names_apart(folder.path, [row.slide_id for row in manifest.rows])


def files_beside(out: Path) -> list[Path]:
    """The files that belong to a plan: its tables, and last the record of its options."""
    return [beside(out, ending) for ending in (".audit.csv", ".cases.csv", ".config.toml")]


def is_attempt(record_path: Path, out: Path) -> bool:
    """Whether this record of options is from an earlier attempt to make the plan `out`."""
    try:
        return Path(str(read_options(record_path, "plan").get("out", ""))).absolute() == out.absolute()
    except ConfigError:
        return False


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
        say(f"note: {num_failed} slides of {path} failed or are damaged; {remedy} to try them again")
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


def failed_slides(plan: Plan) -> int:
    """Number of slides that failed or are damaged."""
    return sum(row.status not in ("ok", EXCLUDED) for row in plan.audit)
