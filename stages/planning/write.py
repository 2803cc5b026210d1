"""Plan a manifest, and write the plan and the files beside it (`planning.outputs`)."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.cores import usable_cores
from pipeline.cohort.audit import EXCLUDED
from pipeline.cohort.draws.budget import Prices
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.base import to_toml
from pipeline.config.plan import PlanConfig
from pipeline.disk.at_hand import watched
from pipeline.disk.files import write_text
from pipeline.disk.locks import exclusive
from pipeline.disk.second_look import Work
from pipeline.slides.patch_sample import patches_to_measure
from pipeline.slides.staging.one import with_own_copy
from stages.plan import check_cohort, plan_slides
from stages.planning.audit_slide import audit_slide
from stages.planning.outputs import beside, folders_of, make_way, require_way, without_new_folders
from stages.planning.prices import prices_of
from stages.reports.plan_cases import write_cases


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


def failed_slides(plan: Plan) -> int:
    """Number of slides that failed or are damaged."""
    return sum(row.status not in ("ok", EXCLUDED) for row in plan.audit)
