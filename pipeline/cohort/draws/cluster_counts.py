"""How many patches of each cluster a slide has in the pool and in the sample: written for the audit, and read."""

import json
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.base.outside import parse_object


def counts_of_slide(clusters: NDArray[np.int64], taken: NDArray[np.bool_]) -> str:
    """The column `cluster_patches` of the audit: JSON, by the number of a cluster, from 1, its candidates and those of
    them that are taken; without clusters that the slide has no candidate of.

    Args:
        clusters: cluster of each candidate of the slide, from 0 (N,).
        taken: which of them are in the plan (N,).
    """
    numbers = np.unique(clusters).tolist()
    inside = {number: clusters == number for number in numbers}
    return json.dumps({str(n + 1): [int(inside[n].sum()), int((inside[n] & taken).sum())] for n in numbers})


def counts_of_cohort(columns: Iterable[str]) -> list[tuple[int, int, int, int]]:
    """Number, candidates, patches taken and slides of each cluster, over the audit's columns; empty if all are.

    Raises:
        ValueError: a column is not what `counts_of_slide` writes.
    """
    pool, taken, slides = Counter[int](), Counter[int](), Counter[int]()
    for column in filter(None, columns):
        for number, counts in parse_object(column).items():
            of_pool, of_sample = counts
            pool[int(number)] += int(of_pool)
            taken[int(number)] += int(of_sample)
            slides[int(number)] += 1
    return [(number, pool[number], taken[number], slides[number]) for number in sorted(pool)]
