"""Plans of small slides that exist, made as `g2l plan` makes them; plans of none that exist; and options of plans."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow, row_hash
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.cohort.plan_records import slide_record
from pipeline.config.plan import PlanConfig
from pipeline.slides.geometry import PatchGeometry
from stages.plan import plan_slides
from support.extraction import made_up_plan

SMALL = {"patch_px": 64, "patches_per_slide": 12}
"""Options that give the cohort's small slides many patches to choose from."""


def make_plan(manifest: Path, workers: int = 2, **options: Any) -> Plan:
    return plan_slides(read_manifest(manifest), PlanConfig.build(SMALL | options), workers=workers)


def cohort_of(folder: Path, **slides: Path) -> Path:
    """A manifest in `folder` of the slides by id."""
    rows = [ManifestRow(name, str(path), name) for name, path in slides.items()]
    write_manifest(folder / "manifest.csv", rows)
    return folder / "manifest.csv"


def assert_same_plan(a: Plan, b: Plan) -> None:
    assert (a.config, a.audit, a.slides_root, a.hash) == (b.config, b.audit, b.slides_root, b.hash)
    for mine, other in zip(a.slides, b.slides, strict=True):
        assert slide_record(mine) == slide_record(other)
        for x, y in ((mine.coords_l0_px, other.coords_l0_px), (mine.split, other.split)):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def plan_with_labels(num_slides: int, num_labels: int = 3) -> Plan:
    """A plan without slides behind it, each with so many labels."""
    geometry = PatchGeometry(224, 0.5, 0.25, 0, 1.0)
    coords = np.stack([np.arange(20) * 448, np.arange(20)], axis=1)
    labels = {f"label {i}": "é" * 40 for i in range(num_labels)}
    parts = [
        SlidePlan(
            f"slide {i:05d}",
            f"é{i}.svs",
            f"c{i}",
            None,
            None,
            None,
            (9999, 9999),
            geometry,
            coords + i,
            (np.arange(20) % 2).astype(np.uint8),
            labels,
        )
        for i in range(num_slides)
    ]
    audit = [AuditRow(part.slide_id, "ok", mpp=0.25) for part in parts]
    return Plan(tuple(parts), Path("/slides"), PlanConfig(), tuple(audit))


def audited_plan(rows: list[ManifestRow], failed: str = "") -> Plan:
    """A plan of these rows; the slide `failed` has failed."""
    audit = [AuditRow(r.slide_id, "failed" if r.slide_id == failed else "ok", row_hash=row_hash(r)) for r in rows]
    return replace(made_up_plan(), audit=tuple(audit))


def budget_of(**options: Any) -> PlanConfig:
    """Options of a plan with a budget, or a price of one."""
    return PlanConfig.build({"patch_px": 64, "min_tissue": 0.0} | options)
