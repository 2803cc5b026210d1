"""A plan and the files beside it: made from a manifest, taken again when it is the same, never written over.

PLAN.h5            the plan
PLAN.audit.csv     what was found of each slide; also when no plan comes of it
PLAN.config.toml   the options, fit for --config
"""

from contextlib import nullcontext
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.cores import usable_cores
from pipeline.base.errors import ConfigError, PlanError, StoreError
from pipeline.cohort.manifest import Manifest, read_manifest
from pipeline.cohort.plan import Plan, read_plan, write_plan
from pipeline.config.base import differences, read_toml, to_toml
from pipeline.config.stages import PlanConfig
from pipeline.disk.asides import remove_asides, remove_asides_of
from pipeline.disk.files import make_output_folder, require_names_apart, require_new_file, write_text
from pipeline.disk.folders import is_free
from pipeline.disk.locks import exclusive
from pipeline.sampling import rank_slides
from stages.plan import plan_slides, row_hash


def beside(out: Path, ending: str) -> Path:
    """The file of that ending beside a plan; plans of different names never share one."""
    return out.with_name(out.name.removesuffix(".h5") + ending)


def write_new_plan(manifest_path: Path, config: PlanConfig, out: Path) -> Plan:
    """Plan a manifest and write the plan and the files beside it.

    The options are written first: where they stand without a plan, an attempt was stopped or came to nothing, and the
    same command may write over what it left.

    Raises:
        G2LError: a file would be written over, or cannot be written; wrong input.
    """
    manifest = read_manifest(manifest_path, config.slides_root)
    pictures = config.overlays
    with exclusive(out, "g2l plan"), exclusive(pictures, "g2l plan") if pictures else nullcontext():
        return _write_new_plan(manifest, manifest_path, config, out)


def _write_new_plan(manifest: Manifest, manifest_path: Path, config: PlanConfig, out: Path) -> Plan:
    """Plan a manifest; nobody else does so for `out`."""
    require_new_file(out, "Delete it first, or choose another --out.")
    audit_csv, record_path = beside(out, ".audit.csv"), beside(out, ".config.toml")
    if not is_attempt(record_path, out):
        pictures = [config.overlays / f"{row.slide_id}.png" for row in manifest.rows] if config.overlays else []
        for path in (audit_csv, record_path, *pictures):
            require_new_file(path, "Delete it first, or choose another place.")
    if config.overlays:
        make_output_folder(config.overlays)
        remove_asides(config.overlays, recursive=False)
        require_names_apart(config.overlays, [row.slide_id for row in manifest.rows])
    for path in (out, audit_csv, record_path):
        remove_asides_of(path)
    absolute = {"manifest": str(manifest_path.absolute()), "out": str(out.absolute())}
    record = absolute | config.stored()
    write_text(record_path, to_toml({"plan": record}))
    plan = plan_slides(
        manifest, config, workers=config.workers or usable_cores(), overlays=config.overlays, audit_csv=audit_csv
    )
    write_plan(plan, out)
    return plan


def is_attempt(record_path: Path, out: Path) -> bool:
    """Whether a record of options is that of an earlier attempt to make the plan `out`."""
    try:
        return Path(str(read_toml(record_path, "plan").get("out", ""))).absolute() == out.absolute()
    except ConfigError:
        return False


def plan_beside(manifest_path: Path, config: PlanConfig, store: Path) -> tuple[Plan, Path]:
    """The plan for a store that is made from a manifest, and its file: an earlier call's if nothing has changed since.

    Raises:
        PlanError: it was made by other options, or from other rows; says which.
        StoreError: `store` is something else, before anything is planned.
    """
    if not (store / "zarr.json").exists() and not is_free(store):
        raise StoreError(f"{store} exists and is not a store; nothing is overwritten. Choose another --out")
    if not store.name:
        raise PlanError(f"there is no place for a plan beside {store}. Choose another --out")
    path = store.with_name(store.name.removesuffix(".zarr") + ".plan.h5")
    if not path.exists():
        return write_new_plan(manifest_path, config, path), path
    plan = read_plan(path)
    changes = differences(plan.config.deciding(), config.deciding())
    changes += changed_rows(plan, read_manifest(manifest_path, config.slides_root), config)
    if changes:
        listing = "\n".join(f"  {line}" for line in changes[:20])
        raise PlanError(
            f"{path} was made from something else (plan -> now):\n{listing}\nDelete it, or choose another --out"
        )
    if num_failed := failed_slides(plan):
        say(f"note: in {path} {num_failed} slides failed or are damaged; delete it to plan them again")
    return plan, path


def changed_rows(plan: Plan, manifest: Manifest, config: PlanConfig) -> list[str]:
    """How a manifest differs from the one that a plan was made from, a line a slide."""
    rows = {row.slide_id: row for row in manifest.rows}
    chosen = rank_slides(sorted(rows), config.seed)[: config.max_slides]
    audited = {row.slide_id: row.row_hash for row in plan.audit}
    lines = [f"{name}: new in the manifest" for name in sorted(set(chosen) - audited.keys())]
    lines += [f"{name}: no longer in the manifest" for name in sorted(audited.keys() - set(chosen))]
    changed = [name for name in sorted(audited.keys() & set(chosen)) if row_hash(rows[name]) != audited[name]]
    return lines + [f"{name}: another path, case, center, mpp, split or sha256 in the manifest" for name in changed]


def failed_slides(plan: Plan) -> int:
    """Slides that failed or are damaged."""
    return sum(row.status != "ok" for row in plan.audit)
