"""A student's own batch normalisation over the batch of all processes, on any device, with exact gradients.

torch's SyncBatchNorm runs on accelerators only. Here `torch.nn.functional.batch_norm` itself is replaced while the
student runs, so that modules, and the names in their state dicts, stay what they are.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from pipeline.base.distributed import world_size


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The parts of a model that normalise over the batch in training: batch normalisation in all its forms."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) or "running_var" in m._buffers]


def can_synchronise(module: nn.Module) -> bool:
    """Whether `BatchNormOverAll` knows all of the model's `batch_norms`: torch's, and timm's that are made of them."""
    return all(isinstance(m, _BatchNorm) and m.running_mean is not None for m in batch_norms(module))


class BatchNormOverAll(TorchFunctionMode):
    """Within this context, batch normalisation in training uses the statistics of all processes' rows.

    Every process must have the same number of rows, and run the same model.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return (batch_norm_over_all if func is F.batch_norm else func)(*args, **(kwargs or {}))


def batch_norm_over_all(
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, over all processes where it is that of a module in training.

    What has no running statistics, such as the standardisation of a convolution's weights, is left alone.

    Args:
        values: (B, C, ...), with the same B in each process.
    """
    if not training or running_mean is None or running_var is None:
        return F.batch_norm(values, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, var = statistics_over_all(values)
    count = values.numel() // values.shape[1] * world_size()
    if count < 2:
        raise ValueError("a batch of one value has no statistics: use a batch size of at least 2")
    with torch.no_grad():
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    normalised: Tensor = _Normalise.apply(values, weight, bias, mean, var, count, eps)
    return normalised


@torch.no_grad()
def statistics_over_all(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of (B, C, ...) over all processes, (C,) each, at least in float32.

    Each process's own are merged (Chan et al., 1983), for sums of squares would lose digits. All merge the same values
    in the same order, so that all have the same statistics.
    """
    var, mean = torch.var_mean(_wide(values), _but_channels(values), correction=0)
    local = torch.stack([mean, var])
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local)
    means, variances = torch.stack(parts).unbind(1)
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class _Normalise(torch.autograd.Function):
    """Standardise by statistics over all processes, and the gradient through them: two sums over all processes.

    As everywhere, each process backpropagates the same global loss, so that gradients of weights are its own share.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: int,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, torch.rsqrt(var + eps))
        ctx.count = count
        return F.batch_norm(values, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, scale = ctx.saved_tensors
        axes = _but_channels(values)
        wide = _wide(gradient)
        standardised = (_wide(values) - _beside(mean, values)) * _beside(scale, values)
        sums = torch.stack([wide.sum(axes), (wide * standardised).sum(axes)])
        of_bias, of_weight = sums.clone()
        dist.all_reduce(sums)
        by_mean, by_scale = (_beside(total / ctx.count, values) for total in sums)
        outer = scale if weight is None else scale * weight
        of_values = (wide - by_mean - standardised * by_scale) * _beside(outer, values)
        needed = ctx.needs_input_grad
        return (
            of_values.to(values.dtype) if needed[0] else None,
            of_weight if needed[1] else None,
            of_bias if needed[2] else None,
            *(None,) * 4,
        )


def _wide(values: Tensor) -> Tensor:
    """float32 for what is narrower."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _but_channels(values: Tensor) -> list[int]:
    """The dimensions of (B, C, ...) other than C."""
    return [0, *range(2, values.dim())]


def _beside(statistics: Tensor, values: Tensor) -> Tensor:
    """(C,) in a shape that goes with (B, C, ...)."""
    return statistics.view(-1, *[1] * (values.dim() - 2))
