"""Plans of small slides that exist, made as `g2l plan` makes them."""

from pathlib import Path
from typing import Any

from pipeline.cohort.manifest import ManifestRow, read_manifest, write_manifest
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from stages.plan import plan_slides

SMALL = {"patch_px": 64, "patches_per_slide": 12}
"""Options that give the cohort's small slides many patches to choose from."""


def make_plan(manifest: Path, workers: int = 2, **options: Any) -> Plan:
    return plan_slides(read_manifest(manifest), PlanConfig.build(SMALL | options), workers=workers)


def cohort_of(folder: Path, **slides: Path) -> Path:
    """A manifest in `folder` of the slides by id."""
    rows = [ManifestRow(name, str(path), name) for name, path in slides.items()]
    write_manifest(folder / "manifest.csv", rows)
    return folder / "manifest.csv"
