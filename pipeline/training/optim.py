"""AdamW, and its learning rate as a function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

BETAS = (0.9, 0.999)
"""Adam's defaults (Kingma and Ba, 2015)."""
FINAL_LR = 0.01
"""The cosine ends at this share of the peak. Our choice: the last steps still move a little."""


def build_optimizer(modules: Iterable[nn.Module], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the modules' trainable parameters; the optimizer's groups are those with and without weight decay.

    Vectors (biases, norms, LayerScale) and what a timm model names in `no_weight_decay` (class token, position
    embedding, registers) have none.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in modules:
        exempt = _exempt_names(module)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (free if parameter.ndim <= 1 or name in exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS)


def _exempt_names(module: nn.Module) -> set[str]:
    """Names of the parameters below `module` that timm exempts from weight decay."""
    names = set()
    for path, part in module.named_modules():
        for name in getattr(part, "no_weight_decay", set)():
            names.add(f"{path}.{name}".removeprefix("."))
    return names


def learning_rate(step: int, num_steps: int, peak: float, warmup: float) -> float:
    """Learning rate of `step` (from 0): a linear rise to `peak` over the first `warmup` share of the steps, then half a
    cosine down to `FINAL_LR` of it.
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
