"""Whose rate a store's is, and what was otherwise in it than in the stage one that is planned."""

from pathlib import Path
from typing import Any

import pytest
from support.stores import make_store

from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.store.store import Store
from stages.planning.prices import prices_of
from stages.planning.rates import rate_differences, rate_options, rate_words


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("s") / "s.zarr")


def timed(store: Store, **options: Any) -> PlanConfig:
    return PlanConfig.build({"budget": "1h", "rate_from": store.folder, "patch_px": store.patch_px} | options)


def like(store: Store, **options: Any) -> ExtractConfig:
    return ExtractConfig.build({"teacher": store.first.name} | options)


def of_plan(config: PlanConfig) -> dict[str, str | int]:
    return {"--patch-px": config.patch_px, "--tile-px": config.read_px}


def test_a_store_that_was_made_alike(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    prices_of(timed(store))
    prices_of(timed(store), like(store))
    said = capsys.readouterr().err
    assert f"patches a second of {rate_words(store.first)}\n" in said
    assert "warning" not in said


@pytest.mark.parametrize(
    ("planned", "extracted", "words"),
    [
        ({"patch_px": 224}, {}, ["--patch-px {px}, now 224"]),
        ({"patch_px": 224, "tile_px": 256}, {}, ["--patch-px {px}, now 224", "--tile-px {px}, now 256"]),
        ({"tile_px": 256}, {}, ["--tile-px {px}, now 256"]),
        ({}, {"teacher": "h-optimus-0"}, ["--teacher {name}, now h-optimus-0"]),
        ({}, {"views": 4, "pixels": "none"}, ["--views 1, now 4", "--pixels jpegxl, now none"]),
        ({}, {"patch_qc": True}, ["--patch-qc off, now on"]),
    ],
    ids=str,
)
def test_what_was_otherwise_is_warned_of(
    store: Store,
    capsys: pytest.CaptureFixture[str],
    planned: dict[str, Any],
    extracted: dict[str, Any],
    words: list[str],
) -> None:
    """The hours of one teacher were counted by the rate of another, without a word."""
    config, extract = timed(store, **planned), like(store, **extracted)
    said = [line.format(px=store.patch_px, name=store.first.name) for line in words]
    assert rate_differences(store.first, rate_options(extract) | of_plan(config)) == said
    prices_of(config, extract)
    told = f"warning: --rate-from {store.folder} was made with other options ({'; '.join(said)})"
    assert told in capsys.readouterr().err


def test_the_device_is_named_where_the_store_says_it(store: Store) -> None:
    first = Store(Path(store.folder)).first
    first.attributes["preflight"] = {"device": "NVIDIA H200"}
    assert rate_words(first) == f"{first.name} with patches of {first.patch_px} px, on NVIDIA H200"


def test_a_rate_of_checked_patches_is_told_as_such(store: Store) -> None:
    first = Store(Path(store.folder)).first
    first.settings["patch_qc"] = 2
    assert ", less those that --patch-qc left out" in rate_words(first)
    plan = of_plan(timed(store))
    assert rate_differences(first, plan | rate_options(like(store))) == ["--patch-qc on, now off"]
    assert rate_differences(first, plan | rate_options(like(store, patch_qc=True))) == []
