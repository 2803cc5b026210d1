"""Options of planning: bounds, and what a plan depends on."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.plan import PlanConfig


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mpp": 1000}, "mpp: .*got 1000"),
        ({"min_tissue": 1.1}, "min_tissue: "),
        ({"val_fraction": 1}, "val_fraction: "),  # nothing would be left to train on
        ({"val_strip": 0}, "val_strip: "),
        ({"patch_px": 15}, "patch_px: "),
        ({"mpp": float("nan")}, "mpp: "),
        ({"tile_px": 223}, r"tile_px: should not be less than --patch-px, 224; .* \(got 223\)"),
        ({"tile_px": 9000}, "tile_px: "),
        ({"decode": "half", "tiling": "level0"}, "decode: does not go with --tiling level0, which reduces"),
    ],
)
def test_values_of_a_plan_out_of_bounds_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PlanConfig.build(values)


def test_a_plan_without_tiles_is_that_of_versions_that_knew_none() -> None:
    assert "tile_px" not in PlanConfig().record()
    none = PlanConfig(tile_px=224)  # which turns off the tile of a recipe
    assert (none.deciding(), none.has_tiles, none.record()["tile_px"]) == (PlanConfig().deciding(), False, 224)
    assert PlanConfig(tile_px=256).deciding() == PlanConfig().deciding() | {"tile_px": 256}
    assert (PlanConfig(tile_px=256).read_px, PlanConfig().read_px) == (256, 224)


def test_a_plan_does_not_depend_on_how_it_is_made() -> None:
    free = {"workers": 3, "overlays": Path("o")}
    assert PlanConfig(**free).for_plan() == PlanConfig()
    assert PlanConfig(**free, slides_root=Path("s")).deciding() == PlanConfig().deciding()
    assert PlanConfig(seed=1).for_plan().deciding() != PlanConfig().deciding()


def test_a_uniform_plan_is_that_of_versions_that_knew_no_other() -> None:
    assert "sample" not in PlanConfig().record()
    assert PlanConfig(sample="spread").deciding() == PlanConfig().deciding() | {"sample": "spread"}
