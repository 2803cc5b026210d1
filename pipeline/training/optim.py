"""AdamW, and its learning rate and weight decay as functions of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.config.stages import TrainConfig

BETAS = (0.9, 0.999)
"""Adam's defaults (Kingma and Ba, 2015)."""
FINAL_LR = 0.01
"""The cosine ends at this share of the peak. Our choice: the last steps still move a little. Also the default of
`train-student` (`config.stages`).
"""
DECAYED = 0
"""The optimiser's group of parameters that decay."""


def build_optimizer(
    modules: Iterable[nn.Module], lr: float, weight_decay: float, adamw: type[torch.optim.AdamW] = torch.optim.AdamW
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `modules`, in two groups: with and without weight decay.

    Vectors (biases, norms, LayerScale) and what a timm model lists in `no_weight_decay` (class token, position
    embedding, registers) get no decay. `adamw` is torch's, or one that updates parts.
    """
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for module in modules:
        exempt = _exempt_names(module)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (undecayed if parameter.ndim <= 1 or name in exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    return adamw(groups, lr=lr, betas=BETAS)


def _exempt_names(module: nn.Module) -> set[str]:
    """Names of the parameters below `module` that timm exempts from weight decay."""
    names = set()
    for path, part in module.named_modules():
        for name in getattr(part, "no_weight_decay", set)():
            names.add(f"{path}.{name}".removeprefix("."))
    return names


def learning_rate(step: int, num_steps: int, peak: float, warmup: float, final: float = FINAL_LR) -> float:
    """Learning rate at `step` (from 0): a linear warm-up to `peak` over the first `warmup` share of the steps, then
    half a cosine down to `final` times `peak`, which the step after the last would have.
    """
    warmup_steps = math.ceil(warmup * num_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def annealed_weight_decay(step: int, num_steps: int, peak: float, warmup: float, final: float) -> float:
    """Weight decay at `step` that falls with the learning rate: `peak` during the warm-up, then the same half cosine.

    AdamW multiplies it with the learning rate, so that weights shrink by the square of the cosine.
    """
    return learning_rate(max(step, math.ceil(warmup * num_steps)), num_steps, peak, warmup, final)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_weight_decay(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Set the weight decay of the group that decays."""
    optimizer.param_groups[DECAYED]["weight_decay"] = weight_decay


def set_schedules(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, num_steps: int) -> float:
    """Set the learning rate of `step` (from 0), and its weight decay if that is annealed; returns the learning rate."""
    lr = learning_rate(step, num_steps, config.lr, config.warmup, config.final_lr)
    set_learning_rate(optimizer, lr)
    if config.weight_decay_schedule == "cosine":
        set_weight_decay(
            optimizer, annealed_weight_decay(step, num_steps, config.weight_decay, config.warmup, config.final_lr)
        )
    return lr
