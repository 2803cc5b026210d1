"""Position embeddings of another image size, brought to an encoder's as the code of its page does it.

timm's own filter, which all others go through, resamples with antialiasing; transformers' Dinov2 does not. Where a page
is loaded by transformers at another size than it was saved at (Midnight: saved for 518 px, used at 224), the difference
is in every embedding.
"""

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.encoders.page_facts import facts_of

POSITIONS = "embeddings.position_embeddings"
"""Their name in transformers: one of the class token, and then those of the patches by row."""


def stretched_as_published(weights: dict[str, Tensor], model: nn.Module, page: str) -> dict[str, Tensor]:
    """The weights with the positions of patches (1, 1 + G * G, D) brought to the model's grid, (1, 1 + H * W, D), where
    the page is one that transformers stretches; else, and for weights in another layout, as they are.

    As `interpolate_pos_encoding` of transformers 5.24's Dinov2: bicubic, corners not aligned, no antialiasing, float32.
    """
    names = [name for name in weights if name.endswith(POSITIONS)]
    if facts_of(page).stretched_by != "transformers" or len(names) != 1 or weights[names[0]].ndim != 3:
        return weights
    positions = weights[names[0]]
    height, width = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    side = round((positions.shape[1] - 1) ** 0.5)
    if side * side != positions.shape[1] - 1 or (side, side) == (height, width):
        return weights
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    grid = functional.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return weights | {names[0]: torch.cat([positions[:, :1], patches], dim=1)}


def resampled_positions(weights: Mapping[str, Tensor], model: nn.Module) -> str:
    """That a file's position embeddings, (1, N, D), are of another grid than the model's and so resampled, in words; ""
    where they are not. Places of class and register tokens, which some files have among them, are fewer than a row.
    """
    own = getattr(model, "pos_embed", None)
    if not isinstance(own, Tensor) or own.ndim != 3:
        return ""
    for name, positions in weights.items():
        if name.endswith(("pos_embed", POSITIONS)) and positions.ndim == 3:
            sides = isqrt(positions.shape[1]), isqrt(own.shape[1])
            if sides[0] != sides[1]:
                grids = [f"{side} x {side}" for side in sides]
                return f"position embeddings of {grids[0]} patches are resampled to {grids[1]}"
    return ""
