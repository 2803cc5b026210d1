"""Pixels without a pattern."""

import numpy as np
from numpy.typing import NDArray


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random pixels of this shape: of one image (height, width, 3), or of many; the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
