"""Subsets of the training rows nest, by slide, case and patch, and leave the held-out rows alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stores import make_store, plain_vit, plan_of_rows, train_config

from pipeline.base.errors import ConfigError
from pipeline.cohort.plan import Plan
from pipeline.sampling import TRAIN
from pipeline.training.rows.choice import choose_rows
from pipeline.training.rows.subset import RowSubset, rank_training_slides

SIZES = (5, 9, 3, 7, 6, 8, 4)


def plan_with_cases() -> Plan:
    """Seven slides to train on, of four cases: two have two slides, one has two, one has one."""
    plan = plan_of_rows(SIZES, (4, 4))
    cases = ["a", "a", "b", "b", "c", "c", "d", "x", "y"]
    for slide, case in zip(plan.slides, cases, strict=True):
        object.__setattr__(slide, "case_id", case)
    return plan


def train_rows(plan: Plan) -> np.ndarray:
    return np.flatnonzero(plan.split() == TRAIN)


@given(seed=st.integers(0, 50), patches=st.sampled_from([None, 2, 5]))
def test_slides_and_their_cases_nest(seed: int, patches: int | None) -> None:
    plan = plan_with_cases()
    rows, slides, cases = train_rows(plan), plan.slide_of_row(), plan.case_of_row()
    before: set[int] = set()
    order: list[str] = []
    for count in range(1, len(SIZES) + 1):
        chosen = RowSubset(count, patches, seed).restrict(rows, plan)
        assert len(np.unique(slides[chosen])) == count
        assert before < set(chosen.tolist()) <= set(rows.tolist())
        assert chosen.tolist() == sorted(chosen.tolist())
        order += [case for case in np.unique(cases[chosen]) if case not in order]
        whole = [case for case in order if set(slides[rows][cases[rows] == case]) <= set(slides[chosen])]
        assert len(order) - len(whole) <= 1  # one case at most is there in part
        before = set(chosen.tolist())
    if patches is None:
        assert before == set(rows.tolist())


@given(seed=st.integers(0, 50))
def test_patches_of_a_slide_nest(seed: int) -> None:
    plan = plan_with_cases()
    rows, slides, before = train_rows(plan), plan.slide_of_row(), set()
    for count in range(1, max(SIZES) + 2):
        chosen = RowSubset(None, count, seed).restrict(rows, plan)
        assert np.bincount(slides[chosen]).tolist() == [min(size, count) for size in SIZES]
        assert before <= set(chosen.tolist())
        before = set(chosen.tolist())
    assert before == set(rows.tolist())


def test_each_slide_and_patch_is_as_likely_as_another() -> None:
    plan = plan_with_cases()
    rows = train_rows(plan)
    first = [rank_training_slides(list(range(7)), plan, seed)[0] for seed in range(400)]
    of_case = np.bincount([["a", "b", "c", "d"].index(plan.slides[slide].case_id) for slide in first])
    assert (abs(of_case - 100) < 45).all()  # four standard deviations
    patch = [int(RowSubset(None, 1, seed).restrict(rows, plan)[0]) for seed in range(400)]
    assert (abs(np.bincount(patch, minlength=5) - 80) < 40).all()


def test_without_a_number_nothing_is_left_out(tmp_path: Path) -> None:
    plan = plan_with_cases()
    rows = train_rows(plan)
    assert RowSubset().restrict(rows, plan) is rows
    teacher = make_store(tmp_path / "s.zarr", failed=(5,)).first
    plain = choose_rows([teacher], batch_size=4, val_rows=5, seed=1)
    few = choose_rows([teacher], batch_size=4, val_rows=5, seed=1, subset=RowSubset(2, 6, 1))
    assert few.val.tolist() == plain.val.tolist()
    assert len(few.train) == 12
    assert set(few.fit) <= set(few.train) < set(plain.train)
    assert 5 not in few.train


def test_more_slides_than_there_are_is_refused() -> None:
    plan = plan_with_cases()
    with pytest.raises(ConfigError, match="--train-slides 8: the store has 7 slides"):
        RowSubset(8).restrict(train_rows(plan), plan)


def test_a_run_without_these_options_is_recorded_as_before(tmp_path: Path) -> None:
    config = train_config(plain_vit(tmp_path / "vit"))
    assert not {"train_slides", "train_patches_per_slide"} & config.record().keys()
