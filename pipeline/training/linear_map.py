"""The best linear map from an encoder's embeddings to a teacher's, fitted on training rows.

It measures how much of the teacher an encoder holds linearly, in the same way for all: an encoder that was never
distilled has no projector. Ridge regression on standardised embeddings, with the strength from a grid that has the
smallest squared error, that is the largest explained variance, on left-out cases. Patches of one case resemble each
other, so leaving out one row at a time (Golub, Heath and Wahba, 1979; scikit-learn's RidgeCV) chooses a penalty too
weak for new cases. With a single case, rows are left out instead. Pure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

RELATIVE_STRENGTHS = tuple(10.0**power for power in range(-8, 3))
"""Ridge strengths per row: a standardised column has the sum of squares N. Our choice: from almost no penalty, for an
encoder that holds the teacher, to one that shrinks the map to almost nothing.
"""
MAX_FOLDS = 5
"""Folds of whole cases. Our choice: each fit sees about four fifths of the rows."""
CASES, ROWS = "cases", "rows"
"""What is left out to choose the strength."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearMap:
    """A fitted map of embeddings (N, S) to (N, T).

    Attributes:
        mean, scale: of the embeddings it was fitted on, float64 (S,).
        weight, bias: float64 (S, T) and (T,).
        strength: the one chosen from `RELATIVE_STRENGTHS`.
        left_out: `CASES` or `ROWS`, what was left out to choose it.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats
    strength: float
    left_out: str

    @property
    def is_strongest(self) -> bool:
        """Whether the strength is the upper end of the grid."""
        return self.strength == RELATIVE_STRENGTHS[-1]

    def predict(self, embeddings: NDArray[np.float32]) -> Floats:
        """Map embeddings (N, S) to float64 (N, T)."""
        mapped: Floats = ((embeddings - self.mean) / self.scale) @ self.weight + self.bias
        return mapped


def fit_linear_map(embeddings: NDArray[np.float32], targets: Floats, cases: NDArray[np.str_]) -> LinearMap:
    """Fit embeddings (N, S) to targets (N, T); `cases` (N,) has the case of each row.

    Constant columns of the embeddings are ignored.

    Raises:
        ValueError: fewer than three rows.
    """
    from sklearn.linear_model import Ridge, RidgeCV  # here, so that a run continues before this is imported

    if len(embeddings) < 3:
        raise ValueError("a linear map needs at least three rows")
    values = embeddings.astype(np.float64)
    mean, spread = values.mean(0), values.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    values = (values - mean) / scale
    parts = parts_of_cases(cases)
    by_cases = parts.max() > 0
    if by_cases:
        strength = RELATIVE_STRENGTHS[_last_smallest(left_out_errors(values, targets, parts))]
        ridge = Ridge(alpha=len(values) * strength).fit(values, targets)
    else:
        penalties = [len(values) * share for share in RELATIVE_STRENGTHS]
        ridge = RidgeCV(alphas=penalties).fit(values, targets)
        strength = RELATIVE_STRENGTHS[penalties.index(ridge.alpha_)]
    weight, bias = ridge.coef_.reshape(targets.shape[1], -1).T, np.atleast_1d(ridge.intercept_)
    return LinearMap(mean, scale, weight, bias, strength, CASES if by_cases else ROWS)


def parts_of_cases(cases: NDArray[np.str_]) -> NDArray[np.int64]:
    """Number of the fold that each row is left out with, int64 (N,).

    Puts whole cases, the largest first, each into the fold with the fewest rows; at most `MAX_FOLDS` folds.
    """
    names, case_of_row, sizes = np.unique(cases, return_inverse=True, return_counts=True)
    rows_of_part = np.zeros(min(MAX_FOLDS, len(names)), np.int64)
    part_of_case = np.zeros(len(names), np.int64)
    for case in np.argsort(-sizes, kind="stable").tolist():
        part_of_case[case] = rows_of_part.argmin()
        rows_of_part[part_of_case[case]] += sizes[case]
    return part_of_case[case_of_row]


def left_out_errors(values: Floats, targets: Floats, parts: NDArray[np.int64]) -> Floats:
    """Sum of squared errors of `targets` (N, T) at each of `RELATIVE_STRENGTHS`, each fold of `parts` (N,) predicted by
    ridge regression on the `values` (N, S) of the other folds.

    One decomposition a fold serves all strengths: with the other folds' centred X'X = Q diag(l) Q', the map at
    strength s is Q diag(1 / (l + s)) Q' X'Y, and the error is a quadratic form in 1 / (l + s).
    """
    gram, cross = values.T @ values, values.T @ targets
    sums, target_sums = values.sum(0), targets.sum(0)
    errors = np.zeros(len(RELATIVE_STRENGTHS))
    for part in range(int(parts.max()) + 1):
        out = parts == part
        left, count = values[out], int((~out).sum())
        mean, target_mean = (sums - left.sum(0)) / count, (target_sums - targets[out].sum(0)) / count
        others = gram - left.T @ left - count * np.outer(mean, mean)
        eigenvalues, vectors = eigh(others, overwrite_a=True, check_finite=False)
        mapped = vectors.T @ (cross - left.T @ targets[out] - count * np.outer(mean, target_mean))
        rotated, wanted = (left - mean) @ vectors, targets[out] - target_mean
        linear = ((rotated.T @ wanted) * mapped).sum(1)
        quadratic = (rotated.T @ rotated) * (mapped @ mapped.T)
        for number, share in enumerate(RELATIVE_STRENGTHS):
            factor = 1 / (np.maximum(eigenvalues, 0) + count * share)
            errors[number] += np.square(wanted).sum() - 2 * factor @ linear + factor @ quadratic @ factor
    return errors


def _last_smallest(errors: Floats) -> int:
    """Index of the smallest error; of equals the last, which is the strongest penalty."""
    return len(errors) - 1 - int(errors[::-1].argmin())
