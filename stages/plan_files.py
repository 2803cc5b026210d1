"""A plan and the files beside it: made from a manifest, taken again when it is the same, never written over.

PLAN.h5            the plan
PLAN.audit.csv     what was found of each slide; also when no plan comes of it
PLAN.config.toml   the options, fit for --config
"""

import csv
from dataclasses import fields
from pathlib import Path

from pipeline.config import PlanConfig, differences, to_toml
from pipeline.errors import PlanError
from pipeline.files import make_output_folder, require_new_file, write_text
from pipeline.loader import default_workers
from pipeline.manifest import Manifest, ManifestRow, read_manifest, row_split
from pipeline.plan import AuditRow, Plan, read_plan, write_plan
from pipeline.sampling import SPLITS, rank_slides
from stages.plan_slides import plan_slides


def write_new_plan(manifest_path: Path, config: PlanConfig, out: Path) -> Plan:
    """Plan a manifest and write the plan and the files beside it.

    Raises:
        G2LError: a file would be written over, or cannot be written; wrong input.
    """
    manifest = read_manifest(manifest_path, config.slides_root)
    require_new_file(out, "Delete it first, or choose another --out.")
    audit_csv, record_path = out.with_suffix(".audit.csv"), out.with_suffix(".config.toml")
    if not is_audit(audit_csv):  # what an attempt left that came to no plan may be replaced
        pictures = [config.overlays / f"{row.slide_id}.png" for row in manifest.rows] if config.overlays else []
        for path in (audit_csv, record_path, *pictures):
            require_new_file(path, "Delete it first, or choose another place.")
    if config.overlays:
        make_output_folder(config.overlays)
    plan = plan_slides(
        manifest, config, workers=config.workers or default_workers(), overlays=config.overlays, audit_csv=audit_csv
    )
    record = {"manifest": str(manifest_path), "out": str(out)} | config.record()
    write_text(record_path, to_toml({"plan": record}))
    write_plan(plan, out)
    return plan


def is_audit(path: Path) -> bool:
    """Whether a file is an audit that this program wrote."""
    if not path.is_file():
        return False
    with open(path, newline="") as f:
        return next(csv.reader(f), None) == [field.name for field in fields(AuditRow)]


def plan_beside(manifest_path: Path, config: PlanConfig, store: Path) -> tuple[Plan, Path]:
    """The plan for a store that is made from a manifest, and its file: an earlier call's if nothing has changed since.

    Raises:
        PlanError: it was made by other options, or from other rows; says which.
    """
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
    return plan, path


def changed_rows(plan: Plan, manifest: Manifest, config: PlanConfig) -> list[str]:
    """How a manifest differs from the one that a plan was made from, a line a slide."""
    rows = {row.slide_id: row for row in manifest.rows}
    chosen = rank_slides(sorted(rows), config.seed)[: config.max_slides]
    audited = {row.slide_id: row for row in plan.audit}
    planned = {slide.slide_id: slide for slide in plan.slides}
    lines = [f"{name}: new in the manifest" for name in sorted(set(chosen) - audited.keys())]
    lines += [f"{name}: no longer in the manifest" for name in sorted(audited.keys() - set(chosen))]
    for name in sorted(audited.keys() & set(chosen)):
        row, audit = rows[name], audited[name]
        same = (row.path, row.case_id, row.center or "") == (audit.path, audit.case_id, audit.center)
        if name in planned:
            same &= row.mpp == planned[name].manifest_mpp and same_split(row, plan, name, config)
        if not same:
            lines.append(f"{name}: another path, case, center, mpp or split in the manifest")
    return lines


def same_split(row: ManifestRow, plan: Plan, name: str, config: PlanConfig) -> bool:
    """Whether a row is still on the side that the plan has it on; a strip is not decided by the manifest."""
    if config.val_strip is not None:
        return True
    planned = next(slide for slide in plan.slides if slide.slide_id == name)
    return bool((planned.split == SPLITS.index(row_split(row, config.val_fraction))).all())


def failed_slides(plan: Plan) -> int:
    """Slides that failed or are damaged."""
    return sum(row.status != "ok" for row in plan.audit)
