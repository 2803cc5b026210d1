"""What stage one prepares: the settings of a store, its parts, and notes before work."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.extraction import FURTHER, PATCH_PX, TEACHER, extract, plan_cohort, write_cohort, write_teacher

from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.plan import Plan
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.build import build_encoder
from stages.extracting.prepare import choose_settings, note_on_views, prepare_store, settings_of_views
from stages.extracting.teacher import RunningTeacher


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_cohort(write_cohort(tmp_path_factory.mktemp("slides")))


@pytest.fixture(scope="module")
def running(weights: Path) -> RunningTeacher:
    return RunningTeacher(build_encoder(TEACHER, weights, PATCH_PX), torch.device("cpu"), "float32", weights)


def test_a_batch_size_left_open_is_the_one_that_a_store_was_begun_with(
    plan: Plan, running: RunningTeacher, tmp_path: Path
) -> None:
    """Also with another card, whose room would give another one."""
    options = {"teacher": TEACHER, "preflight": False, "rows_per_shard": 8}
    begun = prepare_store(plan, tmp_path / "s.zarr", ExtractConfig.build(options | {"batch_size": 3}), running)
    open_config = ExtractConfig.build(options)
    assert choose_settings(plan, open_config, running, begun, 8, "jpegxl")["batch_size"] == 3
    assert choose_settings(plan, open_config, running, None, 8, "jpegxl")["batch_size"] == 8  # a shard's rows
    assert prepare_store(plan, tmp_path / "s.zarr", open_config, running).settings == begun.settings


@pytest.mark.parametrize(("seed", "strength", "words"), [(1, None, "--views-seed"), (None, "mild", "--views-strength")])
def test_options_of_views_without_views_are_refused(
    plan: Plan, seed: int | None, strength: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=f"{words}: the patch itself"):
        settings_of_views(plan, 1, seed, strength)
    assert settings_of_views(plan, 1, None, None) == {}


def test_a_strength_that_crops_is_told_where_there_is_nothing_to_crop_from(plan: Plan) -> None:
    tiled = replace(plan, config=plan.config.model_copy(update={"tile_px": PATCH_PX + 8}))
    same = replace(plan, config=plan.config.model_copy(update={"tile_px": PATCH_PX}))
    for told, of in ((True, plan), (True, same), (False, tiled)):
        assert ("nothing is cropped" in note_on_views(of, "paper", 3)) == told
    assert note_on_views(plan, "mild", 3) == note_on_views(plan, "paper", 1) == ""


def test_a_further_teacher_looks_for_the_pixels_that_it_will_see(plan: Plan, weights: Path, tmp_path: Path) -> None:
    """A store that was copied in part is refused before the teacher is begun."""
    store = extract(plan, tmp_path / "s.zarr", weights).teacher.store
    store.first.shard_path("pixels", 0).unlink()
    other = write_teacher(tmp_path / "further.safetensors", FURTHER, seed=3)
    with pytest.raises(StoreError, match=r"1 file that the ledger names .*pixels/c/0/.*copied only"):
        extract(plan, store.folder, other, teacher=FURTHER)
    assert FURTHER not in store.teachers
