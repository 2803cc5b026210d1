"""Multinomial logistic regression, as scikit-learn's, for many examples of wide embeddings.

It minimises, over weights W (D, C) and an unpenalised bias, the mean cross-entropy of softmax(X W + b) plus
|W|**2 / (2 strength n): scikit-learn's `LogisticRegression(C=strength)`, which a test compares it with. (With two
classes scikit-learn has one vector of weights, the difference of ours, so that its C is twice the strength.) Rows may
have weights of mean 1, as with its `class_weight="balanced"`.

Embeddings are strongly correlated, and on these scikit-learn's L-BFGS takes hundreds of passes over the data where
classes overlap: 160 s for seven strengths on 16,000 x 1,024. Here the same L-BFGS (scipy's) works in coordinates in
which the loss is about equally curved in all directions, those of the Cholesky factor of

    h X'X / n + 1 / (strength n),     h: mean of p (1 - p) at the start

with the rows' weights in the sum, after the bound of the Hessian by Böhning, "Multinomial logistic regression
algorithm" (1992), and takes about ten. The minimum is the same. Products over the data are in float32, sums and all
else in float64. Pure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax

TOLERANCE = 1e-4
"""Of the gradient: scikit-learn's default."""
RELATIVE_TOLERANCE = 1e-2
"""Of the gradient's largest component where all coefficients are 0. Our choice: under a strong penalty and with few
rows even that one is below `TOLERANCE`, and a fit would end before it has begun.
"""
SMALLEST_STEP = 1e-9
"""A fit also ends where a step lowers the loss by less: float32 products carry no more."""
MAX_GAP = 1e-4
"""A fit whose loss is further above its minimum, nats an example, has not converged. Our choice."""
MAX_ITERATIONS = 500
"""Our choice; about ten are needed."""
MIN_CURVATURE = 1e-3
"""Least h. Our choice: separable classes, whose p (1 - p) goes to 0, still get finite steps."""
BLOCK_ROWS = 4096
"""Rows whose second moments are summed at once. Our choice."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LogisticModel:
    """A fitted regression.

    Attributes:
        weights: (D, C).
        bias: (C,).
        converged: whether the loss is within `MAX_GAP` of its minimum.
    """

    weights: Floats
    bias: Floats
    converged: bool

    def log_probabilities(self, features: NDArray[np.float32]) -> Floats:
        """Logarithms of the classes' probabilities of `features` (N, D): (N, C)."""
        logits = features @ self.weights.astype(np.float32)
        return np.asarray(log_softmax(logits.astype(np.float64) + self.bias, axis=1))


def balanced_weights(truth: NDArray[np.int64]) -> Floats:
    """Weights of rows (n,), mean 1, by which every class that occurs in `truth` (n,) counts the same."""
    _, inverse, counts = np.unique(truth, return_inverse=True, return_counts=True)
    weights: Floats = len(truth) / (len(counts) * counts[inverse])
    return weights


def second_moments(features: NDArray[np.float32], weights: Floats | None = None) -> Floats:
    """X'WX / n of `features` (n, D): (D, D); `weights` (n,) of rows are W's diagonal, else it is 1."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), BLOCK_ROWS):
        block = features[start : start + BLOCK_ROWS].astype(np.float64)
        if weights is not None:
            block *= np.sqrt(weights[start : start + BLOCK_ROWS, None])
        total += block.T @ block  # of a matrix with itself NumPy multiplies half
    return total / len(features)


def fit_logistic(
    features: NDArray[np.float32],
    truth: NDArray[np.int64],
    num_classes: int,
    strength: float,
    moments: Floats,
    start: LogisticModel | None = None,
    tolerance: float = TOLERANCE,
    weights: Floats | None = None,
) -> LogisticModel:
    """Fit to `features` (n, D), best standardised, and classes `truth` (n,) of 0 to C - 1.

    Args:
        strength: the inverse of the penalty, scikit-learn's C.
        moments: about `second_moments(features, weights)`; they decide how fast it goes, not where.
        start: a fit to start from, such as that of the next smaller strength.
        tolerance: it ends where no component of the gradient is larger than this, nor than `RELATIVE_TOLERANCE` allows.
        weights: of rows, (n,), mean 1; all 1 without.
    """
    if start is None:
        start = LogisticModel(np.zeros((features.shape[1], num_classes)), np.zeros(num_classes), True)
    objective = _Objective(features, truth, strength, moments, start, weights)
    at_zero = np.abs(objective.gradient_at_zero()).max()
    least = min(tolerance, RELATIVE_TOLERANCE * float(at_zero))
    options = {"maxiter": MAX_ITERATIONS, "gtol": least, "ftol": SMALLEST_STEP}
    minimum = minimize(objective, objective.coordinates(start), jac=True, method="L-BFGS-B", options=options)
    coefficients, bias = objective.parameters(minimum.x)
    gap = float(minimum.jac @ minimum.jac) / 2  # in these coordinates the curvature is about 1
    return LogisticModel(coefficients, bias, gap <= MAX_GAP)


class _Objective:
    """The loss and its gradient in coordinates u = L'W, with the bias scaled; all in one vector (D C + C,)."""

    def __init__(
        self,
        features: NDArray[np.float32],
        truth: NDArray[np.int64],
        strength: float,
        moments: Floats,
        start: LogisticModel,
        row_weights: Floats | None,
    ) -> None:
        self.features, self.truth = features, truth
        self.row_weights = np.ones(len(features)) if row_weights is None else row_weights
        self.penalty = 1 / (strength * len(features))
        probabilities = np.exp(start.log_probabilities(features))
        curvature = max(float((probabilities * (1 - probabilities)).mean()), MIN_CURVATURE)
        hessian = curvature * moments
        hessian[np.diag_indices_from(hessian)] += self.penalty
        self.factor = cholesky(hessian, lower=True, overwrite_a=True, check_finite=False)
        self.bias_scale = np.sqrt(curvature)
        self.shape = start.weights.shape

    def coordinates(self, model: LogisticModel) -> Floats:
        """u of a model."""
        return np.concatenate([(self.factor.T @ model.weights).ravel(), model.bias * self.bias_scale])

    def parameters(self, u: Floats) -> tuple[Floats, Floats]:
        """Weights (D, C) and bias (C,) of u."""
        num_classes = self.shape[1]
        inner = u[:-num_classes].reshape(self.shape)
        weights = solve_triangular(self.factor, inner, lower=True, trans="T", check_finite=False)
        return weights, u[-num_classes:] / self.bias_scale

    def __call__(self, u: Floats) -> tuple[float, Floats]:
        weights, bias = self.parameters(u)
        num_rows = len(self.features)
        logits = self.features @ weights.astype(np.float32)
        logits += bias.astype(np.float32)
        logits -= logits.max(1, keepdims=True)
        rows = np.arange(num_rows)
        own = logits[rows, self.truth].astype(np.float64)
        np.exp(logits, out=logits)
        total = logits.sum(1, keepdims=True)
        loss = float((self.row_weights * (np.log(total[:, 0], dtype=np.float64) - own)).mean())
        loss += self.penalty / 2 * float(np.square(weights).sum())
        return loss, self._gradient(np.divide(logits, total, out=logits), weights)

    def gradient_at_zero(self) -> Floats:
        """The gradient where all coefficients are 0, and so all classes as likely."""
        probabilities = np.full((len(self.features), self.shape[1]), 1 / self.shape[1], np.float32)
        return self._gradient(probabilities, np.zeros(self.shape))

    def _gradient(self, probabilities: NDArray[np.float32], weights: Floats) -> Floats:
        """The gradient by u where the coefficients are `weights` (D, C); `probabilities` (n, C) are overwritten."""
        num_rows, residual = len(probabilities), probabilities
        residual[np.arange(num_rows), self.truth] -= 1
        residual *= self.row_weights.astype(np.float32)[:, None]
        by_weight = (self.features.T @ residual).astype(np.float64) / num_rows + self.penalty * weights
        by_bias = residual.sum(0, dtype=np.float64) / num_rows
        by_u = solve_triangular(self.factor, by_weight, lower=True, check_finite=False)
        return np.concatenate([by_u.ravel(), by_bias / self.bias_scale])
