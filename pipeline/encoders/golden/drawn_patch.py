"""The built-in test patch: a picture drawn by whole numbers alone, so that it is the same to the bit on any machine.

Pure. It has what tells wrong pipelines apart: three unlike channels (their order), no symmetry (flips, turns),
structure from one pixel to sixty (resampling, sizes of tokens), and the colours of a stained section (statistics). A
patch of fewer pixels is the top left corner of a larger one.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

PATCH_NAME = "g2l-1"
"""Name of the picture. Another picture would have another name: values that were recorded stay true."""
GLASS, STROMA, NUCLEUS = (243, 240, 244), (226, 160, 196), (92, 58, 138)
"""Colours, RGB: of glass, of eosin and of haematoxylin. Our choice."""
CELL_PX = 28
"""Distance of nuclei, pixels: one a square of this side, at a place and of a size of its own."""
GRAIN = 13
"""Grey levels of the noise, from -6 to 6: small beside the colours, large beside a rounding error."""


def draw_test_patch(px: int) -> NDArray[np.uint8]:
    """The test patch, uint8 (px, px, 3), RGB."""
    y, x = np.indices((px, px), dtype=np.int64)
    wave = _triangle(3 * x + y, 61) + _triangle(x - 2 * y, 37)  # fibres, 0 to 47
    picture = np.empty((px, px, 3), np.int64)
    for channel, colour in enumerate(STROMA):
        picture[..., channel] = colour - wave * (channel + 1) // 3
    lumen = 5 * (x - 150) ** 2 + 9 * (y - 60) ** 2 + 4 * (x - 150) * (y - 60) < 9000
    picture[lumen] = GLASS
    row, column = y // CELL_PX, x // CELL_PX
    dx = x - CELL_PX * column - 8 - _noise(column, row, 1) % 12
    dy = y - CELL_PX * row - 8 - _noise(column, row, 2) % 12
    squared = (4 + _noise(column, row, 3) % 5) ** 2
    depth = squared - dx * dx - dy * dy - dx * dy // 2  # ellipses
    inside = (depth > 0) & ~lumen & (_noise(column, row, 4) % 5 > 0)
    for channel, colour in enumerate(NUCLEUS):
        picture[..., channel] = np.where(inside, colour + 40 * (depth < squared // 3), picture[..., channel])
    for channel in range(3):
        picture[..., channel] += _noise(x, y, 5 + channel) % GRAIN - GRAIN // 2
    return np.clip(picture, 0, 255).astype(np.uint8)


def sha256_of_pixels(patch: NDArray[np.uint8]) -> str:
    """Hex SHA-256 of a patch's bytes, row by row."""
    return hashlib.sha256(np.ascontiguousarray(patch).tobytes()).hexdigest()


def _triangle(phase: NDArray[np.int64], period: int) -> NDArray[np.int64]:
    """A wave of straight lines, from 0 to half the period."""
    place = phase % period
    return np.minimum(place, period - place)


def _noise(x: NDArray[np.int64], y: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A number from 0 to 2**31 - 1 for each place, which looks random."""
    mixed = (x * 73856093) ^ (y * 19349663) ^ (seed * 83492791)
    mixed &= 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 2246822519) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 16)) & 0x7FFFFFFF
