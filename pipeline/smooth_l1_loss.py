"""The smooth L1 loss, for ablation. Pure; float32, also under autocast, over all processes as `loss`.

Girshick, "Fast R-CNN" (2015), equation 3: quadratic near 0, as `mse`, and linear beyond, as `l1`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.distributed import global_sum, world_size

BETA = 1.0
"""Where the loss turns from d**2 / (2 * BETA) to |d| - BETA / 2: at one standard deviation of a teacher's dimension.
Girshick's value, and torch's default.
"""


def smooth_l1_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean smooth L1 difference over batch and dimensions; a float32 scalar.

    Args:
        projected, teacher: (B, T), standardised.
    """
    with torch.autocast(projected.device.type, enabled=False):
        total = global_sum(F.smooth_l1_loss(projected.float(), teacher.float(), reduction="sum", beta=BETA))
        return total / (projected.numel() * world_size())
