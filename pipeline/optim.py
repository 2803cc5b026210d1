"""AdamW, its learning rate as a function of the step, and gradient clipping."""

import math
from collections.abc import Iterable

import torch
from torch import nn

BETAS = (0.9, 0.999)
"""Adam's defaults (Kingma and Ba, 2015)."""
FINAL_LR = 0.01
"""The cosine ends at this share of the peak. Our choice: the last steps still move a little."""


def build_optimizer(modules: Iterable[nn.Module], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the modules' parameters; vectors (biases, norms, LayerScale) have no weight decay."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS)


def learning_rate(step: int, num_steps: int, peak: float, warmup: float) -> float:
    """Learning rate of `step` (from 0): a linear rise over the first `warmup` share of the steps, then half a
    cosine.
    """
    rising = math.ceil(warmup * num_steps)
    if step < rising:
        return peak * (step + 1) / rising
    progress = (step - rising) / max(num_steps - rising, 1)
    return peak * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
