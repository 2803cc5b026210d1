"""The order of rows: their numbers and keys, which come when in an epoch, and which view each shows.

Everything is a function of (seed, epoch, row), so that a run can continue at any step.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.base.draws import RunDraws
from pipeline.cohort.views.views import Views
from pipeline.sampling import RowNumbers, patch_keys

KEYS_AT_ONCE = 1 << 16
"""Rows whose keys are held at once. Our choice: 3 MB."""


def row_numbers(wanted: NDArray[np.bool_]) -> RowNumbers:
    """Numbers of the rows that are `wanted` (N,), ascending."""
    numbers: RowNumbers = np.empty(np.count_nonzero(wanted), np.int32 if len(wanted) <= 2**31 else np.int64)
    done = 0
    for start in range(0, len(wanted), KEYS_AT_ONCE):
        some = start + np.flatnonzero(wanted[start : start + KEYS_AT_ONCE])
        numbers[done : done + len(some)] = some
        done += len(some)
    return numbers


def row_keys(rows: RowNumbers, seed: int, epoch: int, purpose: str) -> NDArray[np.uint64]:
    """A 64-bit key for each row, from (seed, epoch, row, purpose) alone; uint64 (N,)."""
    return patch_keys(purpose, np.stack([rows, np.full_like(rows, epoch)], axis=1, dtype=np.int64), seed)


def epoch_order(rows: RowNumbers, seed: int, epoch: int, purpose: str = "order") -> RowNumbers:
    """Shuffle the rows for an epoch: sorted by key, so the order is the same on every machine.

    `rows` are ascending. They are sorted a share at a time, for all keys and their order take 40 bytes a row.
    """
    order = np.empty_like(rows)
    share = np.empty(len(rows), np.uint8)
    for start in range(0, len(rows), KEYS_AT_ONCE):
        keys = row_keys(rows[start : start + KEYS_AT_ONCE], seed, epoch, purpose)
        share[start : start + KEYS_AT_ONCE] = keys >> np.uint64(56)
    step, done = max(1, 256 * KEYS_AT_ONCE // max(len(rows), 1)), 0
    for lowest in range(0, 256, step):
        chosen = rows[(share >= lowest) & (share < lowest + step)]
        keys = row_keys(chosen, seed, epoch, purpose)
        order[done : done + len(chosen)] = chosen[np.argsort(keys, kind="stable")]
        done += len(chosen)
    return order


def batches_of(order: RowNumbers, batch_size: int, first: int = 0) -> Iterator[list[int]]:
    """Full batches of an epoch, from batch `first` on; a remainder is dropped, for another epoch to use."""
    for number in range(first, len(order) // batch_size):
        yield order[number * batch_size : (number + 1) * batch_size].tolist()


def row_views(rows: RowNumbers, views: Views, draws: RunDraws, epoch: int, *, plain: bool = True) -> NDArray[np.int64]:
    """The view of each row to show in an epoch, int64 (N,); view 0, the patch itself, is among them if `plain` is set.

    Of K views to show, each is shown once in epochs 0 to K-1, once in the K epochs after these, and so on: in an order
    that is drawn by hash for each row and each K epochs.
    """
    first = 0 if plain else 1
    count = views.count - first
    if not draws.views_in_turn:
        return first + (row_keys(rows, draws.seed, epoch, draws.which_view) % np.uint64(count)).astype(np.int64)
    around, place = divmod(epoch, count)
    keys = [row_keys(rows, draws.seed, around * count + view, draws.which_view) for view in range(count)]
    return first + np.argsort(np.stack(keys, axis=1), axis=1, kind="stable")[:, place].astype(np.int64)
