"""Measure how well a student replaces its teacher, on held-out rows. Pure.

All figures are over N patches, from the student's embedding (N, S), its projection into the standardised teacher space
(N, T), and the teacher's embedding, plain and standardised, (N, T). Similarities are computed in blocks of at most
`BLOCK_ROWS` x N.
"""

from dataclasses import asdict, dataclass
from math import nan

import torch
from torch import Tensor
from torch.nn import functional as F

NUM_NEIGHBOURS = 10
SMALLEST_SPREAD = 1e-9
"""Centred columns below this share of the plain ones are rounding errors of equal rows (float32 resolves 1e-7)."""
SMALLEST_STRUCTURE = 1e-12
"""Unbiased HSIC of a side with itself, below this share of the biased one, is rounding of float64 (about 1e-15)."""
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Fidelity:
    """Held-out figures. All but `rows` are at most 1, and 1 is perfect; `held_out.MEANINGS` explains them to users.

    Attributes:
        rows: number of patches, N.
        correlation_mean, correlation_median: of projection and teacher's embedding, over the T dimensions.
        r2_scaled: share of the teacher's variance that the projection explains after the best scale and offset of each
            dimension on these patches: the squared correlation, weighted by the variance.
        r2_linear: share of the teacher's variance that the best linear map of the student's embedding explains, fitted
            on training rows (`linear_map`); `None` if no map was fitted.
        cosine: mean cosine of projection and teacher in the standardised space.
        retrieval_top1: share of patches whose projection is nearest (cosine) to the teacher's embedding of that patch.
        neighbour_overlap: mean share of a patch's 10 nearest patches (cosine) that student and teacher have in common.
        cka: linear centred kernel alignment of student and teacher (Kornblith et al., 2019), not debiased: its chance
            level is `shuffled_cka`, not 0.
    """

    rows: int
    cosine: float
    retrieval_top1: float
    neighbour_overlap: float
    cka: float
    correlation_mean: float
    correlation_median: float
    r2_scaled: float
    r2_linear: float | None = None

    def record(self) -> dict[str, float]:
        """Figures by name, without those that are `None`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def fidelity(
    student: Tensor, projected: Tensor, teacher: Tensor, standardised: Tensor, mapped: Tensor | None = None
) -> Fidelity:
    """Compute all figures; the module's docstring has the shapes. `mapped` is the student's embedding, mapped linearly
    into the standardised space, (N, T).

    Raises:
        ValueError: fewer than two patches.
    """
    if len(student) < 2:
        raise ValueError("held-out figures need at least two patches")
    correlation = correlations(projected, standardised)
    return Fidelity(
        rows=len(student),
        cosine=float(F.cosine_similarity(projected, standardised, dim=1).mean()),
        retrieval_top1=retrieval(projected, standardised),
        neighbour_overlap=neighbour_overlap(student, teacher),
        cka=linear_cka(student, teacher),
        correlation_mean=float(correlation.mean()),
        correlation_median=float(correlation.quantile(0.5)),
        r2_scaled=scaled_r2(projected, standardised),
        r2_linear=None if mapped is None else explained_variance(mapped, standardised),
    )


def correlations(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of two (N, T) in each dimension: float64 (T,); 0 where one of the two does not vary."""
    x, y = (_float64(side) for side in (first, second))
    x, y = (_without_rounding(side) for side in (x, y))
    scale = torch.linalg.vector_norm(x, dim=0) * torch.linalg.vector_norm(y, dim=0)
    correlation: Tensor = torch.where(scale > 0, (x * y).sum(0) / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0.0)
    return correlation


def _without_rounding(values: Tensor) -> Tensor:
    """Centre the columns of (N, T); those that vary only by rounding become 0."""
    centred = values - values.mean(0)
    spread, size = (torch.linalg.vector_norm(side, dim=0) for side in (centred, values))
    return torch.where(spread > SMALLEST_SPREAD * size, centred, 0.0)


def scaled_r2(predicted: Tensor, target: Tensor) -> float:
    """`explained_variance` after a least-squares fit of scale and offset in each dimension of `predicted` (N, T); in
    float64.

    Ignores the spread of a prediction, unlike `explained_variance`: for a prediction as wide as its target with
    correlation r in every dimension, that one is 2 r - 1 and this one is r squared. Chance alone gives 1 / (N - 1).
    0 if the target does not vary.
    """
    target = _float64(target)
    variance = (target - target.mean(0)).square().sum(0)
    if _centred(target) is None:
        return 0.0
    return float((correlations(predicted, target).square() * variance).sum() / variance.sum())


def explained_variance(predicted: Tensor, target: Tensor) -> float:
    """R2 of the prediction, scale included: 1 - residual sum of squares / total sum of squares about the mean, over all
    dimensions of (N, T); in float64.

    0 if the target does not vary: there is nothing to explain.
    """
    target, predicted = _float64(target), _float64(predicted)
    centred = _centred(target)
    if centred is None:
        return 0.0
    return 1 - float((target - predicted).square().sum() / centred.square().sum())


def retrieval_hits(queries: Tensor, targets: Tensor, top: int = 1) -> Tensor:
    """Whether the `top` nearest rows of `targets` (N, T) by cosine to row i of `queries` (N, T) include row i; bool.

    Ties count against the query: fewer than `top` other rows may be as near or nearer. So does NaN.
    """
    queries, targets = F.normalize(queries.float(), dim=1), F.normalize(targets.float(), dim=1)
    hits = []
    for start in range(0, len(queries), BLOCK_ROWS):
        similarity = queries[start : start + BLOCK_ROWS] @ targets.T
        rows = torch.arange(len(similarity), device=similarity.device)
        same_row = similarity[rows, rows + start]
        rivals = (~(similarity < same_row[:, None])).sum(1) - 1  # row i itself is counted, NaN or not
        hits.append(rivals < top)
    return torch.cat(hits)


def retrieval(queries: Tensor, targets: Tensor, top: int = 1) -> float:
    """Share of rows for which `retrieval_hits` is true."""
    return int(retrieval_hits(queries, targets, top).sum()) / len(queries)


def nearest_neighbours(embeddings: Tensor, count: int) -> Tensor:
    """The `count` nearest other rows by cosine, nearest first: int64 (N, count).

    Equally near rows come in no fixed order; `evaluate.neighbours`, which must not depend on threads, compares exactly
    and takes the lower row.
    """
    normal = F.normalize(embeddings.float(), dim=1)
    indices = []
    for start in range(0, len(normal), BLOCK_ROWS):
        similarity = normal[start : start + BLOCK_ROWS] @ normal.T
        rows = torch.arange(len(similarity), device=similarity.device)
        similarity[rows, rows + start] = -torch.inf
        indices.append(similarity.topk(count, dim=1).indices)
    return torch.cat(indices)


def neighbour_overlaps(first: Tensor, second: Tensor, count: int = NUM_NEIGHBOURS) -> Tensor:
    """Share of each row's `count` nearest other rows that (N, S) and (N, T) have in common: float32 (N,)."""
    count = min(count, len(first) - 1)
    a, b = nearest_neighbours(first, count), nearest_neighbours(second, count)
    return (a[:, :, None] == b[:, None, :]).any(2).float().mean(1)


def neighbour_overlap(first: Tensor, second: Tensor, count: int = NUM_NEIGHBOURS) -> float:
    """Mean of `neighbour_overlaps`."""
    return float(neighbour_overlaps(first, second, count).mean())


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of (N, S) and (N, T): |Y'X|^2 / (|X'X| |Y'Y|) of the centred columns, in Frobenius norms; in float64.

    0 if a side does not vary: a collapsed student has nothing in common with its teacher.
    """
    x, y = _centred(_float64(first)), _centred(_float64(second))
    if x is None or y is None:
        return 0.0
    return float(_alignment(x, y) / torch.sqrt(_alignment(x, x) * _alignment(y, y)))


def shuffled_cka(first: Tensor, second: Tensor) -> float:
    """Mean of `linear_cka` over all permutations of one side's rows: its chance level.

    Exact, without sampling: for centred kernels K and L of n rows, the mean of <K, permuted L> is tr K tr L / (n - 1).
    It falls with the number of rows and rises with the widths.
    """
    x, y = _centred(_float64(first)), _centred(_float64(second))
    if x is None or y is None:
        return 0.0
    mean = x.square().sum() * y.square().sum() / (len(x) - 1)
    return float(mean / torch.sqrt(_alignment(x, x) * _alignment(y, y)))


def debiased_linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of (N, S) and (N, T) with the unbiased estimator of HSIC in place of the biased one; in float64.

    1 if one side is the other rotated, shifted or scaled. About 0 if they have nothing in common, within about 1.4 / N,
    for any N, S and T. Always within -1 to 1. NaN where undefined: with fewer than four rows, or if at most one row of
    a side differs from the others.

    HSIC_1 of Song et al., "Feature selection via dependence maximization" (JMLR 2012); CKA from it as in Nguyen et al.,
    "Do wide and deep networks learn the same things?" (ICLR 2021), but over all rows at once instead of in batches.
    HSIC_1 is a scalar product of kernels that is invariant to shifts (Székely and Rizzo, 2014). Hence the bounds; and
    rows may be centred first, which reduces it to what `_unbiased` computes.
    """
    if len(first) < 4:
        return nan
    x, y = _centred(_float64(first)), _centred(_float64(second))
    if x is None or y is None:
        return nan
    norms = [_unbiased(side, side) for side in (x, y)]
    if any(norm <= SMALLEST_STRUCTURE * _alignment(side, side) for norm, side in zip(norms, (x, y), strict=True)):
        return nan
    return float(_unbiased(x, y) / torch.sqrt(norms[0] * norms[1]))


def _unbiased(x: Tensor, y: Tensor) -> Tensor:
    """n (n - 3) HSIC_1 of the linear kernels of centred (N, S) and (N, T); a scalar."""
    rows, diagonal_x, diagonal_y = len(x), x.square().sum(1), y.square().sum(1)
    diagonals = rows / (rows - 2) * (diagonal_x @ diagonal_y)
    return _alignment(x, y) - diagonals + diagonal_x.sum() * diagonal_y.sum() / ((rows - 1) * (rows - 2))


def _alignment(x: Tensor, y: Tensor) -> Tensor:
    """Scalar product of the linear kernels of (N, S) and (N, T), |Y'X|^2; computed through the smaller matrices."""
    small = len(x) < min(x.shape[1], y.shape[1])
    product: Tensor = ((x @ x.T) * (y @ y.T)).sum() if small else (y.T @ x).square().sum()
    return product


def _float64(values: Tensor) -> Tensor:
    """Convert to float64 on the CPU: not every accelerator has it."""
    return values.cpu().double()


def _centred(values: Tensor) -> Tensor | None:
    """Centre the columns of (N, D); `None` if all rows are equal."""
    centred = values - values.mean(0)
    spread, size = torch.linalg.matrix_norm(centred), torch.linalg.matrix_norm(values)
    return centred if spread > SMALLEST_SPREAD * size else None
