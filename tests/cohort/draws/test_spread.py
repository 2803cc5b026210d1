"""The spread draw: that of a plain loop, nested, of places and not of indices, far apart, near to every patch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial import cKDTree

from pipeline.cohort.draws.spread import LARGEST_SPAN, places_apart, spread_patches
from pipeline.sampling import patch_keys, sample_patches

STRIDE = 448
places_of_grids = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=60, unique=True)


def on_grid(places: list[tuple[int, int]]) -> NDArray[np.int64]:
    """Corners of patches, in reading order."""
    return np.array(sorted(places, key=lambda xy: xy[::-1]), np.int64).reshape(-1, 2) * STRIDE


def pieces(seed: int, side: int = 90) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Patches of a made-up slide of several pieces, about a quarter of a square grid; and which of them are at the
    rim.
    """
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), side / 18)
    tissue = field > np.quantile(field, 0.75)
    y, x = np.nonzero(tissue)
    return np.stack([x, y], axis=1) * STRIDE, ~binary_erosion(tissue)[y, x]


def least_distance(places: NDArray[np.int64]) -> float:
    """Between any two places."""
    return float(cKDTree(places).query(places, k=2)[0][:, 1].min())


def plainly(slide_id: str, coords: NDArray[np.int64], num: int, seed: int) -> list[tuple[int, int]]:
    """The draw in whole numbers of Python: all pairs, no windows."""
    keys = {tuple(xy): int(key) for xy, key in zip(coords.tolist(), patch_keys(slide_id, coords, seed), strict=True)}
    order = sorted(keys, key=lambda xy: keys[xy])
    apart = int(max(np.ptp(coords, axis=0)))
    taken: list[tuple[int, ...]] = []
    while len(taken) < num:
        for x, y in order:
            if (x, y) not in taken and all((x - a) ** 2 + (y - b) ** 2 >= apart**2 for a, b in taken):
                taken.append((x, y))
        apart //= 2
    return sorted((x, y) for x, y in taken[:num])


@settings(deadline=None, max_examples=60)
@given(places_of_grids, st.integers(1, 60), st.integers(0, 9))
def test_it_is_what_a_plain_loop_takes(places: list[tuple[int, int]], num: int, seed: int) -> None:
    coords = on_grid(places)
    num = min(num, len(coords))
    taken = spread_patches("s", coords, num, seed)
    assert sorted(map(tuple, coords[taken].tolist())) == plainly("s", coords, num, seed)


@settings(deadline=None, max_examples=60)
@given(places_of_grids, st.integers(0, 70), st.integers(0, 70), st.integers(0, 9))
def test_samples_nest_and_are_in_reading_order(places: list[tuple[int, int]], a: int, b: int, seed: int) -> None:
    coords = on_grid(places)
    small, large = (spread_patches("s", coords, num, seed) for num in sorted((a, b)))
    assert len(small) == min(a, b, len(coords))
    assert set(small) <= set(large)
    assert (np.diff(large) > 0).all()


@settings(deadline=None, max_examples=60)
@given(places_of_grids, st.integers(0, 60), st.randoms(use_true_random=False))
def test_it_is_of_places_not_of_indices(places: list[tuple[int, int]], num: int, random: object) -> None:
    coords = on_grid(places)
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(coords))  # type: ignore[attr-defined]
    mixed = coords[order]
    taken, again = coords[spread_patches("s", coords, num, 0)], mixed[spread_patches("s", mixed, num, 0)]
    assert {tuple(xy) for xy in taken.tolist()} == {tuple(xy) for xy in again.tolist()}


def test_all_are_taken_of_few_and_none_of_none() -> None:
    coords = on_grid([(0, 0), (1, 0), (5, 5)])
    for num in (None, 3, 4, 10**9):
        assert spread_patches("s", coords, num, 0).tolist() == [0, 1, 2]
    assert spread_patches("s", coords[:0], 5, 0).tolist() == []
    assert spread_patches("s", coords, 0, 0).tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_patches_are_three_times_as_far_apart_as_those_of_the_uniform_draw(seed: int) -> None:
    coords, _ = pieces(seed)
    num = len(coords) // 40
    spread, uniform = (coords[draw("s", coords, num, seed)] for draw in (spread_patches, sample_patches))
    assert least_distance(spread) >= 3 * least_distance(uniform)


@pytest.mark.parametrize("num", [2, 10, 50, 400])
def test_no_patch_is_far_from_the_sample(num: int) -> None:
    """The distance is halved at most once below the one that left no patch."""
    coords, _ = pieces(0)
    taken = coords[spread_patches("s", coords, num, 0)]
    farthest = cKDTree(taken).query(coords)[0].max()
    assert farthest < 2 * (least_distance(taken) + 1) + 2  # distances are halved in whole pixels


def test_the_rim_is_taken_at_most_twice_as_often_as_by_chance() -> None:
    """Nothing lies beyond it. Greedy farthest points take it up to ten times as often; see benchmarks/RESULTS.md."""
    coords, rim = pieces(1)
    shares = [rim[spread_patches("s", coords, 80, seed)].mean() for seed in range(40)]
    assert rim.mean() < np.mean(shares) < 2 * rim.mean()


def test_places_that_the_patches_have_twice_are_taken_once_each() -> None:
    coords = np.array([[0, 0], [0, 0], [9, 9]])
    assert spread_patches("s", coords, 2, 0).tolist() in ([0, 2], [1, 2])
    assert sorted(places_apart(coords, np.arange(3), 3)) == [0, 1, 2]


def test_far_places_do_not_overflow() -> None:
    coords = np.array([[0, 0], [LARGEST_SPAN - 2, 0], [0, LARGEST_SPAN - 1], [LARGEST_SPAN - 1, LARGEST_SPAN - 1]])
    assert len(spread_patches("s", coords, 3, 0)) == 3
    with pytest.raises(AssertionError):
        spread_patches("s", coords * 2, 3, 0)


def test_a_sample_never_changes() -> None:
    """A plan made years ago must come out again."""
    coords = on_grid([(x, y) for y in range(6) for x in range(8)])
    assert spread_patches("slide", coords, 6, 0).tolist() == [2, 6, 24, 37, 39, 43]
