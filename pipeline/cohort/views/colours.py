"""Change brightness, contrast, saturation and hue of a patch, in integers, so that it is the same on any machine. Pure.

As torchvision's `ColorJitter` does (`adjust_brightness` and its siblings), with factors in units of 1 / `FACTOR_ONE`
and grey levels in units of 1 / 64, rounded once at the end.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ColourStep = Literal["brightness", "contrast", "saturation", "hue"]

FACTOR_BITS = 16
FACTOR_ONE = 1 << FACTOR_BITS
"""The factor 1 of brightness, contrast and saturation. With factors below 2 all products fit into 32 bits."""
HUE_BITS = 15
HUE_TURN = 6 << HUE_BITS
"""A full turn of the hue: six sectors of 2**15."""
LEVEL_BITS = 6
"""Fraction bits of a grey level between two steps. Our choice: rounding of four steps then stays below a tenth."""
WHITE_LEVEL = 255 << LEVEL_BITS
LUMA_WEIGHTS = (19595, 38470, 7471)
"""Weights of R, G and B in grey, in units of 1 / 65536; they sum to 1. ITU-R BT.601."""

Planes = NDArray[np.int32]
"""R, G and B of a patch in units of 1 / 64 grey level, int32 (3, P, P)."""


def change_colours(patch: NDArray[np.uint8], steps: Sequence[tuple[ColourStep, int]]) -> NDArray[np.uint8]:
    """Change the colours of (P, P, 3) by steps, one after the other; each has a factor, or a turn of the hue."""
    planes: Planes = np.ascontiguousarray(patch.transpose(2, 0, 1)).astype(np.int32) << LEVEL_BITS
    for name, amount in steps:
        planes = turn_hue(planes, amount) if name == "hue" else _scale(planes, _pivot(planes, name), amount)
    rounded = (planes + (1 << LEVEL_BITS - 1)) >> LEVEL_BITS
    return np.ascontiguousarray(rounded.astype(np.uint8).transpose(1, 2, 0))


def _pivot(planes: Planes, name: ColourStep) -> NDArray[np.int32] | int:
    """What a step leaves as it is: black, the mean grey, or each pixel's grey (P, P)."""
    if name == "brightness":
        return 0
    weighted = sum(weight * plane for weight, plane in zip(LUMA_WEIGHTS, planes, strict=True))
    grey: NDArray[np.int32] = (np.asarray(weighted, np.int32) + (1 << 15)) >> 16
    if name == "saturation":
        return grey
    return (2 * int(grey.sum(dtype=np.int64)) + grey.size) // (2 * grey.size)


def _scale(planes: Planes, pivot: NDArray[np.int32] | int, factor: int) -> Planes:
    """Scale the distance from `pivot`."""
    scaled = pivot + (((planes - pivot) * np.int32(factor) + (FACTOR_ONE >> 1)) >> FACTOR_BITS)
    return np.asarray(scaled.clip(0, WHITE_LEVEL), np.int32)


def turn_hue(planes: Planes, turn: int) -> Planes:
    """Turn the hue by `turn` in units of 1 / `HUE_TURN`; the largest and the smallest of R, G and B stay, as in HSV."""
    red, green, blue = planes
    largest, smallest = planes.max(axis=0), planes.min(axis=0)
    chroma = largest - smallest
    is_red = largest == red
    is_green = ~is_red & (largest == green)
    rise = np.where(is_red, green - blue, np.where(is_green, blue - red, red - green))
    one, turned = np.int32(1 << HUE_BITS), np.empty_like(planes)
    sector = np.where(is_red, np.int32(0), np.where(is_green, 2 * one, 4 * one))
    hue = sector + (rise << HUE_BITS) // np.maximum(chroma, 1)
    for plane, start in enumerate((5, 3, 1)):  # R, G and B are largest a third of a turn apart
        place = hue + np.int32((start * int(one) + turn) % HUE_TURN)  # from -1 sector to below two turns
        place[place >= HUE_TURN] -= HUE_TURN
        share = np.minimum(place, 4 * one - place).clip(0, one)
        turned[plane] = largest - ((chroma * share + (one >> 1)) >> HUE_BITS)
    return turned
