"""Options that go together are the options of the commands."""

from dataclasses import fields, replace

import pytest

from pipeline.config.groups import Grid, Sampling
from pipeline.config.plan import PlanConfig
from pipeline.config.tools import ImportConfig


def test_a_group_has_the_options_of_its_command() -> None:
    plan = PlanConfig(patch_px=96, mpp=1.0, stride_px=48, min_tissue=0.25, allow_upsampling=True)
    assert plan.grid == Grid(**{field.name: getattr(plan, field.name) for field in fields(Grid)})
    sample = {"patches_per_slide": 7, "seed": 3, "val_fraction": 0.25}
    assert PlanConfig(**sample).sampling == Sampling(**sample)
    assert PlanConfig(**sample, val_strip=0.5).sampling == Sampling(**sample, val_strip=0.5)
    assert ImportConfig.build({"slides_root": "s", "teacher": "uni"} | sample).sampling == Sampling(**sample)


@pytest.mark.parametrize(("stride_px", "overlap_px"), [(None, 0), (64, 0), (48, 16), (80, 0)])
def test_patches_overlap_by_what_their_stride_leaves(stride_px: int | None, overlap_px: int) -> None:
    grid = PlanConfig(patch_px=64, stride_px=stride_px).grid
    assert grid.overlap_px == overlap_px
    assert replace(grid, patch_px=grid.stride_px).overlap_px == 0
