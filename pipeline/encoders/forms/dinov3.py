"""Weights under the names of DINOv3's own code, to timm's, and what timm's own filter would lose without a word.

Its training writes them so (facebookresearch/dinov3, dinov3/train/train.py: `teacher_checkpoint.pth`), and Meta's pages
and LightlyTrain's export of such a model have them. timm's filter (1.0.31, models/eva.py) knows the names, but drops
without a look the biases of query, key and value where the model has none, and the periods of the rotary positions.
Here the first have to be zero, and the second those of the model.
"""

import re

import torch
from torch import Tensor, nn

from pipeline.base.errors import EncoderError

MARKS = ("storage_tokens", "rope_embed.periods")
SAPIENS_MARK = "blocks.0.attn.wq.weight"
"""Sapiens 2 has storage tokens, too, and names of its own, which timm's filter knows."""
NAMES = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
PERIODS = "rope_embed.periods"
BIAS, BIAS_MASK = ".attn.qkv.bias", ".attn.qkv.bias_mask"
TRAINING_ONLY = ("mask_token", "local_cls_norm.")
"""For training with masked patches, and for small crops in the training of the largest model."""
PERIODS_TOLERANCE = 1e-2
"""Relative difference of periods that are the same. Our choice: bfloat16, in which the pages keep them, rounds by up to
4e-3; of two models' periods, some differ by a quarter or more.
"""


def is_dinov3(weights: dict[str, Tensor]) -> bool:
    """Whether weights have names that DINOv3's code alone gives."""
    return "cls_token" in weights and any(mark in weights for mark in MARKS) and SAPIENS_MARK not in weights


def from_dinov3_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of DINOv3 under timm's names, less those of training only. Biases and periods stay, for `fitted`."""
    renamed = {}
    for name, value in weights.items():
        if name.startswith(TRAINING_ONLY):
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def fitted(weights: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Weights of DINOv3 under timm's names, with biases and positions as the model has them.

    Raises:
        EncoderError: they are not those of the model, and so would give other embeddings.
    """
    weights = dict(weights)
    periods = weights.pop(PERIODS, None)
    if periods is not None:
        _require_periods(periods, model, source)
    expected = model.state_dict()
    for name in [name for name in weights if name.endswith(BIAS)]:
        bias = _masked(weights.pop(name), weights.pop(name.removesuffix(BIAS) + BIAS_MASK, None), name, source)
        stem = name.removesuffix("qkv.bias")
        query, key, value = bias.chunk(3)
        if key.any():
            raise EncoderError(f"{source}: {name} is not zero for the keys, which DINOv3 masks; not loaded")
        if f"{stem}q_bias" in expected:
            weights |= {f"{stem}q_bias": query, f"{stem}v_bias": value}
        elif query.any() or value.any():
            architecture = str(getattr(model, "pretrained_cfg", {}).get("architecture", "the architecture"))
            raise EncoderError(
                f"{source}: {name} is not zero, and {architecture} has no such bias. timm calls the architecture "
                f"that has it {architecture}_qkvb"
            )
    return weights


def _masked(bias: Tensor, mask: Tensor | None, name: str, source: str) -> Tensor:
    """A bias as DINOv3 applies it: zero where its mask is.

    Raises:
        EncoderError: they have other shapes, cannot be divided, or are not finite.
    """
    if bias.ndim != 1 or len(bias) % 3 or (mask is not None and mask.shape != bias.shape):
        raise EncoderError(f"{source}: {name} is no bias of query, key and value of one size")
    masked = bias if mask is None else bias * mask.to(bias.dtype)
    if not torch.isfinite(masked).all():
        raise EncoderError(f"{source}: {name}, or its mask, holds NaN or infinity")
    return masked


def _require_periods(periods: Tensor, model: nn.Module, source: str) -> None:
    """Compare the periods of the rotary positions.

    Raises:
        EncoderError: the model has others, or none.
    """
    own = getattr(getattr(model, "rope", None), "periods", None)
    if not isinstance(own, Tensor):
        raise EncoderError(
            f"{source}: the weights are of a DINOv3 model with rotary positions, the architecture is not"
        )
    same = own.shape == periods.shape and torch.allclose(
        periods.float(), own.detach().cpu().float(), rtol=PERIODS_TOLERANCE, atol=0.0
    )
    if not same:
        raise EncoderError(f"{source}: {PERIODS} are not those of the architecture: its positions would be others")
