"""Share a number of patches evenly over clusters, with a cap for each slide and case. Pure."""

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.draws.filling import highest_level


def _ranks(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier entries are of the same group; int64 (N,)."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(groups) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(groups)])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return ranks


def choose_evenly(
    clusters: NDArray[np.int64],
    slides: NDArray[np.int64],
    cases: NDArray[np.int64],
    keys: NDArray[np.uint64],
    number: int,
    slide_room: NDArray[np.int64],
    case_room: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Choose `number` of N patches, or as many as the rooms allow; bool (N,).

    Clusters get equal shares, and within each the clusters of the second level; one that has fewer gives all, and the
    others share the rest. The smallest are served first, so that caps fall on common tissue. Within a cluster keys
    decide.

    Args:
        clusters: (N, 2), cluster and cluster within it.
        slides, cases: (N,), numbers from 0.
        slide_room, case_room: most patches of each slide and each case.
    """
    order = np.argsort(keys, kind="stable")
    taken = np.zeros(len(keys), bool)
    slide_left, case_left = slide_room.copy(), case_room.copy()
    width = int(clusters[:, 1].max(initial=0)) + 1
    leaves = clusters[:, 0] * width + clusters[:, 1]
    num_clusters = int(clusters[:, 0].max(initial=-1)) + 1
    while (left := number - int(taken.sum())) > 0:
        free = order[~taken[order] & (slide_left[slides[order]] > 0) & (case_left[cases[order]] > 0)]
        if not len(free):
            break
        counts = np.bincount(leaves[free], minlength=num_clusters * width).reshape(num_clusters, width)
        held = np.bincount(leaves[taken], minlength=num_clusters * width).reshape(num_clusters, width)
        goals = _raise_to_level(counts, held, left)
        members = np.split(free[np.argsort(leaves[free], kind="stable")], np.cumsum(counts.ravel())[:-1])
        for leaf in np.argsort(counts.ravel(), kind="stable"):
            rows = members[leaf]
            rows = rows[_ranks(slides[rows]) < slide_left[slides[rows]]]
            rows = rows[_ranks(cases[rows]) < case_left[cases[rows]]][: goals.ravel()[leaf]]
            taken[rows] = True
            slide_left -= np.bincount(slides[rows], minlength=len(slide_left))
            case_left -= np.bincount(cases[rows], minlength=len(case_left))
    return taken


def _raise_to_level(counts: NDArray[np.int64], held: NDArray[np.int64], left: int) -> NDArray[np.int64]:
    """How many more each leaf (K, W) should give, so that clusters, and leaves within them, come to equal shares of
    what they hold and `left` more; at least one patch in all if there is one.
    """
    goals = np.zeros_like(counts)
    shares = _more(counts.sum(axis=1), held.sum(axis=1), left)
    for cluster, share in enumerate(shares):
        goals[cluster] = _more(counts[cluster], held[cluster], share)
    return goals


def _more(available: NDArray[np.int64], held: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Give `number` to parts, (K,), those that hold least first, until all hold the same; int64 (K,)."""

    def cost(level: int) -> int:
        return int(np.clip(level - held, 0, available).sum())

    level = highest_level(cost, number, int((available + held).max(initial=0)))
    more = np.clip(level - held, 0, available)
    rest = np.flatnonzero((more < available) & (held + more == level))[: max(number - int(more.sum()), 0)]
    more[rest] += 1
    return more
