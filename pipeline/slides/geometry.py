"""Geometry of patches: levels, grids, boxes and tissue fractions. Pure.

Frames: `_l0_px` are pixels of level 0, (x, y) from the slide's top left corner; `_level_px` are pixels of the level
that is read; `_patch_px` are pixels of the finished patch. Left out: rotated or overlapping tiles.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.base.units import check_mpp
from pipeline.config.groups import Decode, Resampling

PILLOW: Final = "lanczos-pillow"
"""Of plans that do not say."""

MAX_UPSAMPLING = 1.05
"""Most that a patch may be enlarged unless upsampling is allowed. Our choice."""
LEVEL_TOLERANCE = 1.01
"""A level is fine enough if it is at most 1 % coarser than the target. Our choice: level sizes are rounded down
(2.00008 for 2), and a strict comparison would read four times the pixels for nothing."""
MOST_HALVINGS = 16
"""Most times that a level was halved. Our choice: one more than leaves a pixel of the widest slides."""
ROUNDING = 1e-6
"""Distance in pixels below which a float is rounded to the nearest integer."""
FRACTION_DECIMALS = 9
"""Decimals of an area fraction: much finer than a mask pixel's share of a patch, much coarser than the rounding errors
of sums over a whole slide."""


@dataclass(frozen=True)
class PatchGeometry:
    """How patches of one slide are read.

    Attributes:
        patch_px: side of the finished patch, pixels.
        target_mpp: um/px of the finished patch.
        slide_mpp: um/px of level 0.
        level: index of the level that is read.
        downsample: level-0 pixels per pixel of that level.
        resampling: who reduces the patch; torch where it starts at a whole pixel and is not enlarged, as `reduced_by`
            says.
        decode: "half" where the level is read at half its size.
    """

    patch_px: int
    target_mpp: float
    slide_mpp: float
    level: int
    downsample: float
    resampling: Resampling = PILLOW
    decode: Decode = "full"

    @property
    def is_halvable(self) -> bool:
        """Whether the level at half its size is as fine as the target, by the rule for levels (`choose_level`)."""
        return 2 * self.downsample * self.slide_mpp <= self.target_mpp * LEVEL_TOLERANCE

    def reduced_by(self, resampling: Resampling) -> Self:
        """This geometry, reduced by another program where that can: torch has no box that starts between pixels."""
        can = resampling == PILLOW or (self.downsample == 1 and self.patch_read_px >= self.patch_px)
        return replace(self, resampling=resampling if can else PILLOW)

    def record(self) -> dict[str, Any]:
        """All of it as JSON types; without what plans of earlier versions lack, where it is as it was then."""
        earlier = {"resampling": PILLOW, "decode": "full"}
        return {name: value for name, value in asdict(self).items() if earlier.get(name) != value}

    @property
    def halving(self) -> int:
        """Pixels of the level a pixel that is read, along each side: 2 where tiles are decoded at half their size."""
        return 2 if self.decode == "half" else 1

    @property
    def patch_l0_px(self) -> float:
        """Side of a patch in level-0 pixels; not rounded."""
        return self.patch_px * self.target_mpp / self.slide_mpp

    @property
    def patch_level_px(self) -> float:
        """Side of a patch in pixels of the level that is read; not rounded."""
        return self.patch_l0_px / self.downsample

    @property
    def patch_read_px(self) -> float:
        """Side of a patch in the pixels that are read: of the level, or of the level at half its size; not rounded."""
        return self.patch_level_px / self.halving


def choose_level(
    slide_mpp: float, downsamples: tuple[float, ...], target_mpp: float, *, allow_upsampling: bool = False
) -> int:
    """Index of the coarsest level that is at least as fine as `target_mpp` (um/px).

    `downsamples` are level-0 pixels per level pixel, finest first, as OpenSlide lists them.

    Raises:
        ValueError: an mpp is implausible, or level 0 would have to be enlarged by more than 5 % without permission.
    """
    check_mpp(target_mpp, "the target")
    check_mpp(slide_mpp, "the slide")
    fine = [i for i, d in enumerate(downsamples) if slide_mpp * d <= target_mpp * LEVEL_TOLERANCE]
    if fine:
        return max(fine, key=lambda i: downsamples[i])
    if slide_mpp > target_mpp * MAX_UPSAMPLING and not allow_upsampling:
        raise ValueError(
            f"the slide has {slide_mpp:g} um/px, coarser than the target of {target_mpp:g}: patches would be enlarged "
            f"{slide_mpp / target_mpp:.2f} times. Use --allow-upsampling, or a coarser --mpp"
        )
    return 0


def true_downsample(size_l0_px: tuple[int, int], size_level_px: tuple[int, int]) -> float:
    """Level-0 pixels per pixel of a level whose size was rounded.

    Scanners halve or quarter exactly and drop the odd pixels, so the ratio of the sizes is slightly too large: 1501 /
    375 is 4.003, which puts a patch near the far edge off by a level pixel. Returns the whole number that gives the
    level's size by rounding down or up; if there is none, the mean ratio, as OpenSlide does.
    """
    mean = sum(full / small for full, small in zip(size_l0_px, size_level_px, strict=True)) / 2
    whole = max(1, round(mean))
    exact = all(
        small in (full // whole, -(-full // whole)) for full, small in zip(size_l0_px, size_level_px, strict=True)
    )
    return float(whole) if exact else mean


def stated_downsample(size_l0_px: tuple[int, int], size_level_px: tuple[int, int], ratio: float) -> float | None:
    """OpenSlide's `ratio` of a level where it is what the format states; `None` where it is that of the sizes, which
    OpenSlide takes if the format states nothing.
    """
    mean = sum(full / small for full, small in zip(size_l0_px, size_level_px, strict=True)) / 2
    return None if abs(ratio / mean - 1) < ROUNDING else ratio


def filled_downsamples(
    sizes_px: Sequence[tuple[int, int]], tiles_px: Sequence[tuple[int, int] | None]
) -> tuple[float | None, ...]:
    """Level-0 pixels per pixel of levels that were halved and then filled up to whole tiles, as converters of iSyntax
    write them; `None` for a level of which that is not known, and for all of them unless one shows it.

    The ratio of such a level's sizes says too little, of each axis something else: 121 x 120 tiles become 61 x 60, and
    the far edge would lie 0.8 % beside its place. A level shows it if its sides were not reduced alike, and a power of
    two gives both by rounding up to whole tiles. Where several would, as for the last tile, the one counts that
    continues the levels before it.

    Args:
        sizes_px: (width, height) of the levels, finest first; tiles_px: of their tiles, if they have any.
    """
    filled: list[float | None] = []
    for size, tile in zip(sizes_px, tiles_px, strict=True):
        fits = [
            2.0**halvings for halvings in range(MOST_HALVINGS) if tile and _fills(sizes_px[0], size, tile, halvings)
        ]
        *_, before, last = 0.0, 0.0, *(known or 0.0 for known in filled)
        continued = last * last / before if before else 0.0
        filled.append(fits[0] if len(fits) == 1 else continued if continued in fits else None)
    is_shown = any(
        known and not _reduced_alike(sizes_px[0], size) for known, size in zip(filled, sizes_px, strict=True)
    )
    return tuple(filled) if is_shown else (None,) * len(filled)


def _fills(full: tuple[int, int], size: tuple[int, int], tile: tuple[int, int], halvings: int) -> bool:
    """Whether a level of `size` is level 0 halved so many times, and filled up to whole tiles."""
    return all(small == -(-f // (t << halvings)) * t for f, small, t in zip(full, size, tile, strict=True))


def _reduced_alike(full: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether one factor gives both sides of a level by rounding up or down."""
    (least_x, most_x), (least_y, most_y) = (reduction(f, small) for f, small in zip(full, size, strict=True))
    return max(least_x, least_y) <= min(most_x, most_y)


def reduction(full: int, small: int) -> tuple[float, float]:
    """The least and the greatest factor that reduces `full` pixels to `small`, which may be rounded up or down."""
    return full / (small + 1), full / (small - 1) if small > 1 else math.inf


@dataclass(frozen=True)
class RegionBox:
    """The region to read for a patch, and the box in it to resample. Pixels are the level's, or where tiles are decoded
    at half their size, those of the level at half its size.

    Attributes:
        corner_level_px: (x, y) of the region's top left corner, level pixels.
        size_level_px: (width, height) of the region, level pixels.
        box_level_px: (left, top, right, bottom) of the patch inside the region, level pixels, fractional.
    """

    corner_level_px: tuple[int, int]
    size_level_px: tuple[int, int]
    box_level_px: tuple[float, float, float, float]

    def is_exact(self, patch_px: int) -> bool:
        """Whether the region is the patch, pixel for pixel, and needs no resampling."""
        return self.size_level_px == (patch_px, patch_px) and self.box_level_px == (0, 0, patch_px, patch_px)


def _near_integer(value: float) -> float:
    """`value`, or the integer within `ROUNDING` of it."""
    nearest = round(value)
    return float(nearest) if abs(value - nearest) < ROUNDING else value


def region_box(x_l0_px: int, y_l0_px: int, geometry: PatchGeometry) -> RegionBox:
    """The region of whole pixels that covers the patch whose top left corner is (x, y) in level 0."""
    starts, lows, highs, sizes = [], [], [], []
    for value in (x_l0_px, y_l0_px):
        position = _near_integer(value / (geometry.downsample * geometry.halving))
        start = math.floor(position)
        low = position - start
        high = _near_integer(low + geometry.patch_read_px)
        starts.append(start)
        lows.append(low)
        highs.append(high)
        sizes.append(math.ceil(high))
    return RegionBox((starts[0], starts[1]), (sizes[0], sizes[1]), (lows[0], lows[1], highs[0], highs[1]))


def patch_grid(
    bounds_l0_px: tuple[int, int, int, int], patch_l0_px: float, stride_l0_px: float, step_l0_px: int = 1
) -> NDArray[np.int64]:
    """Top left corners of all patches wholly inside `bounds_l0_px` (x, y, width, height), row by row.

    Returns int64 (N, 2) of (x, y) in level-0 pixels. Corners are rounded from exact multiples of the stride, to
    multiples of `step_l0_px` from the first, so that rounding errors do not add up across the slide. All are distinct,
    even at a stride below one pixel.
    """
    axes = []
    for start, length in zip(bounds_l0_px[:2], bounds_l0_px[2:], strict=True):
        count = max(0, math.floor((length - patch_l0_px + ROUNDING) / stride_l0_px) + 1)
        axis = start + np.unique(np.rint(np.arange(count) * stride_l0_px / step_l0_px).astype(np.int64)) * step_l0_px
        axes.append(axis[axis + patch_l0_px <= start + length + ROUNDING])
    x, y = np.meshgrid(*axes)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def readable_bounds(
    bounds_l0_px: tuple[int, int, int, int], level_size_px: tuple[int, int], downsample: float
) -> tuple[int, int, int, int]:
    """Crop `bounds_l0_px` (x, y, width, height) to what the level covers: its size is rounded down and may miss up to
    one pixel.
    """
    x, y, width, height = bounds_l0_px
    right = min(x + width, math.floor(level_size_px[0] * downsample + ROUNDING))
    bottom = min(y + height, math.floor(level_size_px[1] * downsample + ROUNDING))
    return x, y, max(right - x, 0), max(bottom - y, 0)


def integral_image(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Summed-area table of a (H, W) mask: float64 (H+1, W+1), entry (r, c) = mask[:r, :c].sum()."""
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1, out=table[1:, 1:])
    return table


def _interpolate(table: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear value of an integral image at fractional (x, y): exact for a mask of constant pixels."""
    height, width = table.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    column, row = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    right, down = x - column, y - row
    top = table[row, column] * (1 - right) + table[row, column + 1] * right
    bottom = table[row + 1, column] * (1 - right) + table[row + 1, column + 1] * right
    return np.asarray(top * (1 - down) + bottom * down)


def area_fractions(
    integral: NDArray[np.float64],
    coords_l0_px: NDArray[np.int64] | NDArray[np.float64],
    patch_l0_px: float,
    mask_l0_px: float,
) -> NDArray[np.float64]:
    """Fraction of each patch's area that the mask covers, exact to fractions of a mask pixel.

    Args:
        integral: `integral_image` of the mask, (H+1, W+1).
        coords_l0_px: (N, 2) top left corners (x, y), level 0.
        patch_l0_px: side of a patch, level-0 pixels.
        mask_l0_px: side of a mask pixel, level-0 pixels; the mask's corner is the slide's.

    Returns float64 (N,) in 0..1, rounded to `FRACTION_DECIMALS` so that a patch wholly on tissue has exactly 1. Area
    outside the mask counts as not covered.
    """
    corners = coords_l0_px.astype(np.float64)
    x0, y0 = corners[:, 0] / mask_l0_px, corners[:, 1] / mask_l0_px
    side = patch_l0_px / mask_l0_px
    x1, y1 = x0 + side, y0 + side
    covered = (
        _interpolate(integral, x1, y1)
        - _interpolate(integral, x0, y1)
        - _interpolate(integral, x1, y0)
        + _interpolate(integral, x0, y0)
    )
    return np.clip(np.round(covered / side**2, FRACTION_DECIMALS), 0.0, 1.0)
