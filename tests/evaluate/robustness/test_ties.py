"""What the order among equally near patches can change, against every order there is."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.robustness_patches import Patches, draw

from pipeline.evaluate.directions import grid_directions
from pipeline.evaluate.robustness.ties import Ties, extremes_of


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 3, 7]))
def test_what_another_order_of_ties_gives_is_that_of_plain_loops(seed: int, k: int) -> None:
    patches = draw(seed, num_rows=30, num_classes=2, num_centers=2)
    patches = replace(patches, embeddings=np.rint(patches.embeddings[:, :2] / 2) + 0.25)
    found = patches.index(k)
    grid = grid_directions(patches.embeddings)
    for query in range(30):
        others = [i for i in range(30) if patches.slides[i] != patches.slides[query]]
        near = {i: float(grid[query] @ grid[i]) for i in others}
        at_k = sorted(near.values(), reverse=True)[k - 1]
        sure, tied = [i for i in others if near[i] > at_k], [i for i in others if near[i] == at_k]
        counts = []
        for kinds in {
            tuple(sorted(kind(patches, query, i) for i in chosen)) for chosen in combinations(tied, k - len(sure))
        }:
            of_all = [kind(patches, query, i) for i in sure] + list(kinds)
            counts.append((of_all.count("SO"), of_all.count("OS")))
        so, os = zip(*counts, strict=True)
        ties = found.ties
        assert (ties.least_class[query], ties.most_class[query]) == (min(so), max(so))
        assert (ties.least_center[query], ties.most_center[query]) == (min(os), max(os))
        assert {(min(so), max(os)), (max(so), min(os))} <= set(counts)  # by one and the same order
        assert ties.undecided[query] == (len({a / (a + b) for a, b in counts if a + b}) > 1)
        assert ties.tied[query] == (len(counts) > 1)
        assert (found.same_class[query], found.same_center[query]) in counts


def kind(patches: Patches, query: int, other: int) -> str:
    """What a neighbour counts as."""
    same_class = patches.classes[other] == patches.classes[query]
    same_center = patches.centers[other] == patches.centers[query]
    return "neither" if same_class == same_center else "SO" if same_class else "OS"


def ties_of(*rows: tuple[int, int, int, int]) -> Ties:
    """Of patches with their least and most SO, and least and most OS."""
    return Ties(*np.array(rows, np.int64).reshape(-1, 4).T.copy())


@pytest.mark.parametrize(
    ("rows", "tied", "undecided", "bounds"),
    [
        ([(2, 2, 1, 1)], [False], [False], (2 / 3, 2 / 3)),
        ([(0, 2, 0, 2)], [True], [True], (0.0, 1.0)),
        ([(1, 2, 0, 0)], [True], [False], (1.0, 1.0)),  # however many, OS is 0
        ([(0, 0, 0, 3), (2, 2, 0, 0)], [True, False], [False, False], (2 / 5, 1.0)),
        ([(0, 1, 0, 0)], [True], [False], (1.0, 1.0)),  # at one end there is neither
        ([(0, 0, 0, 0)], [False], [False], (np.nan, np.nan)),
    ],
)
def test_what_depends_on_the_order(
    rows: list[tuple[int, int, int, int]], tied: list[bool], undecided: list[bool], bounds: tuple[float, float]
) -> None:
    ties = ties_of(*rows)
    assert (ties.tied.tolist(), ties.undecided.tolist(), ties.num_tied) == (tied, undecided, sum(tied))
    assert ties.bounds == pytest.approx(bounds, nan_ok=True)


def test_of_patches_without_ties_nothing_depends_on_it() -> None:
    so, os = np.array([3, 0]), np.array([1, 0])
    ties = Ties.none(so, os)
    assert ties.num_tied == 0
    assert ties.bounds == (0.75, 0.75)
    ties.put(np.array([1]), ties_of((0, 1, 2, 3)))
    assert ties.tied.tolist() == [False, True]
    assert ties.bounds == (3 / 7, 4 / 7)
    assert so.tolist() == [3, 0]  # a copy


def test_a_place_for_one_of_two_equally_near_patches() -> None:
    """Patch 0 is asked. Nearest is 1, of its own slide; then 2, of its class and another centre; 3 and 4 are equal."""
    angles = np.array([0.0, 0.01, 0.1, 0.5, -0.5, 3.0])
    grid = grid_directions(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    classes, centers = np.array([0, 1, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0, 0])
    slides, first = np.array([0, 0, 1, 2, 3, 4]), np.array([0])
    expected = {1: (1, 1, 0, 0), 2: (1, 2, 0, 1), 3: (2, 2, 1, 1), 4: (2, 2, 2, 2)}
    for k, counts in expected.items():
        found = extremes_of(grid, classes, centers, slides, first, k)
        assert (found.least_class[0], found.most_class[0], found.least_center[0], found.most_center[0]) == counts
