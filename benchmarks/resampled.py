"""Intervals of shares and of differences between them, over seeds and over groups (patients or slides) at once.

Seeds and groups are drawn with replacement, as many as there are; what is compared is taken on the same draws. With
five seeds and few groups such intervals are rather too narrow.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 4000


def share_draws(hits: Floats, counts: Floats) -> Floats:
    """The share hits / counts, both (S, C, G), of seeds, classes and groups: first of the data, then of each draw of
    seeds and groups, (1 + B,). With several classes the mean of their shares; NaN where a draw lacks a class.
    """
    num_seeds, _, num_groups = hits.shape
    generator = np.random.default_rng(0)  # the same draws for all that is compared
    seeds = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), RESAMPLES)
    groups = generator.multinomial(num_groups, np.full(num_groups, 1 / num_groups), RESAMPLES)
    seeds = np.concatenate([np.ones((1, num_seeds), int), seeds])
    groups = np.concatenate([np.ones((1, num_groups), int), groups])
    above, below = (np.einsum("bs,scg,bg->bc", seeds, values, groups) for values in (hits, counts))
    shares = np.full(above.shape, np.nan)
    np.divide(above, below, out=shares, where=below > 0)
    mean: Floats = shares.mean(axis=1)
    return mean


def in_words(draws: Floats, *, signed: bool = False) -> str:
    """A value and its 95 % interval."""
    low, high = np.nanpercentile(draws[1:], (2.5, 97.5))
    sign = "+" if signed else ""
    return f"{draws[0]:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
