"""The nearest rows: whatever is left out of the products, the neighbours are those of the plain search."""

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.evaluate import directions, neighbours
from pipeline.evaluate.directions import GRID_BITS, Floats, grid_directions, nearest
from pipeline.evaluate.neighbours import float32_directions, nearest_among, nearest_of_all, product_error

KINDS = ("spread", "coarse", "close", "copies", "constant")


def make_grid(kind: str, num_rows: int = 300, width: int = 24, seed: int = 0) -> Floats:
    """Directions: without ties, with many, closer than float32 tells apart, each twelve times, or all the same."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((num_rows, width))
    if kind == "coarse":
        values = rng.integers(-1, 2, size=(num_rows, width)) + np.eye(width)[0] * 3
    if kind == "close":
        values = 1 + values * 1e-5
    if kind == "copies":
        values = np.repeat(values[: num_rows // 12], 12, axis=0)
    if kind == "constant":
        values = np.ones((num_rows, width))
    return grid_directions(values)


def by_sorting(grid: Floats, rows: NDArray[np.int64], among: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return np.argsort(-(grid[rows] @ grid[among].T), axis=1, kind="stable")[:, :count]


@pytest.mark.parametrize("block", [700, 1 << 23])
@pytest.mark.parametrize("count", [1, 4, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_few_neighbours_are_those_of_exact_products(
    kind: str, count: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directions, "BLOCK_CELLS", block)
    grid = make_grid(kind)
    mixed = np.random.default_rng(1).permutation(300)
    rows, among = mixed[:60], mixed[60:]
    found = np.full((60, count), -1)
    for part, places in nearest_among(grid, float32_directions(grid), rows, among, count):
        found[part] = places
    assert np.array_equal(found, by_sorting(grid, rows, among, count))


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_neighbours_as_there_are(kind: str) -> None:
    grid, rows, among = make_grid(kind, 36), np.arange(5), np.arange(5, 36)
    ((_, places),) = nearest_among(grid, float32_directions(grid), rows, among, 31)
    assert np.array_equal(places, by_sorting(grid, rows, among, 31))


@pytest.mark.parametrize("width", [3, 300, 2560])
def test_products_in_float32_are_within_the_error(width: int) -> None:
    values = np.abs(np.random.default_rng(0).standard_normal((200, width)))  # no two roundings cancel by sign
    grid = grid_directions(values)
    unit = float32_directions(grid)
    difference = (unit @ unit.T).astype(np.float64) - grid @ grid.T / 4.0**GRID_BITS
    assert 0 < np.abs(difference).max() < product_error(width)


@pytest.mark.parametrize("floors", ["sampled", "too high", "lowest"])
@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("count", [2, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_many_neighbours_are_those_of_a_stable_sort(
    kind: str, count: int, cores: int, floors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of rows that are searched together, whatever the floors and however many threads."""
    monkeypatch.setattr(directions, "BLOCK_CELLS", 7000)
    monkeypatch.setattr(neighbours, "MIN_SHARED_ROWS", 1)
    monkeypatch.setattr(neighbours, "usable_cores", lambda: cores)
    if floors != "sampled":
        value = np.inf if floors == "too high" else -np.inf
        monkeypatch.setattr(neighbours._SharedSearch, "look", lambda self, block: self.floors[block].fill(value))
    grid = make_grid(kind)
    products = grid @ grid.T
    found, values = np.full((300, count), -1), np.zeros((300, count))
    times, lock = np.zeros(300, np.int64), threading.Lock()

    def use(block: slice, columns: NDArray[np.int64], of_columns: Floats) -> None:
        with lock:
            found[block], values[block] = columns, of_columns
            times[block] += 1

    nearest_of_all(grid, count, use)
    assert (times == 1).all()
    assert np.array_equal(found, nearest(products, count))
    assert np.array_equal(values, np.take_along_axis(products, found, 1))


def test_a_failure_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def use(block: slice, columns: NDArray[np.int64], products: Floats) -> None:
        raise ValueError("of the block")

    for least in (1, 4096):
        monkeypatch.setattr(neighbours, "MIN_SHARED_ROWS", least)
        with pytest.raises(ValueError, match="of the block"):
            nearest_of_all(make_grid("spread"), 3, use)
