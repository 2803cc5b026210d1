"""Published weights under other names, to timm's: DINOv2's own training code (Hibou, GPFM) and transformers' Dinov2
(Hibou, Phikon-v2; names of version 5 as well as of 4); DINOv3's through `forms.dinov3`.

The tensors are the same; only names differ, query, key and value are apart in transformers, and timm's register variant
has no position for the class token, so that position is added to the token. A checkpoint of training (GPFM's on GitHub)
has the heads of its losses besides, which are no part of the encoder, and its blocks in chunks: `blocks.2.13` is block
13. Whatever is left over fails in `load.load_weights`, by name.
"""

import re

import torch
from torch import Tensor

from pipeline.encoders.forms import dinov3

TRANSFORMERS_MARK = "embeddings.patch_embeddings.projection.weight"
DINOV2_MARK = "mlp.w12.weight"
REGISTERS_MARK = "register_tokens"
VIT_MARKS = ("cls_token", "patch_embed.proj.weight")
CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.(?=(norm1|attn|ls1|norm2|mlp|ls2)\.)")
"""A block's name in a chunk; DINOv2 counts blocks through all chunks. Looked for in a ViT only: timm's EfficientNets
have such names of their own.
"""
HEADS = ("dino_head.", "ibot_head.", "decoder_")
"""Heads of DINOv2's losses and the decoder of a masked autoencoder, beside the backbone in a checkpoint."""

_DINOV2 = ((r"^register_tokens$", "reg_token"), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))
_TRANSFORMERS = (
    (r"^(dinov2|model)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(attention\.)?(query|q_proj)\.", ".attn.query."),
    (r"\.attention\.(attention\.)?(key|k_proj)\.", ".attn.key."),
    (r"\.attention\.(attention\.)?(value|v_proj)\.", ".attn.value."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
UNUSED = ("embeddings.mask_token", "mask_token")
"""Only for training with masked patches; an encoder has none."""


def to_timm_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under timm's names, whichever of the known layouts it has; one in timm's layout is returned as it
    is.
    """
    weights = _without_heads(weights)
    if dinov3.is_dinov3(weights):
        return dinov3.from_dinov3_names(weights)
    plain = {re.sub(r"^(dinov2|model)\.", "", name): value for name, value in weights.items()}
    if TRANSFORMERS_MARK in plain:
        named = _fold_class_position(_rename(plain, _TRANSFORMERS))
        return _join(_join(named, ("query", "key", "value"), "qkv"), ("gate_proj", "up_proj"), "fc1")
    if REGISTERS_MARK in weights or any(name.endswith(DINOV2_MARK) for name in weights):
        return _fold_class_position(_rename(weights, _DINOV2))
    return weights


def training_only(weights: dict[str, Tensor], named: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that `to_timm_names`, which made `named`, has left out, since they serve training alone."""
    dropped = (*HEADS, *UNUSED, *(f"{prefix}{name}" for prefix in ("dinov2.", "model.") for name in UNUSED))
    dropped += dinov3.TRAINING_ONLY if dinov3.is_dinov3(weights) else ()
    return [name for name in weights if name not in named and name.startswith(dropped)]


def _without_heads(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone of a checkpoint of DINOv2's training, its blocks out of their chunks; anything else as it is."""
    if not all(mark in weights for mark in VIT_MARKS):
        return weights
    chunked = any(CHUNKED.match(name) for name in weights)
    if not chunked and not any(name.startswith(HEADS) for name in weights):
        return weights
    backbone = {name: value for name, value in weights.items() if not name.startswith(HEADS) and name not in UNUSED}
    named = {CHUNKED.sub(r"blocks.\1.", name): value for name, value in backbone.items()}
    return named if len(named) == len(backbone) else backbone  # two blocks of one number: not DINOv2's chunks


def _rename(weights: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in weights.items():
        if name in UNUSED:
            continue
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _fold_class_position(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With registers, timm adds positions to patch tokens only: add the class token's position to the token itself."""
    if not {"reg_token", "cls_token", "pos_embed"} <= weights.keys():
        return weights
    position = weights["pos_embed"]
    return weights | {"cls_token": weights["cls_token"] + position[:, :1], "pos_embed": position[:, 1:]}


def _join(weights: dict[str, Tensor], parts: tuple[str, ...], whole: str) -> dict[str, Tensor]:
    """Tensors that timm holds as one, such as query, key and value, put together."""
    first = f".{parts[0]}."
    joined = {name: value for name, value in weights.items() if not any(f".{part}." in name for part in parts)}
    for name in [name for name in weights if first in name]:
        joined[name.replace(first, f".{whole}.")] = torch.cat([weights[name.replace(first, f".{p}.")] for p in parts])
    return joined
