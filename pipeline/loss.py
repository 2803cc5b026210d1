"""The Log-Sum KD loss, and two plain ones for ablation. Pure; float32, also under autocast.

G2L, section "Knowledge distillation"; Miles and Mikolajczyk (AAAI 2024): L = log(sum over batch and dimensions of
|p - z|**alpha), alpha = 4, of standardised embeddings. With several processes the sum runs over all of them, so that L
is the loss of the whole batch.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.distributed import global_max, global_sum, world_size

Loss = Callable[[Tensor, Tensor], Tensor]
"""(projected (B, T), teacher (B, T)), both standardised -> a float32 scalar."""

SMALLEST_DIFFERENCE = 1e-6
"""Resolution of differences of standardised embeddings in float32 (epsilon 1.2e-7, values of about 1 to 10). A batch
without a larger difference counts as equal: the loss is at its floor and has no gradient, where the formula has log 0.
"""


def log_sum_loss(projected: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """log of the sum of |projected - teacher|**alpha over batch and dimensions; a float32 scalar.

    Computed as alpha * log(m) + log(sum (d / m)**alpha), with the largest difference m as a constant. No power
    overflows, and the sum is at least 1. Value and gradient are those of the formula if m is above
    `SMALLEST_DIFFERENCE`.

    Args:
        projected: (B, T), standardised.
        teacher: (B, T), standardised.
        alpha: at least 1; 4 in the paper, as in `train-student` unless `--alpha` says otherwise.

    Raises:
        ValueError: alpha is below 1, where the gradient at a zero difference is infinite, or infinite itself; or these
            are no pairs of embeddings (`require_pairs`).
    """
    given: Any = alpha  # mypy takes no float for Real, which NumPy's numbers are, too
    if not isinstance(given, Real) or not 1 <= float(given) < math.inf:
        raise ValueError(f"alpha must be a number of at least 1, not {alpha!r}")
    require_pairs(projected, teacher)
    with torch.autocast(projected.device.type, enabled=False):
        difference = (projected.float() - teacher.float()).abs()
        largest = global_max(difference.max()).clamp(min=SMALLEST_DIFFERENCE)
        total = global_sum((difference / largest).pow(alpha).sum())
        total = torch.where(total < 1, 1.0, total)  # below 1: all count as equal; clamp would stop gradients at 1
        return alpha * largest.log() + total.log()


def require_pairs(projected: Tensor, teacher: Tensor) -> None:
    """See that these are the embeddings of one batch. Shapes alone are looked at, so that a GPU is not waited for.

    Raises:
        ValueError: they are no tensors (B, T), or their shapes differ, or there is no embedding.
    """
    for values in (projected, teacher):
        if not isinstance(values, Tensor):
            raise ValueError(f"embeddings are a {type(values).__name__}: give tensors (B, T)")
        if values.ndim != 2:
            raise ValueError(f"embeddings of {tuple(values.shape)} are no batch (B, T)")
    if projected.shape != teacher.shape:  # torch would repeat one of them
        raise ValueError(f"embeddings of {tuple(projected.shape)} and {tuple(teacher.shape)} are no pairs")
    if not projected.numel():
        raise ValueError(f"a batch without embeddings, {tuple(projected.shape)}, has no loss")


def mse_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over batch and dimensions; for ablation."""
    with torch.autocast(projected.device.type, enabled=False):
        total = global_sum((projected.float() - teacher.float()).square().sum())
        return total / (projected.numel() * world_size())


def cosine_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """One minus the mean cosine of the rows; for ablation."""
    with torch.autocast(projected.device.type, enabled=False):
        total = global_sum(F.cosine_similarity(projected.float(), teacher.float(), dim=1).sum())
        return 1 - total / (len(projected) * world_size())
