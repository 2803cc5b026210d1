"""Describe a patch by colour and texture, at the cost of reading it. Pure.

Stain is measured as optical density, texture as the mean difference of neighbours at four scales. All sums are of
integers, so that the numbers are the same on every machine. Left out: what only a trained encoder sees.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

DENSITY: Final = np.rint(-np.log10((np.arange(256) + 1) / 256) * (255 / np.log10(256))).astype(np.int64)
"""Optical density of each grey level, scaled to 0..255."""
GLASS: Final = 60
"""Density, summed over three channels, below which a pixel counts as empty; some 225 of 255. Our choice."""
NUCLEAR: Final = 300
"""The same, above which a pixel counts as dark; some 145 of 255. Our choice."""
SCALES: Final = (1, 2, 4, 8)
"""Pixels over which density is averaged before neighbours are compared: from 0.5 to 4 um at 0.5 um/px. Our choice."""
STEPS: Final = 64
"""Parts of a grey level that are kept, so that the result fits into 16 bits."""
NUM_FACTS: Final = 9 + 2 + len(SCALES)
"""D, the numbers that describe a patch."""


def describe_patch(patch: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Describe a patch, uint8 (P, P, 3) with P >= 16; uint16 (D,).

    Means of each channel's density and of the difference of red and blue (4), spreads of the channels and of two of
    their differences (5), shares of empty and of dark pixels (2), and texture at each of `SCALES`.
    """
    density = DENSITY[patch]
    channels = density.reshape(-1, 3)
    total = channels.sum(axis=1)
    red, green, blue = channels.T
    facts = [_mean(channel) for channel in (red, green, blue, np.abs(red - blue))]
    facts += [_spread(values) for values in (red, green, blue, red - blue, green - red)]
    facts += [255 * _mean(total < GLASS), 255 * _mean(total > NUCLEAR)]
    image = density.sum(axis=2)
    facts += [_texture(image, scale) for scale in SCALES]
    return np.array([min(round(fact * STEPS), 65535) for fact in facts], np.uint16)


def _mean(values: NDArray[np.int64] | NDArray[np.bool_]) -> float:
    """Mean of integers, from their exact sum."""
    return int(values.sum()) / len(values)


def _spread(values: NDArray[np.int64]) -> float:
    """Standard deviation of integers, from exact sums."""
    num, total = len(values), int(values.sum())
    return math.sqrt(num * int((values * values).sum()) - total * total) / num


def _texture(image: NDArray[np.int64], scale: int) -> float:
    """Mean difference of neighbours, in density, after averaging over squares of `scale` pixels."""
    side = int(min(image.shape)) // scale
    blocks = image[: side * scale, : side * scale].reshape(side, scale, side, scale).sum(axis=(1, 3))
    differences = int(np.abs(np.diff(blocks, axis=0)).sum() + np.abs(np.diff(blocks, axis=1)).sum())
    return differences / (2 * side * (side - 1) * scale**2)
