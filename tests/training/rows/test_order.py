"""The order of rows in an epoch, and the views that they show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.base.draws import RunDraws
from pipeline.cohort.views.views import Views
from pipeline.training.rows.order import KEYS_AT_ONCE, batches_of, epoch_order, row_keys, row_numbers, row_views


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 12), seed=st.integers(0, 2**31), rounds=st.integers(1, 3), plain=st.booleans())
def test_each_view_of_a_row_is_shown_once_in_as_many_epochs(count: int, seed: int, rounds: int, plain: bool) -> None:
    rows, views = np.arange(0, 60, 3), Views(count)
    wanted = range(0 if plain else 1, count)
    num = len(wanted)
    shown = np.stack([row_views(rows, views, RunDraws(seed), e, plain=plain) for e in range(rounds * num)])
    for start in range(0, rounds * num, num):
        assert (np.sort(shown[start : start + num], axis=0) == np.array(wanted)[:, None]).all()
    alone = [int(row_views(rows[7:8], views, RunDraws(seed), e, plain=plain)[0]) for e in range(rounds * num)]
    assert shown[:, 7].tolist() == alone  # a row's views depend on no other row


def test_every_order_of_views_is_as_likely_and_rounds_are_independent() -> None:
    rows, views = np.arange(6000), Views(3)
    shown = np.stack([row_views(rows, views, RunDraws(1), epoch) for epoch in range(6)])
    first, second = (shown[start] * 9 + shown[start + 1] * 3 + shown[start + 2] for start in (0, 3))
    orders = np.unique(first)
    assert len(orders) == 6
    pairs = np.searchsorted(orders, first) * 6 + np.searchsorted(orders, second)
    assert chisquare(np.bincount(pairs, minlength=36)).pvalue > 1e-5


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 300), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_an_epochs_order_is_a_permutation_of_its_own(count: int, seed: int, epoch: int) -> None:
    rows = np.arange(0, 3 * count, 3)
    order = epoch_order(rows, seed, epoch)
    assert np.array_equal(np.sort(order), rows)
    assert np.array_equal(order, epoch_order(rows, seed, epoch))
    if count > 20:
        assert not np.array_equal(order, rows)
        assert not np.array_equal(order, epoch_order(rows, seed, epoch + 1))
        assert not np.array_equal(order, epoch_order(rows, seed + 1, epoch))


@pytest.mark.parametrize("count", [0, 1, 7, 200, 3000])
def test_an_order_sorted_in_shares_is_that_of_all_keys_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(0, 2 * count, 2)
    expected = rows[np.argsort(row_keys(rows, 3, 5, "order"), kind="stable")]
    for at_once in (KEYS_AT_ONCE, 100, 8):
        monkeypatch.setattr("pipeline.training.rows.order.KEYS_AT_ONCE", at_once)
        for kind in (np.int32, np.int64):
            order = epoch_order(rows.astype(kind), 3, 5)
            assert order.dtype == kind
            assert np.array_equal(order, expected)
        assert np.array_equal(row_numbers(np.arange(2 * count) % 2 == 0), rows)


def test_orders_of_two_epochs_are_unrelated() -> None:
    rows = np.arange(2000)
    first, second = epoch_order(rows, 0, 0), epoch_order(rows, 0, 1)
    assert abs(np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]) < 0.1
    assert abs(np.corrcoef(rows, np.argsort(first))[0, 1]) < 0.1


def test_batches_are_full_and_continue_anywhere() -> None:
    order = epoch_order(np.arange(23), 0, 0)
    batches = list(batches_of(order, 5))
    assert [len(batch) for batch in batches] == [5] * 4
    assert [row for batch in batches for row in batch] == order[:20].tolist()
    assert [list(batches_of(order, 5, first)) for first in range(6)] == [batches[first:] for first in range(6)]


def test_every_symmetry_is_drawn() -> None:
    keys = row_keys(np.arange(4000), 0, 0, "augment")
    counts = np.bincount((keys & np.uint64(7)).astype(int), minlength=8)
    assert counts.min() > 400  # 500 expected, deviation 21
