"""The best linear map from an encoder's embeddings to a teacher's, fitted on training rows.

It tells how much of the teacher is linearly there in any encoder, alike for all: an encoder that was never distilled
has no projector. Ridge regression of standardised embeddings; its strength is the one of a grid with the smallest
leave-one-out error on the training rows (Golub, Heath and Wahba, 1979, as scikit-learn's RidgeCV).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

RELATIVE_STRENGTHS = tuple(10.0**power for power in range(-8, 3))
"""Ridge strengths as a share of the rows, which is the strength of a standardised column. Our choice: from none at all,
which an encoder that holds the teacher needs, to one that leaves little of anything.
"""


@dataclass(frozen=True)
class LinearMap:
    """A fitted map of embeddings (N, S) to (N, T).

    Attributes:
        mean, scale: of the embeddings that it was fitted on, float64 (S,).
        weight, bias: float64 (S, T) and (T,).
        strength: the chosen one of `RELATIVE_STRENGTHS`.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float

    def predict(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 (N, T) for embeddings (N, S)."""
        mapped: NDArray[np.float64] = ((embeddings - self.mean) / self.scale) @ self.weight + self.bias
        return mapped


def fit_linear_map(embeddings: NDArray[np.float32], targets: NDArray[np.float64]) -> LinearMap:
    """Fit on N rows of embeddings (N, S) and targets (N, T).

    Columns of the embeddings that do not vary are left out of the map.

    Raises:
        ValueError: fewer than three rows.
    """
    if len(embeddings) < 3:
        raise ValueError("a linear map needs at least three rows")
    values = embeddings.astype(np.float64)
    mean, spread = values.mean(0), values.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    ridge = RidgeCV(alphas=[len(values) * share for share in RELATIVE_STRENGTHS])
    ridge.fit((values - mean) / scale, targets)
    weight, bias = ridge.coef_.reshape(targets.shape[1], -1).T, np.atleast_1d(ridge.intercept_)
    return LinearMap(mean, scale, weight, bias, float(ridge.alpha_) / len(values))
