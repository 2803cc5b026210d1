"""Cluster described patches in two levels by k-means in integers. Pure.

Coordinates and centres are small integers, so that every product and sum is exact whatever the number of threads, the
library or the machine. Seeding is that of k-means++ (Arthur and Vassilvitskii 2007), its draws decided by the patches'
keys. Left out: more than two levels, and resampling between levels (Vo et al. 2024, arXiv 2405.15613).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

UNIT: Final = 32
"""Steps of one standard deviation; with `FARTHEST`, distances stay below 2**24 and so exact in 32 bits."""
FARTHEST: Final = 127
"""Values are cut at this many steps, four standard deviations."""
ROUNDS: Final = 12
"""Rounds of Lloyd's algorithm. Our choice: centres in integers mostly stand still before."""
CHUNK: Final = 65536
"""Patches that are compared with all centres at once; bounds memory."""


def standardise_facts(facts: NDArray[np.uint16], reference: NDArray[np.int64]) -> NDArray[np.int8]:
    """Bring each of the D facts (N, D) to mean 0 and the same spread over the `reference` rows; int8 (N, D)."""
    chosen = facts[reference].astype(np.int64)
    num = max(len(chosen), 1)
    mean = chosen.sum(axis=0) / num
    spread = np.sqrt(np.maximum((chosen**2).sum(axis=0) / num - mean**2, 0))
    spread[spread < 1] = np.inf  # a fact that is the same everywhere tells nothing
    scaled = np.empty(facts.shape, np.int8)
    for start in range(0, len(facts), CHUNK):
        part = (facts[start : start + CHUNK] - mean) / spread * UNIT
        scaled[start : start + CHUNK] = np.clip(np.rint(part), -FARTHEST, FARTHEST)
    return scaled


def nearest_centre(values: NDArray[np.int8], centres: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nearest of the centres (K, D) to each of the values (N, D), the first of equally near ones; int64 (N,)."""
    wide = centres.astype(np.float32)
    lengths = (wide**2).sum(axis=1)
    nearest = np.empty(len(values), np.int64)
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK].astype(np.float32)
        nearest[start : start + CHUNK] = np.argmin(lengths - 2 * (part @ wide.T), axis=1)
    return nearest


def find_centres(values: NDArray[np.int8], keys: NDArray[np.uint64], num: int) -> NDArray[np.int64]:
    """Centres of at most `num` clusters of the values (N, D), N >= 1; fewer if fewer values differ. int64 (K, D)."""
    exact = values.astype(np.int64)
    waits = -np.log((np.argsort(np.argsort(keys, kind="stable")) + 0.5) / len(keys))
    centres = [exact[np.argmin(waits)]]
    distances = ((exact - centres[0]) ** 2).sum(axis=1)
    while len(centres) < num and distances.any():
        late = np.full(len(values), np.inf)
        np.divide(waits, distances, out=late, where=distances > 0)
        centres.append(exact[np.argmin(late)])  # chosen with a chance that goes with its squared distance
        distances = np.minimum(distances, ((exact - centres[-1]) ** 2).sum(axis=1))
    found = np.array(centres)
    for _ in range(ROUNDS):
        labels = nearest_centre(values, found)
        counts = np.bincount(labels, minlength=len(found))
        sums = np.stack([np.bincount(labels, column, len(found)) for column in exact.T], axis=1)
        moved = np.where(counts[:, None] > 0, np.rint(sums / np.maximum(counts, 1)[:, None]), found).astype(np.int64)
        if np.array_equal(moved, found):
            break
        found = moved
    return found


def two_levels(
    values: NDArray[np.int8], keys: NDArray[np.uint64], reference: NDArray[np.int64], num: int, num_within: int
) -> NDArray[np.int64]:
    """Cluster the values (N, D), and each cluster again; int64 (N, 2), cluster and cluster within it.

    Args:
        keys: (N,), that decide the draws.
        reference: rows, at least one, that the centres are found from.
        num, num_within: most clusters, and most clusters within one.
    """
    labels = np.zeros((len(values), 2), np.int64)
    labels[:, 0] = nearest_centre(values, find_centres(values[reference], keys[reference], num))
    for cluster in range(num):
        chosen = reference[labels[reference, 0] == cluster]
        if len(chosen):
            members = np.flatnonzero(labels[:, 0] == cluster)
            centres = find_centres(values[chosen], keys[chosen], num_within)
            labels[members, 1] = nearest_centre(values[members], centres)
    return labels
