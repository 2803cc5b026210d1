"""Views of a patch: crops, flips, changes of stain, colour and sharpness; the same for teacher and student. Pure.

View 0 is the patch itself, the centre of the tile that the store keeps. A view depends only on (seed, row, view,
strength) and the pixels, and is computed in integers, so that the student sees to the bit what the teacher embedded, on
any machine. `draw_view` says what happens, `Views.apply` does it. How strong it is: `views.strengths`.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.views.colours import FACTOR_ONE, HUE_TURN, ColourStep, change_colours
from pipeline.cohort.views.optics import blur, compress, resample
from pipeline.cohort.views.strengths import EARLIER, VIEW_STRENGTHS, Colours, Rescale
from pipeline.sampling import patch_keys

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities (R, G, B) of haematoxylin, eosin and residual, one row each: Ruifrok and Johnston, 2001."""

FINENESS = 12
"""Fraction bits of optical densities and mixing coefficients. Our choice: a density of 1 / 4096 is far below a grey
level.
"""
ONE = 1 << FINENESS
DENSITY = np.rint(-ONE * np.log((np.arange(256) + 1) / 256)).astype(np.int32)
"""Optical density of each grey level, in units of 1 / `ONE`; white has 0."""
GREY_OF_DENSITY = np.clip(np.rint(256 * np.exp(-np.arange(DENSITY[0] + 1) / ONE) - 1), 0, 255).astype(np.uint8)
"""The inverse: grey level of each optical density up to that of black."""


PROBED_VIEWS, PROBED_TILE_PX, PROBED_PATCH_PX = 64, 48, 40
"""What `views_probe` looks at. Our choice: every part of every strength occurs, in a tenth of a second."""


@dataclass(frozen=True)
class ViewDraws:
    """The draws of one view of one row; each hashes a purpose word of its own."""

    seed: int
    row: int
    view: int

    def key(self, word: str) -> int:
        """A 64-bit number."""
        return int(patch_keys(word, np.array([[self.row, self.view]]), self.seed)[0])

    def unit(self, word: str) -> float:
        """A multiple of 2**-53 in 0..1, 1 excluded."""
        return (self.key(word) >> 11) * 2.0**-53

    def happens(self, word: str, probability: float) -> bool:
        """Whether what has this probability happens."""
        return probability >= 1 or self.unit(f"view {word}?") < probability

    def whole(self, word: str, lowest: int, highest: int) -> int:
        """A whole number between these two, both included."""
        return lowest + int(self.unit(f"view {word}") * (highest - lowest + 1))

    def within(self, word: str, most: float, one: int) -> int:
        """A number in -+ `most`, in units of 1 / `one`."""
        return round(one * most * (2 * self.unit(f"view {word}") - 1))


@dataclass(frozen=True)
class DrawnView:
    """What happens to a tile in one view, in this order; `None` and 0 where nothing does.

    Attributes:
        corner_px: (x, y) of the part that is cropped, in the tile.
        side_px: its side; other than the patch's, it is resampled.
        turn: flips and a quarter turn, as `dihedral` counts them.
        stain: (key, largest change) as `change_stain` takes them.
        colours: steps of `change_colours`.
        sigma_milli_px: of the blur.
        quality: of the compression.
    """

    corner_px: tuple[int, int]
    side_px: int
    turn: int = 0
    stain: tuple[int, float] | None = None
    colours: tuple[tuple[ColourStep, int], ...] = ()
    sigma_milli_px: int | None = None
    quality: int | None = None


@dataclass(frozen=True)
class Views:
    """The number of views of a patch, including the patch itself, their seed and strength.

    `patch_px` is the side of a view; `None` where the store keeps no more than the patch.
    """

    count: int = 1
    seed: int = 0
    strength: str = EARLIER
    patch_px: int | None = None

    def apply(self, tile: NDArray[np.uint8], row: int, view: int) -> NDArray[np.uint8]:
        """View number `view` of a row's tile, uint8 (T, T, 3): (P, P, 3)."""
        patch_px = self.patch_px or len(tile)
        if view == 0:
            return centre(tile, patch_px)
        drawn = draw_view(ViewDraws(self.seed, row, view), self.strength, len(tile), patch_px)
        (x, y), side = drawn.corner_px, drawn.side_px
        patch = dihedral(resample(tile[y : y + side, x : x + side], patch_px), drawn.turn)
        if drawn.stain is not None:
            patch = change_stain(patch, *drawn.stain)
        if drawn.colours:
            patch = change_colours(patch, drawn.colours)
        if drawn.sigma_milli_px is not None:
            patch = blur(patch, drawn.sigma_milli_px)
        return patch if drawn.quality is None else compress(patch, drawn.quality)


def draw_view(draws: ViewDraws, strength: str, tile_px: int, patch_px: int) -> DrawnView:
    """Draw what happens in a view of a tile of `tile_px`, of which a patch of `patch_px` is seen."""
    table = VIEW_STRENGTHS[strength]
    side_px = _draw_side(draws, table.rescale, tile_px, patch_px)
    corner_px = draws.whole("crop x", 0, tile_px - side_px), draws.whole("crop y", 0, tile_px - side_px)
    turn = draws.key(table.turn) & 7 if table.turn else 0
    if table.flips:
        turn = sum(bit for bit, axis in ((1, "rows"), (2, "columns")) if draws.happens(f"flip of {axis}", 0.5))
    stain, colours, sigma, quality = table.stain, table.colours, table.blur, table.compression
    return DrawnView(
        corner_px,
        side_px,
        turn,
        (draws.key(stain.word), stain.change) if stain and draws.happens("stain", stain.probability) else None,
        _draw_colours(draws, colours) if colours and draws.happens("colours", colours.probability) else (),
        draws.whole("sigma", sigma.smallest_milli_px, sigma.largest_milli_px)
        if sigma and draws.happens("blur", sigma.probability)
        else None,
        draws.whole("quality", quality.lowest, quality.highest)
        if quality and draws.happens("compression", quality.probability)
        else None,
    )


def _draw_side(draws: ViewDraws, rescale: Rescale | None, tile_px: int, patch_px: int) -> int:
    """The side of the part of the tile that becomes the patch."""
    if rescale is None or not draws.happens("rescale", rescale.probability):
        return patch_px
    smallest = -int(-rescale.smallest * patch_px // 1)
    return draws.whole("side", smallest, min(int(rescale.largest * patch_px), tile_px))


def _draw_colours(draws: ViewDraws, colours: Colours) -> tuple[tuple[ColourStep, int], ...]:
    """Changes of colour in a random order."""
    steps: list[tuple[ColourStep, int]] = [
        ("brightness", FACTOR_ONE + draws.within("brightness", colours.brightness, FACTOR_ONE)),
        ("contrast", FACTOR_ONE + draws.within("contrast", colours.contrast, FACTOR_ONE)),
        ("saturation", FACTOR_ONE + draws.within("saturation", colours.saturation, FACTOR_ONE)),
        ("hue", draws.within("hue", colours.hue, HUE_TURN)),
    ]
    return tuple(sorted(steps, key=lambda step: draws.key(f"view place of {step[0]}")))


def centre(tile: NDArray[np.uint8], patch_px: int) -> NDArray[np.uint8]:
    """The middle (P, P, 3) of (T, T, 3); of an odd margin, the smaller half is above and to the left."""
    start = (len(tile) - patch_px) // 2
    return tile[start : start + patch_px, start : start + patch_px]


@lru_cache
def views_probe(strength: str) -> str:
    """Hex SHA-256 of some views of a fixed tile: another one means that views of this strength cannot be replayed."""
    y, x = np.mgrid[:PROBED_TILE_PX, :PROBED_TILE_PX]
    keys = patch_keys("views probe", np.stack([x.ravel(), y.ravel()], axis=1), 0).reshape(x.shape)
    noise = np.stack([(keys >> np.uint64(shift)) & np.uint64(63) for shift in (0, 8, 16)], axis=-1).astype(np.int64)
    tile = (np.stack([60 + 3 * x, 40 + 2 * y, 200 - x - y], axis=-1) + noise).clip(0, 255).astype(np.uint8)
    views, digest = Views(PROBED_VIEWS + 1, 0, strength, PROBED_PATCH_PX), hashlib.sha256()
    for view in range(1, views.count):
        digest.update(views.apply(tile, 0, view).tobytes())
    return digest.hexdigest()


def dihedral(patch: NDArray[np.uint8], which: int) -> NDArray[np.uint8]:
    """Apply one of the eight flips and quarter turns to a square (P, P, C): bit 2 transposes, bits 0 and 1 flip rows
    and columns.
    """
    if which & 4:
        patch = patch.transpose(1, 0, 2)
    if which & 1:
        patch = patch[::-1]
    if which & 2:
        patch = patch[:, ::-1]
    return patch


def stain_changes(key: int, most: float) -> NDArray[np.float64]:
    """By how much haematoxylin, eosin and residual change, chosen by the key's bits: (3,), each in -+ `most`."""
    return np.array([most * (((key >> shift) & 0xFFFF) / 32767.5 - 1) for shift in (16, 32, 48)])


def change_stain(patch: NDArray[np.uint8], key: int, most: float) -> NDArray[np.uint8]:
    """Scale each stain in (P, P, 3) by up to `most`, chosen by the key's bits; white stays white."""
    changes = stain_changes(key, most)
    unmix = np.linalg.inv(STAINS)
    mix = np.rint(ONE * (np.eye(3) + (unmix * changes) @ STAINS)).astype(np.int32)
    mixed = (DENSITY[patch] @ mix + ONE // 2) >> FINENESS
    changed: NDArray[np.uint8] = GREY_OF_DENSITY[mixed.clip(0, len(GREY_OF_DENSITY) - 1)]
    return changed
