"""Notes on scores where folds or resamples lack a class: how many count, and what AUROC rests on. Pure.

An AUROC is a share of pairs of rows of the same fold (`bootstrap`). Where folds are small most have no such pair, so
that an AUROC of 1 may rest on a handful; balanced accuracy needs none.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import MIN_DEFINED, MIN_GROUPS, Draws

FEW_PAIRS = 20
"""Pairs of groups below which a note gives their number. Our choice: one of fewer moves the AUROC by more than 0.05."""


def pairs_within_folds(
    truth: NDArray[np.int64], groups: NDArray[np.str_], parts: NDArray[np.int64], classes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each of `classes`, pairs of a group with rows of it and a group with rows of others in the same fold.

    `truth`, `groups` and `parts` (the fold) are of scored rows, (N,). A group that has both makes a pair with itself.
    """
    pairs = np.zeros(len(classes), np.int64)
    for part in np.unique(parts):
        here = parts == part
        for index, name in enumerate(classes):
            own, other = (len(np.unique(groups[here & which])) for which in (truth == name, truth != name))
            pairs[index] += own * other
    return pairs


def resample_notes(
    draws: Mapping[str, Draws],
    truth: NDArray[np.int64],
    groups: NDArray[np.str_],
    parts: NDArray[np.int64],
    names: Sequence[str],
    unit: str,
) -> list[str]:
    """Notes on resamples that no interval counts, and on an AUROC of few pairs or of none.

    Args:
        draws: of one model, by metric, with balanced_accuracy and auroc; which resamples count is the same for all.
        truth, groups, parts: class, group and fold of every scored row, (N,).
        names: of the classes.
        unit: what the groups are called, in the plural.
    """
    classes = np.unique(truth)
    pairs = pairs_within_folds(truth, groups, parts, classes)
    total, lacking = len(draws["auroc"].draws), draws["balanced_accuracy"].num_dropped
    has_intervals = len(np.unique(groups)) >= MIN_GROUPS
    notes = []
    if has_intervals and lacking:
        none = ", and none is given" if lacking > MIN_DEFINED * total else ""
        notes.append(f"{lacking:,} of {total:,} resamples lack a class; no interval counts them{none}.")
    without = [names[int(name)] for name, count in zip(classes, pairs, strict=True) if not count]
    if without:
        listed = " or ".join(repr(name) for name in without)
        return [
            *notes,
            f"There is no AUROC: it compares what the same fold scored, and no fold scores {listed} beside "
            "another class. Take fewer folds (--folds). The other metrics compare nothing and are not concerned.",
        ]
    more = draws["auroc"].num_dropped - lacking
    if has_intervals and more > 0:
        none = "; its interval is not given" if lacking + more > MIN_DEFINED * total else ""
        notes.append(
            f"{more:,} of {total:,} resamples have all classes, but a class never in a fold with another, and no "
            f"AUROC{none}. The intervals of the other metrics count them."
        )
    if (fewest := int(pairs.min())) < FEW_PAIRS:
        notes.append(
            f"AUROC rests on few comparisons: it compares what the same fold scored, {fewest:,} "
            f"pair{'s' * (fewest != 1)} of {unit} of different classes"
            + (f" for {names[int(classes[pairs.argmin()])]!r}." if len(classes) > 2 else ".")
        )
    return notes
