"""The best linear map from an encoder's embeddings to a teacher's, fitted on training rows.

It tells how much of the teacher is linearly there in any encoder, alike for all: an encoder that was never distilled
has no projector. Ridge regression of standardised embeddings. Its strength is the one of a grid with the smallest
squared error, which is the largest explained variance, on cases that are left out: patches of one case resemble each
other, so that leaving out one row at a time (Golub, Heath and Wahba, 1979, as scikit-learn's RidgeCV) chooses too weak
a penalty for cases that are not known. With a single case only rows can be left out. Pure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.linear_model import Ridge, RidgeCV

RELATIVE_STRENGTHS = tuple(10.0**power for power in range(-8, 3))
"""Ridge strengths as a share of the rows, which is the strength of a standardised column. Our choice: from none at all,
which an encoder that holds the teacher needs, to one that leaves little of anything.
"""
MAX_FOLDS = 5
"""Parts that whole cases are left out in. Our choice: each fit sees four fifths of the rows or so."""
CASES, ROWS = "cases", "rows"
"""What is left out to choose by."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearMap:
    """A fitted map of embeddings (N, S) to (N, T).

    Attributes:
        mean, scale: of the embeddings that it was fitted on, float64 (S,).
        weight, bias: float64 (S, T) and (T,).
        strength: the chosen one of `RELATIVE_STRENGTHS`.
        left_out: `CASES` or `ROWS`, by which the strength was chosen.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats
    strength: float
    left_out: str

    @property
    def is_strongest(self) -> bool:
        """Whether the strength is the end of the grid that leaves little of anything."""
        return self.strength == RELATIVE_STRENGTHS[-1]

    def predict(self, embeddings: NDArray[np.float32]) -> Floats:
        """float64 (N, T) for embeddings (N, S)."""
        mapped: Floats = ((embeddings - self.mean) / self.scale) @ self.weight + self.bias
        return mapped


def fit_linear_map(embeddings: NDArray[np.float32], targets: Floats, cases: NDArray[np.str_]) -> LinearMap:
    """Fit on N rows of embeddings (N, S) and targets (N, T), each of one of `cases` (N,).

    Columns of the embeddings that do not vary are left out of the map.

    Raises:
        ValueError: fewer than three rows.
    """
    if len(embeddings) < 3:
        raise ValueError("a linear map needs at least three rows")
    values = embeddings.astype(np.float64)
    mean, spread = values.mean(0), values.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    values = (values - mean) / scale
    parts = parts_of_cases(cases)
    by_cases = parts.max() > 0
    if by_cases:
        strength = RELATIVE_STRENGTHS[_first_least(left_out_errors(values, targets, parts))]
        ridge = Ridge(alpha=len(values) * strength).fit(values, targets)
    else:
        penalties = [len(values) * share for share in RELATIVE_STRENGTHS]
        ridge = RidgeCV(alphas=penalties).fit(values, targets)
        strength = RELATIVE_STRENGTHS[penalties.index(ridge.alpha_)]
    weight, bias = ridge.coef_.reshape(targets.shape[1], -1).T, np.atleast_1d(ridge.intercept_)
    return LinearMap(mean, scale, weight, bias, strength, CASES if by_cases else ROWS)


def parts_of_cases(cases: NDArray[np.str_]) -> NDArray[np.int64]:
    """The part that each row is left out with, (N,): whole cases, the largest first, each into the part with the fewest
    rows; at most `MAX_FOLDS` parts.
    """
    names, case_of_row, sizes = np.unique(cases, return_inverse=True, return_counts=True)
    rows_of_part = np.zeros(min(MAX_FOLDS, len(names)), np.int64)
    part_of_case = np.zeros(len(names), np.int64)
    for case in np.argsort(-sizes, kind="stable").tolist():
        part_of_case[case] = rows_of_part.argmin()
        rows_of_part[part_of_case[case]] += sizes[case]
    return part_of_case[case_of_row]


def left_out_errors(values: Floats, targets: Floats, parts: NDArray[np.int64]) -> Floats:
    """Sum of squared errors of `targets` (N, T) at each of `RELATIVE_STRENGTHS`, each of `parts` (N,) mapped by the
    ridge regression on `values` (N, S) of the others.

    A part needs one decomposition for all strengths: with the others' centred X'X = Q diag(l) Q', the map at the
    strength s is Q diag(1 / (l + s)) Q' X'Y, and the error a quadratic form in 1 / (l + s).
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


def _first_least(errors: Floats) -> int:
    """Place of the smallest error; of equal ones the strongest penalty, which is the last."""
    return len(errors) - 1 - int(errors[::-1].argmin())
