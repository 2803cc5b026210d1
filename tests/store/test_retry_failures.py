"""Shards of failed rows are done again where a failed row can be read now and no good one would be lost."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.store_writing import FAILED, PATCH_PX, ROWS, continued_store, spec, write_pending

from pipeline.cohort.plan import Plan
from pipeline.store.format import Status
from pipeline.store.patches import PatchRead
from pipeline.store.retry_failures import forget_failures
from pipeline.store.store import Store

ALL = range(ROWS)


class Patches:
    """Rows of which some can be read, and what was asked for."""

    def __init__(self, readable: Collection[int]) -> None:
        self.readable = readable
        self.asked: list[int] = []

    def read(self, row: int, out: NDArray[np.uint8]) -> PatchRead:
        assert out.shape == (PATCH_PX, PATCH_PX, 3)
        self.asked.append(row)
        return PatchRead(Status.OK if row in self.readable else Status.NO_SLIDE)


def retry(store: Path, plan: Plan, readable: Collection[int]) -> tuple[list[int], Patches]:
    """The shards that are to be done again, of three with the failed rows 3, 9 and 21; and what was read for it."""
    first, patches = Store(store).first, Patches(readable)
    forget_failures(first, plan, patches)  # type: ignore[arg-type]
    return first.ledger.pending(), patches


def test_only_the_ends_of_each_slide_are_read(copy: Path, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """Slide a has rows 0 to 6, slide b the rest; rows 3, 9 and 21 have failed."""
    pending, patches = retry(copy, plan, ALL)
    assert pending == [0, 1, 2]
    assert sorted(patches.asked) == [0, 3, 6, 7, 8, 9, 15, 16, 20, 21]
    assert capsys.readouterr().err == ""


def test_where_nothing_is_better_all_shards_stay(copy: Path, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    pending, patches = retry(copy, plan, set(ALL) - FAILED.keys())
    assert pending == []
    assert patches.asked == list(FAILED)
    assert "leaves as they are: 3 (0, 1, 2). Either their failed rows" in capsys.readouterr().err


@pytest.mark.parametrize("lost", [0, 6, 7])
def test_a_shard_stays_where_the_end_of_a_slide_would_be_lost(
    copy: Path, plan: Plan, capsys: pytest.CaptureFixture[str], lost: int
) -> None:
    assert retry(copy, plan, set(ALL) - {lost})[0] == [1, 2]
    assert "leaves as they are: 1 (0). " in capsys.readouterr().err


def test_new_damage_between_the_ends_is_not_noticed(copy: Path, plan: Plan) -> None:
    assert retry(copy, plan, set(ALL) - {4})[0] == [0, 1, 2]


def test_pending_shards_and_shards_without_failures_are_not_read(
    tmp_path: Path, plan: Plan, encoded: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard a row: those of failed rows hold nothing that could be lost."""
    store = continued_store(tmp_path / "s.zarr", plan, spec(rows_per_shard=1))
    write_pending(store, encoded)
    store.first.ledger.forget(5)
    pending, patches = retry(store.folder, plan, {3, 9})
    assert pending == [3, 5, 9]
    assert patches.asked == list(FAILED)
    assert "leaves as they are: 1 (21). " in capsys.readouterr().err
    for row in (3, 9):
        write_pending(store, encoded)
        assert store.first.ledger.read(row) is not None
