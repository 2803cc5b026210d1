"""The plan that a store carries: it comes back as it was, and is refused where it is damaged."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.extraction import made_up_plan
from support.store_writing import PATCH_PX, ROWS, continued_store, cut, edit_attributes, flip, spec

from pipeline.base.errors import PlanError, StoreError
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_records import slide_record
from pipeline.store.plan_arrays import read_stored_plan, write_stored_plan
from pipeline.store.store import Store


def test_a_plan_whose_numbers_are_all_zero_is_kept(tmp_path: Path) -> None:
    everything = made_up_plan(ROWS, PATCH_PX)
    one = replace(everything.slides[1], split=np.zeros(len(everything.slides[1].split), np.uint8))
    only_train = replace(everything, slides=(one,))
    store = continued_store(tmp_path / "s.zarr", only_train, spec(pixels="none"))
    assert not (store.folder / "plan" / "split" / "c").exists()  # zarr writes no chunk of zeros
    assert store.plan.hash == only_train.hash
    np.testing.assert_array_equal(store.plan.split(), only_train.split())


def damaged_plans() -> Iterator[tuple[str, Callable[[Path], object]]]:
    def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        edit_attributes(folder / "plan", change)

    yield "gone", lambda f: shutil.rmtree(f / "plan")
    yield "no record", lambda f: edit(f, lambda a: a.pop("slides"))
    yield "slide", lambda f: edit(f, lambda a: a["slides"][0].pop("geometry"))
    yield "split gone", lambda f: shutil.rmtree(f / "plan" / "split")
    yield "coords", lambda f: flip(f / "plan" / "coords" / "c" / "0" / "0", 40)
    yield "coords cut", lambda f: cut(f / "plan" / "coords" / "c" / "0" / "0")
    yield "hash", lambda f: edit_attributes(f, lambda a: a.update(plan_hash="0" * 64))


@pytest.mark.parametrize(("name", "damage"), list(damaged_plans()), ids=[name for name, _ in damaged_plans()])
def test_a_damaged_plan_is_told(copy: Path, name: str, damage: Callable[[Path], object]) -> None:
    damage(copy)
    with pytest.raises((StoreError, PlanError), match="plan"):
        assert Store(copy).plan, name


def test_a_plan_comes_back_as_it_was(tmp_path: Path, plan: Plan) -> None:
    write_stored_plan(tmp_path / "plan", plan)
    again = read_stored_plan(tmp_path / "plan", plan.hash)
    assert again.hash == plan.hash
    assert (again.config, again.audit) == (plan.config, plan.audit)
    assert [slide_record(slide) for slide in again.slides] == [slide_record(slide) for slide in plan.slides]
    np.testing.assert_array_equal(again.coords(), plan.coords())
    np.testing.assert_array_equal(again.split(), plan.split())
    np.testing.assert_array_equal(zarr.open_array(f"{tmp_path}/plan/slide", mode="r")[:], plan.slide_of_row())


def test_another_plan_is_not_taken_for_it(tmp_path: Path, plan: Plan) -> None:
    write_stored_plan(tmp_path / "plan", made_up_plan(ROWS + 1, PATCH_PX))
    with pytest.raises(StoreError, match="not the plan that the store was made by"):
        read_stored_plan(tmp_path / "plan", plan.hash)


def test_coordinates_stay_on_disk_and_come_back_slide_by_slide(tmp_path: Path, plan: Plan) -> None:
    write_stored_plan(tmp_path / "plan", plan)
    again = read_stored_plan(tmp_path / "plan", plan.hash)
    for slide, before in zip(again.slides, plan.slides, strict=True):
        assert not any(isinstance(value, np.ndarray) and value.ndim == 2 for value in vars(slide).values())
        assert slide.coords_l0_px.dtype == np.int64
        np.testing.assert_array_equal(slide.coords_l0_px, before.coords_l0_px)
        changed = replace(slide, coords_l0_px=before.coords_l0_px + 1)
        np.testing.assert_array_equal(changed.coords_l0_px, before.coords_l0_px + 1)
        np.testing.assert_array_equal(replace(slide, center="x").coords_l0_px, before.coords_l0_px)
    assert again.num_rows == plan.num_rows


def test_coordinates_that_are_lost_later_are_told(tmp_path: Path, plan: Plan) -> None:
    write_stored_plan(tmp_path / "plan", plan)
    again = read_stored_plan(tmp_path / "plan", plan.hash)
    cut(tmp_path / "plan" / "coords" / "c" / "0" / "0")
    with pytest.raises(StoreError, match="coords: the store's plan is damaged"):
        again.coords()
