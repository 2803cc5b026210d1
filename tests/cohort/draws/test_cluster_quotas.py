"""Quotas: as many as wanted, clusters even, caps kept, order of no effect."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.cohort.draws.cluster_quotas import choose_evenly

NO_CAP = 10**6


def cohort(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Clusters, slides, cases (two slides each) and keys of 3,000 candidates."""
    random = np.random.default_rng(seed)
    first = random.choice(6, 3000, p=(0.6, 0.2, 0.1, 0.06, 0.03, 0.01))
    slides = np.sort(random.integers(0, 10, 3000))
    clusters = np.stack([first, random.choice(3, 3000, p=(0.7, 0.2, 0.1))], axis=1)
    return clusters, slides, slides // 2, random.integers(0, 2**63, 3000).astype(np.uint64)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_share_evenly_what_they_have(seed: int) -> None:
    clusters, slides, cases, keys = cohort(seed)
    room = np.full(10, NO_CAP)
    taken = choose_evenly(clusters, slides, cases, keys, 750, room, room)
    counts, have = np.bincount(clusters[taken, 0], minlength=6), np.bincount(clusters[:, 0], minlength=6)
    level = max(counts)
    assert taken.sum() == 750
    assert all(count == min(number, level) or count == level - 1 for count, number in zip(counts, have, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_caps_are_kept_and_the_number_is_reached(seed: int) -> None:
    clusters, slides, cases, keys = cohort(seed)
    clusters[:, 0] = np.where(slides == 3, 5, clusters[:, 0] % 5)  # one cluster lives on one slide
    taken = choose_evenly(clusters, slides, cases, keys, 750, np.full(10, 150), np.full(5, 225))
    assert taken.sum() == 750
    assert np.bincount(slides[taken]).max() <= 150
    assert np.bincount(cases[taken]).max() <= 225
    rooms = np.full(10, 20), np.full(5, NO_CAP)
    assert choose_evenly(clusters, slides, cases, keys, 750, *rooms).sum() == 200  # all that there is room for


def test_order_does_not_matter_and_keys_decide() -> None:
    clusters, slides, cases, keys = cohort(0)
    order = np.random.default_rng(1).permutation(3000)
    args = 500, np.full(10, 100), np.full(5, 150)
    taken = choose_evenly(clusters, slides, cases, keys, *args)
    np.testing.assert_array_equal(
        taken[order], choose_evenly(clusters[order], slides[order], cases[order], keys[order], *args)
    )
    one = np.zeros((3000, 2), np.int64)
    room = np.full(10, NO_CAP)
    np.testing.assert_array_equal(
        np.flatnonzero(choose_evenly(one, slides, cases, keys, 40, room, room)), np.sort(np.argsort(keys)[:40])
    )


def test_nothing_to_choose_from() -> None:
    none = np.zeros(0, np.int64)
    room = np.ones(1, np.int64)
    assert not len(choose_evenly(np.zeros((0, 2), np.int64), none, none, none.astype(np.uint64), 3, room, room))
