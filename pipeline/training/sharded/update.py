"""The update of a student that is split over the processes: the norm of its whole gradient, and AdamW on its parts."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pipeline.training.sharded.split import is_split, local


@torch.no_grad()
def clip_over_all(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale gradients so that the norm of all of them, of all processes' parts, is at most `most`; returns the norm
    before, the same in every process. As `torch.nn.utils.clip_grad_norm_`, for parameters of which some are split and
    the others whole and alike everywhere.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    square = get_total_norm([local(each) for each in gradients if is_split(each)]).square()
    dist.all_reduce(square)
    norm = (square + get_total_norm([each for each in gradients if not is_split(each)]).square()).sqrt()
    scale = torch.clamp(most / (norm + 1e-6), max=1.0)
    for gradient in gradients:
        local(gradient).mul_(scale)
    return norm


class ShardedAdamW(torch.optim.AdamW):
    """AdamW where a group has split and whole parameters: torch updates those of one kind together. Its groups and its
    state are those of AdamW.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters."""
        groups = self.param_groups
        self.param_groups = [
            group | {"params": alike}
            for group in groups
            for split in (True, False)
            if (alike := [p for p in group["params"] if is_split(p) is split])
        ]
        try:
            super().step()
        finally:
            self.param_groups = groups
