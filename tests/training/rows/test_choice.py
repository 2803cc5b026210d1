"""The rows of a run, and why there are too few."""

from pathlib import Path

import pytest
from support.stores import make_store

from pipeline.base.errors import ConfigError
from pipeline.sampling import VAL
from pipeline.store.store import Store
from pipeline.training.rows.choice import RowChoice, choose_rows
from pipeline.training.rows.subset import RowSubset


def rows_of(store: Store, *, batch_size: int = 8, val_rows: int = 4, seed: int = 0, world: int = 1) -> RowChoice:
    """The rows that a student of the store's first teacher learns from."""
    return choose_rows([store.first], batch_size=batch_size, val_rows=val_rows, seed=seed, world=world)


def test_chosen_rows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(10,), val=(9,), rows_per_shard=19, failed=(2, 12))
    chosen = rows_of(store)
    assert chosen.train.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert chosen.batch_size == 8
    assert (len(set(chosen.val.tolist())), len(set(chosen.fit.tolist()))) == (4, 4)
    assert set(chosen.val.tolist()) < set(store.first.ok_rows(VAL).tolist())
    assert set(chosen.fit.tolist()) < set(chosen.train.tolist())
    assert chosen.val.tolist() != rows_of(store, seed=1).val.tolist()
    assert chosen.notes == ()
    fewer = rows_of(store, batch_size=64)
    assert (fewer.batch_size, fewer.notes) == (9, ("note: batches of 9: there are no more rows to train on",))
    with pytest.raises(ConfigError, match="a batch of 8 does not divide among 3 processes"):
        rows_of(store, world=3)


def test_one_held_out_row_is_too_few_and_not_none(tmp_path: Path) -> None:
    one = rows_of(make_store(tmp_path / "one.zarr", train=(8,), val=(1,), rows_per_shard=9))
    assert len(one.val) == 0
    (said,) = one.notes
    assert said == ("warning: one row is held out, and 2 are needed to score, so the student will not be scored")


def test_held_out_rows_that_failed_are_the_reason_in_the_note(tmp_path: Path) -> None:
    (said,) = rows_of(make_store(tmp_path / "s.zarr", train=(8,), val=(3,), rows_per_shard=11, failed=(8, 9, 10))).notes
    assert said.startswith("warning: no rows are held out (3 of 3 planned rows failed in extract-teacher), so ")


def test_failed_rows_are_named_as_the_cause_of_too_few_rows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(3,), val=(5,), rows_per_shard=8, failed=(0, 2))
    with pytest.raises(ConfigError, match=r"1 row to train on.* 2 planned rows failed .*--retry-failures"):
        rows_of(store)
    store = make_store(tmp_path / "t.zarr", train=(1,), val=(5,), rows_per_shard=8, failed=(2,))
    with pytest.raises(ConfigError, match=r"1 row to train on.* Plan with more slides"):
        rows_of(store)


def test_failed_rows_are_those_of_the_teacher_that_they_failed_with(tmp_path: Path) -> None:
    sound, failing = (
        make_store(tmp_path / name, train=(3,), val=(3,), rows_per_shard=6, failed=failed).first
        for name, failed in (("a", ()), ("b", (0, 1, 4, 5)))
    )
    failing.name = "second"
    for teachers in ([sound, failing], [failing, sound]):
        with pytest.raises(ConfigError, match=r"1 row to train on.* 2 planned rows failed in \S+ of second: fix"):
            choose_rows(teachers, batch_size=2, val_rows=4, seed=0)
    more = [
        make_store(tmp_path / name, train=(9,), val=(3,), rows_per_shard=12, failed=failed).first
        for name, failed in (("c", ()), ("d", (9, 10)))
    ]
    more[1].name = "second"
    (said,) = choose_rows(more, batch_size=2, val_rows=4, seed=0).notes
    assert "one row is held out, and 2 are needed to score (2 of 3 planned rows failed in extract-teacher of " in said
    assert "of second), so" in said


def test_rows_that_the_user_left_out_have_not_failed(tmp_path: Path) -> None:
    teacher = make_store(tmp_path / "s.zarr", train=(4, 4), val=(5,), rows_per_shard=13, failed=(0,)).first
    with pytest.raises(ConfigError) as caught:
        choose_rows([teacher], batch_size=2, val_rows=4, seed=0, subset=RowSubset(1, 1))
    assert str(caught.value) == (
        "--train-slides 1 and --train-patches-per-slide 1: 1 of 7 rows to train on, at least 2 are needed. Give "
        "larger numbers"
    )
    empty = make_store(tmp_path / "t.zarr", train=(2,), val=(5,), rows_per_shard=7, failed=(0, 1)).first
    with pytest.raises(ConfigError, match=r"0 rows to train on.* 2 planned rows failed"):
        choose_rows([empty], batch_size=2, val_rows=4, seed=0, subset=RowSubset(1))
