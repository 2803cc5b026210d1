"""The table of a plan's classes: counted by hand on made-up patches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from support.commands import succeed
from support.extraction import made_up_plan

from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.slides.annotations.patch_classes import PatchClasses
from stages.reports.classes import MOST_ROWS, class_table


def with_classes(*names: str) -> Plan:
    """A plan whose first slide has its first half in the first class, and a quarter of each patch in the others."""
    plan = made_up_plan()
    first = plan.slides[0]
    fractions = np.full((len(first.coords_l0_px), len(names)), 0.25, np.float32)
    fractions[:, 0] = np.arange(len(fractions)) < len(fractions) // 2
    return replace(plan, slides=(replace(first, classes=PatchClasses(names, fractions)), *plan.slides[1:]))


def test_patches_and_area_by_class(tmp_path: Path) -> None:
    plan = with_classes("tumour", "stroma")
    first = plan.slides[0]
    half, patch_mm2 = len(first.coords_l0_px) // 2, (first.geometry.patch_l0_px * first.geometry.slide_mpp / 1000) ** 2
    _, _, tumour, stroma = class_table(plan).splitlines()
    assert tumour.split() == ["tumour", "1", str(half), f"{half * patch_mm2:.3g}"]
    assert stroma.split()[:3] == ["stroma", "1", "0"]
    wide = replace(first, geometry=replace(first.geometry, patch_px=100_000))
    large = class_table(replace(plan, slides=(replace(wide, classes=first.classes), *plan.slides[1:])))
    assert "e+" not in large  # an area of thousands of mm2
    assert "," in large.splitlines()[2].split()[-1]
    write_plan(plan, tmp_path / "p.h5")
    assert class_table(plan) in succeed("inspect", tmp_path / "p.h5")


def test_no_table_without_annotations_and_a_short_one_of_many_classes() -> None:
    assert class_table(made_up_plan()) == ""
    table = class_table(with_classes(*(f"class {i:03}" for i in range(MOST_ROWS + 7))))
    assert table.endswith("... and 7 more classes")
