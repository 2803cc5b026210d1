"""Counts by cluster: those of a plain count, and their sums; a damaged column is an error."""

import numpy as np
import pytest

from pipeline.cohort.draws.cluster_counts import counts_of_cohort, counts_of_slide


def test_sums_over_slides_are_a_plain_count() -> None:
    random = np.random.default_rng(0)
    slides = [(random.integers(0, 5, size), random.random(size) < 0.3) for size in (40, 1, 7)]
    columns = [counts_of_slide(clusters, taken) for clusters, taken in slides]
    expected = []
    for number in range(5):
        pool = sum(int((clusters == number).sum()) for clusters, _ in slides)
        sample = sum(int(taken[clusters == number].sum()) for clusters, taken in slides)
        expected.append((number + 1, pool, sample, sum(number in clusters for clusters, _ in slides)))
    assert counts_of_cohort(["", *columns]) == expected
    assert counts_of_slide(np.array([3, 3, 0]), np.array([True, False, True])) == '{"1": [1, 1], "4": [2, 1]}'
    assert counts_of_slide(np.zeros(0, np.int64), np.zeros(0, bool)) == "{}"
    assert counts_of_cohort(["", ""]) == []


@pytest.mark.parametrize("column", ["[]", "{", '{"1": 3}', '{"x": [1, 2]}'])
def test_a_damaged_column_is_an_error(column: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        counts_of_cohort([column])
