"""Correlations of a projection with the teacher's embeddings, of the data and of each resample of cases. Pure.

The figures are those of training (`training.similarity.Fidelity`), which do not depend on a projection's spread. Those
of a resample are computed from sums over groups, as in all of `evaluate.bootstrap`: no row is copied.
"""

import numpy as np
import torch

from pipeline.evaluate.bootstrap import MIN_GROUPS, Draws, Floats, GroupResamples
from pipeline.training.similarity import correlations, scaled_r2

BLOCK_DIMENSIONS = 64
"""Dimensions in work at once. Our choice: of 10,000 resamples their sums take 26 MB."""
NO_SPREAD = 1e-12
"""A sum of squares about the mean below this share of that about 0 is the rounding of float64."""


def correlation_draws(projected: Floats, target: Floats, resamples: GroupResamples) -> dict[str, Draws]:
    """`correlation_mean`, `correlation_median` and `r2_scaled` of `projected` and `target` (N, T), by these names.

    Fewer than `MIN_GROUPS` groups give no draws (NaN). A dimension that does not vary in a resample has correlation 0
    there; a resample whose targets do not vary at all has no `r2_scaled` (NaN).
    """
    sides = torch.from_numpy(projected), torch.from_numpy(target)
    by_dimension = correlations(*sides)
    values = {
        "correlation_mean": float(by_dimension.mean()),
        "correlation_median": float(by_dimension.quantile(0.5)),
        "r2_scaled": scaled_r2(*sides),
    }
    if resamples.num_groups < MIN_GROUPS:
        return {name: Draws(value, np.full(len(resamples), np.nan)) for name, value in values.items()}
    correlation, variance = _resampled(projected, target, resamples)
    explained, total = (np.square(correlation) * variance).sum(1), variance.sum(1)
    scaled = np.divide(explained, total, out=np.full(len(total), np.nan), where=total > 0)
    draws = (correlation.mean(1), np.median(correlation, axis=1), scaled)
    return {name: Draws(value, of) for (name, value), of in zip(values.items(), draws, strict=True)}


def _resampled(projected: Floats, target: Floats, resamples: GroupResamples) -> tuple[Floats, Floats]:
    """Each dimension's correlation, and the target's sum of squares about its mean, in each resample: (B, T) each."""
    rows = resamples.sums(np.ones((len(target), 1)))
    blocks = [slice(start, start + BLOCK_DIMENSIONS) for start in range(0, target.shape[1], BLOCK_DIMENSIONS)]
    parts = []
    for block in blocks:
        x, y = (side[:, block] - side[:, block].mean(0) for side in (projected, target))
        sums = resamples.sums(np.concatenate([x, y, x * x, y * y, x * y], axis=1))
        sum_x, sum_y, xx, yy, xy = np.split(sums, 5, axis=1)
        of_x, of_y = _about_mean(xx, sum_x, rows), _about_mean(yy, sum_y, rows)
        scale = np.sqrt(of_x) * np.sqrt(of_y)
        correlation = np.divide(xy - sum_x * sum_y / rows, scale, out=np.zeros_like(scale), where=scale > 0)
        parts.append((np.clip(correlation, -1, 1), of_y))
    return np.concatenate([part for part, _ in parts], axis=1), np.concatenate([of_y for _, of_y in parts], axis=1)


def _about_mean(squares: Floats, sums: Floats, rows: Floats) -> Floats:
    """Sums of squares about the mean, 0 where they are no more than rounding."""
    about: Floats = squares - sums * sums / rows
    return np.where(about > NO_SPREAD * squares, about, 0.0)
