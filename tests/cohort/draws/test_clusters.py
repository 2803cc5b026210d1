"""Clusters are those of plain loops, find planted groups, and depend on nothing but values and keys."""

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.draws.clusters import FARTHEST, UNIT, find_centres, nearest_centre, standardise_facts, two_levels


def planted(seed: int = 0) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.uint64]]:
    """Values of five groups, the last of them rare; their groups, and keys."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(5), (500, 300, 200, 100, 12))
    centres = random.integers(-90, 90, (5, 13))
    values = np.clip(centres[group] + random.integers(-6, 7, (len(group), 13)), -FARTHEST, FARTHEST).astype(np.int8)
    return values, group, random.integers(0, 2**63, len(group)).astype(np.uint64)


def test_planted_groups_are_found_the_rare_one_as_well() -> None:
    for seed in range(5):
        values, group, keys = planted(seed)
        labels = nearest_centre(values, find_centres(values, keys, 12))
        assert all(len(set(group[labels == label])) == 1 for label in set(labels))


def test_order_does_not_matter() -> None:
    values, _, keys = planted()
    order = np.random.default_rng(9).permutation(len(values))
    rows = np.arange(len(values))
    labels = two_levels(values, keys, rows, 4, 3)
    np.testing.assert_array_equal(labels[order], two_levels(values[order], keys[order], rows, 4, 3))


def test_the_nearest_is_that_of_exact_integers() -> None:
    random = np.random.default_rng(2)
    values = random.choice(np.array([-FARTHEST, FARTHEST - 1, FARTHEST], np.int8), (3000, 15))
    centres = random.choice([-FARTHEST, FARTHEST], (40, 15)).astype(np.int64)
    exact = ((values.astype(np.int64)[:, None] - centres) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest_centre(values, centres), exact.argmin(axis=1))


def test_facts_get_one_spread_and_constant_ones_tell_nothing() -> None:
    facts = np.random.default_rng(3).normal(3000, 200, (4000, 3)).astype(np.uint16)
    facts[:, 2] = 7
    facts[0, 0] = 65535
    scaled = standardise_facts(facts, np.arange(1, 4000))
    assert scaled.dtype == np.int8
    assert scaled[0, 0] == FARTHEST
    assert abs(scaled[1:, :2].astype(float).std(axis=0) - UNIT).max() < 1
    assert not scaled[:, 2].any()


def test_fewer_clusters_than_wanted_where_fewer_values_differ() -> None:
    values = np.repeat(np.array([[0, 0], [50, 0]], np.int8), 4, axis=0)
    assert len(find_centres(values, np.arange(8, dtype=np.uint64), 5)) == 2
    assert two_levels(values, np.arange(8, dtype=np.uint64), np.arange(8), 5, 5)[:, 1].max() == 0
