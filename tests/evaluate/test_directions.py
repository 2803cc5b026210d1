"""Directions as whole numbers: their products are exact, and the nearest are those of a stable sort."""

import numpy as np
import pytest

from pipeline.evaluate.directions import GRID_BITS, grid_directions, nearest


def test_products_of_directions_are_exact() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 1024)) * 10.0 ** rng.integers(-30, 30, size=(6, 1))
    grid = grid_directions(values.astype(np.float32))
    whole = [[int(cell) for cell in row] for row in grid]
    exact = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in whole] for x in whole]
    assert (grid @ grid.T).tolist() == exact
    assert max(map(max, exact)) < 2**53
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    assert np.abs(grid @ grid.T / 4.0**GRID_BITS - unit @ unit.T).max() < 1e-7


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_nearest_are_those_of_a_stable_sort(count: int) -> None:
    similarity = np.random.default_rng(count).integers(5, size=(50, 12)).astype(np.float64)
    assert nearest(similarity, count).tolist() == np.argsort(-similarity, axis=1, kind="stable")[:, :count].tolist()
