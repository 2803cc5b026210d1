"""Tell pen from tissue in a patch at its own resolution, by the colours of the slide's own patches. Pure.

Colours are ratios of optical densities in red, green and blue (Ruifrok and Johnston 2001). Each block of 4 um is looked
at for what no stain has. Ink over dense tissue stays within the colours of single blocks; but mean densities over
`WIDE_BLOCKS` blocks lie on one line for each slide, blue to green over red to green, within a few percent: more or less
haematoxylin moves them along it, ink moves them off it. Red ink has more blue than the line, blue ink less. Dense bone
and red cells have a little more blue as well: where there is hardly any haematoxylin, red ink is further off.

Left out: brown and yellow ink; ink that covers a third of the patches of the reference, or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

COLOURED_DENSITY = 0.25
"""Density of a block's strongest channel from which its ratios are looked at. Our choice: a paler block has no colour
to speak of."""
RED_SHARE = 0.98
COLD, WARM, EARLIER_WARM = (0.12, 0.3), (0.25, 0.3), (0.2, 0.25)
"""Bounds of where blue and green ink begin, and red: with much ink among the patches of the reference, the slide's own
values would hide it. Our choice, of slides with planted ink; 0.25 keeps fields of red cells, which 0.2 did not."""
FEW_BLOCKS = 200
"""With fewer blocks of tissue in the reference, usual values stand for the slide's own. Our choice."""

WIDE_BLOCKS = 6
"""Blocks along a side of the areas whose mean is taken, with half of a third between them. Our choice: 24 um of 4 um
blocks, less than a stroke, more than a nucleus."""
BIN_EDGES = np.arange(-2.2, 0.45, 0.1)
"""Of the logarithm of red to green, where the line has a value each. Our choice: eosin down to -2, blue haematoxylin up
to 0.3."""
LEAST_IN_BIN = 8
"""Areas of a patch that give the line a value. Our choice."""
LEAST_PATCHES = 0.3
"""Share of the reference's patches that have a bin's colour, for it to be the slide's. Our choice: with a quarter of
them under ink, ink of all colours is found on the rest."""
OFF_RED, OFF_BLUE = (2.7, 0.09, 0.25), (4.0, 0.12, 0.2)
"""How far off the line red ink is, and blue: in deviations, at least, and at most. Our choice: planted ink over the
densest tissue is 0.1 and 0.2 away, clean tissue of four slides at most 0.08 and 0.16 but for two of 1,311 patches."""
EOSIN_OFF, EOSIN_RATIO, EOSIN_DENSITY = 0.02, (-1.3, -1.0), (1.6, 1.8)
"""How much further off the line red ink must be in areas of eosin alone: all of it below the first red to green and
density in green, none of it above the second ones. Our choice: dense bone and red cells of twelve sections are 0.09 to
0.14 off, at -1.1 to -1.8 and mostly below 1.6; ink over eosin as dense is darker, and over paler eosin further off."""
WARM_RATIO, COLD_RATIO = -0.55, -0.8
"""Red ink has less red to green than the first, blue ink more than the second. Our choice: dense nuclei have more blue
than the line, too, and more red."""
LEAST_RED_BLUE = (0.35, 0.5)
"""Least density in red of blue ink, and in blue of red ink. Our choice."""


@dataclass(frozen=True)
class InkReference:
    """What colours are usual for a slide; ratios are logarithms of the densities' ratios.

    Attributes:
        red_ratio: what 98 % of blocks do not pass of red to green.
        blue_ratio, blue_spread: median and robust deviation of blue to green.
        least: median density of the weakest channel.
        line: red to green, ascending, and the blue to green that goes with it.
        line_spread: robust deviation of areas from the line.
    """

    red_ratio: float
    blue_ratio: float
    blue_spread: float
    least: float
    line: tuple[tuple[float, ...], tuple[float, ...]]
    line_spread: float


USUAL_INK = InkReference(0.0, -0.5, 0.06, 0.3, ((-0.8,), (-0.5,)), 0.06)
"""Of a slide with hardly any tissue. Our choice: of ten H&E slides."""


def build_ink_reference(patches: Sequence[NDArray[np.float32]]) -> InkReference:
    """The reference of a slide from the densities of blocks, (H, W, 3), of some of its patches, in any order."""
    blocks = np.concatenate([np.empty((0, 3), np.float32), *(each.reshape(-1, 3) for each in patches)])
    blocks = blocks[blocks.max(axis=1) >= COLOURED_DENSITY]
    if len(blocks) < FEW_BLOCKS:
        return USUAL_INK
    red, blue = _ratios(blocks)
    line, spread = _fit_line([_ratios(_coloured(wide_means(each))) for each in patches])
    middle = float(np.median(blue))
    reference = InkReference(
        float(np.quantile(red, RED_SHARE)),
        middle,
        float(1.4826 * np.median(np.abs(blue - middle))),
        float(np.median(blocks.min(axis=1))),
        line,
        spread,
    )
    return reference if line[0] else replace(reference, line=((-0.8,), (middle,)), line_spread=USUAL_INK.line_spread)


def ink_share(densities: NDArray[np.float32], reference: InkReference, *, spares_eosin: bool = True) -> float:
    """Share of a patch that is ink, of its blocks, densities (H, W, 3), or of wider areas, whichever is larger.

    Args:
        spares_eosin: whether dense eosin and red cells are told from red ink; earlier rules do not.
    """
    of_blocks = _share_of_blocks(densities, reference, WARM if spares_eosin else EARLIER_WARM)
    return max(of_blocks, _share_off_line(wide_means(densities), reference, spares_eosin))


def wide_means(densities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of densities (H, W, 3) over squares of `WIDE_BLOCKS`, at every second block: float32 (h, w, 3); empty for
    patches that hold no such square.
    """
    height, width = (side // 2 * 2 for side in densities.shape[:2])
    if min(height, width) < WIDE_BLOCKS:
        return np.empty((0, 0, 3), np.float32)
    pairs = densities[:height:2, :width] + densities[1:height:2, :width]
    squares = pairs[:, ::2] + pairs[:, 1::2]
    rows = squares[:-2] + squares[1:-1] + squares[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / WIDE_BLOCKS**2, np.float32)


def _share_of_blocks(densities: NDArray[np.float32], reference: InkReference, warm: tuple[float, float]) -> float:
    """Share of blocks, densities (H, W, 3), that are ink by themselves: blue and green absorb more red than any stain,
    red absorbs as much blue as green, black all alike. `warm`: bounds of where red begins.
    """
    red, green, blue = densities[..., 0], densities[..., 1], densities[..., 2]
    x, y, least = np.log(red / green), np.log(blue / green), np.minimum(np.minimum(red, green), blue)
    above = y - reference.blue_ratio
    ink = (x > float(np.clip(reference.red_ratio + 0.12, *COLD))) & (red > 0.35)
    ink |= (x < -1.3) & (above > float(np.clip(3.5 * reference.blue_spread, *warm))) & (blue > 0.5)
    ink |= (np.abs(x + 0.25) < 0.45) & (np.abs(y) < 0.25) & (above > 0.1) & (least > max(0.6, 2.2 * reference.least))
    ink |= least > 2.4
    return float(ink.mean())


def _share_off_line(areas: NDArray[np.float32], reference: InkReference, spares_eosin: bool) -> float:
    """Share of wide areas, densities (H, W, 3), that are blue or red ink by their distance from the slide's line."""
    if not areas.size:
        return 0.0
    coloured = _coloured(areas)
    x, y = _ratios(coloured)
    off = y - np.interp(x, *reference.line)
    least = np.full(len(x), _least_off(OFF_RED, reference))
    if spares_eosin:
        is_eosin = np.interp(x, EOSIN_RATIO, (1, 0)) * np.interp(coloured[:, 1], EOSIN_DENSITY, (1, 0))
        least = np.maximum(least, OFF_RED[1] + EOSIN_OFF * is_eosin)
    ink = (off > least) & (x < WARM_RATIO) & (coloured[:, 2] > LEAST_RED_BLUE[1])
    ink |= (off < -_least_off(OFF_BLUE, reference)) & (x > COLD_RATIO) & (coloured[:, 0] > LEAST_RED_BLUE[0])
    return float(np.count_nonzero(ink) / (areas.shape[0] * areas.shape[1]))


def _least_off(off: tuple[float, float, float], reference: InkReference) -> float:
    """How far off the slide's line an ink begins."""
    deviations, least, most = off
    return min(max(deviations * reference.line_spread, least), most)


def _fit_line(
    ratios: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], float]:
    """The line through the ratios (N,) and (N,) of each patch's areas, and the deviation from it.

    It has the median over the patches that have a bin, where these are enough. No bin has enough: an empty line.
    """
    values = np.full((len(ratios), len(BIN_EDGES) - 1), np.nan)
    for number, (x, y) in enumerate(ratios):
        bins = np.digitize(x, BIN_EDGES) - 1
        for place in np.unique(bins[(bins >= 0) & (bins < values.shape[1])]):
            inside = bins == place
            if inside.sum() >= LEAST_IN_BIN:
                values[number, place] = np.median(y[inside])
    common = np.isfinite(values).sum(axis=0) >= max(1.0, LEAST_PATCHES * len(ratios))
    if not common.any():
        return ((), ()), 0.0
    middles = (BIN_EDGES[:-1] + BIN_EDGES[1:]) / 2
    line = tuple(middles[common].tolist()), tuple(np.nanmedian(values[:, common], axis=0).tolist())
    spreads = [np.median(np.abs(y - np.interp(x, *line))) for x, y in ratios if len(x) >= LEAST_IN_BIN]
    return line, float(1.4826 * np.median(spreads))


def _coloured(areas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of densities (H, W, 3) that have a colour to speak of: (N, 3)."""
    flat = areas.reshape(-1, 3)
    return np.asarray(flat[flat.max(axis=1) >= COLOURED_DENSITY])


def _ratios(densities: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logarithms of red to green and of blue to green of densities (N, 3): (N,) and (N,)."""
    return np.log(densities[:, 0] / densities[:, 1]), np.log(densities[:, 2] / densities[:, 1])
