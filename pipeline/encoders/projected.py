"""Describe a patch by a few numbers of an encoder's embedding, for `plan --sample cluster`.

An embedding is scaled to length 1, so that distances are those of directions, and projected by random signs (Achlioptas
2003, "Database-friendly random projections"), which keeps squared distances to about a sixth with 64 numbers. The signs
come from a hash, so that they are the same everywhere. Left out: principal components, which depend on the cohort.
"""

import hashlib
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.base.errors import EncoderError

NUM_PROJECTED: Final = 64
"""Numbers that describe a patch. Our choice: 128 bytes of memory for each candidate."""
STEPS: Final = 3000
"""Steps of one unit in 16 bits. Of a vector of length 1, random signs give numbers with spread 1; 10.9 fit."""
MIDDLE: Final = 1 << 15


def random_signs(width: int) -> NDArray[np.float32]:
    """Signs that project embeddings of `width` dimensions, float32 (width, NUM_PROJECTED) of -1 and 1."""
    num_bytes = width * NUM_PROJECTED // 8
    drawn = hashlib.shake_256(f"g2l projection of embeddings\0{width}".encode()).digest(num_bytes)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(width, NUM_PROJECTED)
    return (2.0 * bits - 1).astype(np.float32)


class ProjectedEncoder(nn.Module):
    """An encoder of embeddings of `width` dimensions, and the projection behind it.

    forward: uint8 (B, P, P, 3) -> float32 (B, NUM_PROJECTED).
    """

    signs: Tensor

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("signs", torch.from_numpy(random_signs(width)), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        return nn.functional.normalize(self.encoder(patches).float(), dim=1) @ self.signs


def as_facts(projected: NDArray[np.float32], name: str) -> NDArray[np.uint16]:
    """What `ProjectedEncoder` gives (B, D), as whole numbers that clusters are found from, uint16 (B, D).

    Raises:
        EncoderError: a number is NaN or infinite; `name` is the encoder's.
    """
    if not np.isfinite(projected).all():
        raise EncoderError(f"{name} gives NaN or infinity for a patch: its weights are no use. Give others")
    return np.clip(np.rint(projected * STEPS + MIDDLE), 0, 65535).astype(np.uint16)
