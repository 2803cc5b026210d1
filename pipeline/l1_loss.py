"""The mean absolute difference, for ablation. Pure; float32, also under autocast, over all processes as `loss`."""

import torch
from torch import Tensor

from pipeline.base.distributed import global_sum, world_size


def l1_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference over batch and dimensions; a float32 scalar.

    Args:
        projected, teacher: (B, T), standardised.
    """
    with torch.autocast(projected.device.type, enabled=False):
        total = global_sum((projected.float() - teacher.float()).abs().sum())
        return total / (projected.numel() * world_size())
