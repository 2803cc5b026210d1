"""Options of planning: bounds, and what a plan depends on."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.plan import PlanConfig
from pipeline.config.recipes import with_recipe


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
        ({"budget": "200Gb"}, "budget: has the unit 'Gb'; should be a number of patches"),
        ({"budget": 0}, "budget: should be at least 1"),
        ({"budget": True}, "budget: "),
        ({"budget": "9", "patches_per_slide": 9}, "both say how many patches there are"),
        (
            {"budget": "12h"},
            r"rate_from: --budget 12h is of time and needs a rate: give --rate, .*, or --rate-from, a store$",
        ),
        ({"budget": "12h", "rate": 1, "rate_from": "s.zarr"}, "rate_from: .* and not both"),
        ({"budget": "12h", "rate": 0}, "rate: "),
        ({"budget": "12h", "rate": 1e300}, "rate: "),
        ({"budget": "9", "rate": 1}, "rate: goes with a budget in time"),
        ({"rate_from": "s.zarr"}, "rate_from: goes with a budget in time"),
        ({"budget": "12h", "rate": 1, "budget_width": 9}, "budget_width: goes with a budget in bytes"),
        ({"budget_pixels": "none"}, "budget_pixels: goes with a budget in bytes"),
        ({"clusters": 8}, "clusters: goes with --sample cluster"),
        ({"candidates": 8, "sample": "uniform"}, "candidates: goes with --sample cluster"),
        ({"candidates": 1, "sample": "cluster"}, "candidates: "),
        ({"sampler_encoder": "a"}, "sampler_encoder: goes with --sample cluster"),
        ({"budget": "9", "sample": "cluster"}, "budget: does not go with --sample cluster"),
        ({"balance": "center", "sample": "cluster"}, "balance: does not go with --sample cluster"),
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


def test_a_budget_takes_the_place_of_the_number_a_slide() -> None:
    config = PlanConfig.build({"budget": "500,000"})
    assert "patches_per_slide" not in config.record()
    assert config.deciding() == {n: v for n, v in PlanConfig().deciding().items() if n != "patches_per_slide"} | {
        "budget": "500000"
    }
    assert (config.sampling.patches_per_slide, PlanConfig().sampling.patches_per_slide) == (None, 1000)
    assert PlanConfig.build({"budget": 500_000}) == PlanConfig.from_record(config.record()) == config
    assert PlanConfig.build({"budget": "12 h", "rate": 150}).record()["budget"] == "12h"


def test_a_recipes_number_a_slide_gives_way_to_a_budget() -> None:
    config = with_recipe(PlanConfig, {"recipe": "paper", "budget": "9"}, "plan")
    assert (config.budget, config.tile_px) == ("9", 256)
    assert with_recipe(PlanConfig, config.stored(), "plan") == config
    with pytest.raises(ConfigError, match="Give one of them"):
        with_recipe(PlanConfig, {"recipe": "paper", "budget": "9", "patches_per_slide": 5}, "plan")


def test_clusters_are_in_the_record_only_where_they_are_used() -> None:
    assert not {"sample", "candidates", "clusters"} & PlanConfig().record().keys()
    config = PlanConfig(sample="cluster", clusters=8)
    assert config.deciding() == PlanConfig().deciding() | {"sample": "cluster", "clusters": 8}
    assert PlanConfig.from_record(config.record()) == config
    assert (config.sampling.num_drawn, PlanConfig().sampling.num_drawn) == (4000, 1000)
    assert (config.sampling.clusters, PlanConfig(sample="cluster").sampling.clusters) == (8, 16)


def test_an_encoder_of_candidates_is_kept_by_its_hash_and_not_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    config = PlanConfig(sample="cluster", sampler_encoder=f"lcnet_050@{tmp_path}/w.safetensors", device="cpu")
    assert config.sampling.by_encoder
    assert not config.sampling.looks_at_once
    assert PlanConfig(sample="cluster").sampling.looks_at_once
    kept = config.for_plan("lcnet_050@sha256:ab")
    assert kept.deciding() == PlanConfig().deciding() | {"sample": "cluster", "sampler_encoder": "lcnet_050@sha256:ab"}
    assert "device" not in kept.record()
    assert PlanConfig.from_record(kept.record()) == kept
    assert not {"sampler_encoder", "device"} & PlanConfig(sample="cluster").for_plan().record().keys()


def test_the_record_beside_a_plan_has_the_path_of_the_encoders_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pth").touch()
    config = PlanConfig(sample="cluster", sampler_encoder="lcnet_050@w.pth")
    assert config.stored()["sampler_encoder"] == f"lcnet_050@{tmp_path}/w.pth"
