"""Find pen: black, blue, green and red ink on the glass or over the tissue. Pure.

Haematoxylin, eosin and DAB all absorb green; the logarithms of the ratios of a pixel's densities, red to green and blue
to green, lie for all mixtures of them in a narrow band that each slide has of its own. Blue and green ink absorb more
red than any stain does, red ink as much blue as green but no red, black ink everything alike. Each ink is found where
it is plain, and followed to where it is fainter. Colours of stains: Ruifrok and Johnston 2001. Left out: brown and
yellow ink, which look like DAB; slides of which trichrome, Alcian blue or the like colour a part: their blue is that of
a pen, so switch the rule off.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.artefacts.density import (
    closed,
    coarse,
    density,
    grown,
    large_parts,
    opened,
    shown,
    steps,
    touching,
)
from pipeline.slides.glass import Colour, brightest

LEAST_DENSITY = 0.2
"""Density of a pixel's strongest channel from which its ratios are looked at. Our choice: noise of two grey levels
changes a ratio by 4 % there.
"""
FLOOR = 0.02
"""Least density of a channel, so that ratios stay finite. Our choice: five grey levels of a white pixel."""
FEW_PIXELS = 50
"""With fewer pixels of tissue, usual values stand for the slide's own. Our choice."""
ENOUGH_PIXELS = 20_000
"""Pixels of tissue, evenly spread, that the slide's own colours are taken from. Our choice: enough for a median."""
LEAST_DEVIATION, MOST_DEVIATION = 0.05, 0.12
"""Bounds of the deviation of blue to green. Our choice: slides that we inspected have 0.03 to 0.1; pen widens it."""
BROWN = (-1.3, -0.35, 0.05, 0.7)
"""Where DAB lies: least and largest logarithm of red to green, and of blue to green. Around the -0.75 and 0.31 of
Ruifrok and Johnston. Our choice.
"""
BROWN_SHARE = 0.02
"""Share of the tissue from which brown is a stain of the slide, and black ink has to be blacker. Our choice."""
COLD_EDGE = (0.12, 0.45)
"""Bounds of the logarithm of red to green above which a pixel is blue or green ink; between them it is by
`BEYOND_STAINS` more than 95 % of the slide's stains have. Our choice: haematoxylin has -0.07 by Ruifrok and Johnston,
up to 0.2 on a blue scan; inks have 0.3 to 1.2.
"""
BEYOND_STAINS = 0.25
"""Our choice: ink over tissue has that much less, and is told by blue to green as well."""
RED_EDGE = (-1.35, -1.1)
"""The same below which a pixel is red ink, plain and faint. Our choice: red ink has -2.7 on glass and -1.4 over tissue,
eosin down to -2, so that blue must tell as well.
"""
BLACK_EDGES = (-0.7, 0.2, 0.25)
"""Least and largest logarithm of red to green, and largest of blue to green, of black ink. Our choice: on glass both
are 0, over tissue -0.6 and -0.3.
"""
BLACK_ON_BROWN = (-0.2, -0.25)
"""Least of both where DAB is a stain. Our choice: mixtures of haematoxylin and DAB have less of one or the other."""
BLACK_AT_ANY_RATE = 1.8
"""Density of the weakest channel from which all is black. Our choice: a sixth of the light, in every colour."""
WIDE_UM = 100.0
"""Black ink is plain where it is as wide. Our choice: crowded nuclei and pigment are as dark, but narrow."""
LEAST_MM2 = 0.03
"""Smaller marks are left. Our choice: some two patches of 112 um; pigment and dust are smaller."""
MARGIN_UM = 16.0
"""What is dropped around ink: it runs out within some 20 um. Our choice."""
CLOSED_UM = 48.0
"""Gaps in a stroke that are closed. Our choice: some cells."""


@dataclass(frozen=True)
class Band:
    """Where the slide's own stains lie.

    Attributes:
        x: median of the logarithm of red to green, of the paler half of the tissue: less of that is ink.
        cold_edge: the same from which a pixel is blue or green ink.
        y: median of the logarithm of blue to green, of the paler half.
        y_deviation: its robust standard deviation, within bounds.
        red: median density of red, of all of the tissue.
        green: that of green.
        least: that of the weakest channel.
        brown: whether much of the tissue is brown.
    """

    x: float
    cold_edge: float
    y: float
    y_deviation: float
    red: float
    green: float
    least: float
    brown: bool


USUAL = Band(-0.8, 0.12, -0.5, 0.06, 0.3, 0.6, 0.3, False)
"""Of a slide with hardly any tissue: ours, of ten H&E overviews of several scanners."""


def find_pen(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], known: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Find pen in a thumbnail (H, W, 3) of `pixel_um`: bool (H, W), with a margin.

    Args:
        tissue: bool (H, W), from which the colours of the slide's stains are taken.
        known: bool (H, W), readable and not black; nothing else is found.
        glass: of `find_glass`.
    """
    grid = coarse(image, pixel_um)
    dense = density(grid.image, glass)
    places = np.flatnonzero((brightest(dense) >= LEAST_DENSITY) & (grid.image[..., 1] > 0))
    values = np.maximum(dense.reshape(-1, 3)[places], FLOOR)
    x, y = np.log(values[:, 0] / values[:, 1]), np.log(values[:, 2] / values[:, 1])
    band = stain_band(values, x, y, grid.all_of(tissue & known).ravel()[places])
    found = np.zeros(dense.shape[:2], bool)
    for plain, faint, wide in _inks(values, x, y, band):
        start, follow = np.zeros_like(found), np.zeros_like(found)
        start.ravel()[places[plain]] = True
        follow.ravel()[places[plain | faint]] = True
        if wide:
            start = opened(start, steps(WIDE_UM / 2, grid.pixel_um))
        found |= touching(start, follow)
    found = large_parts(closed(found, steps(CLOSED_UM / 2, grid.pixel_um)), LEAST_MM2 * 1e6, grid.pixel_um)
    return shown(grid.enlarged(grown(found, steps(MARGIN_UM, grid.pixel_um)), tissue.shape), image, known)


def stain_band(
    values: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], of_tissue: NDArray[np.bool_]
) -> Band:
    """The slide's band from densities (N, 3) and ratios (N,) of its pixels, of which those `of_tissue` (N,) count."""
    places = np.flatnonzero(of_tissue)
    if len(places) < FEW_PIXELS:
        return USUAL
    places = places[:: max(1, len(places) // ENOUGH_PIXELS)]
    x, y, green, least = x[places], y[places], values[places, 1], values[places].min(axis=1)
    brown = (x > BROWN[0]) & (x < BROWN[1]) & (y > BROWN[2]) & (y < BROWN[3])
    pale = green <= np.median(green)
    x_middle, y_middle = float(np.median(x[pale])), float(np.median(y[pale]))
    y_deviation = float(np.clip(1.4826 * np.median(np.abs(y[pale] - y_middle)), LEAST_DEVIATION, MOST_DEVIATION))
    within = np.abs(y - y_middle) <= 2 * y_deviation
    return Band(
        x_middle,
        float(np.clip(np.percentile(x[within], 95) + BEYOND_STAINS, *COLD_EDGE)) if within.any() else COLD_EDGE[0],
        y_middle,
        y_deviation,
        float(np.median(values[places, 0])),
        float(np.median(green)),
        float(np.median(least)),
        bool(brown.mean() > BROWN_SHARE),
    )


Ink = tuple[NDArray[np.bool_], NDArray[np.bool_], bool]
"""Pixels (N,) that are plainly ink, those that may be, and whether the plain ones count in wide areas only."""


def _inks(
    values: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], band: Band
) -> tuple[Ink, Ink, Ink]:
    """Blue or green, red, and black ink among pixels of densities (N, 3) and ratios (N,)."""
    aside = np.abs(y - band.y)
    over_tissue = (x > band.cold_edge - 0.2) & (aside > max(0.12, 2 * band.y_deviation))
    over_tissue &= values[:, 0] > 2.2 * band.red
    cold = (
        (x > band.cold_edge) & (values[:, 0] > 0.35) | over_tissue,
        (x > band.cold_edge - 0.3) & (aside > max(0.1, 1.5 * band.y_deviation)),
        False,
    )
    plain_edge, faint_edge = (
        BLACK_ON_BROWN[1] if band.brown else band.y + max(least, deviations * band.y_deviation)
        for least, deviations in ((0.22, 3.5), (0.08, 1.5))
    )
    red = (
        (x < RED_EDGE[0]) & (y > plain_edge) & (values[:, 2] > 0.5),
        (x < RED_EDGE[1]) & (y > faint_edge) & (values[:, 1] > band.green),
        False,
    )
    neutral = (x > (BLACK_ON_BROWN[0] if band.brown else BLACK_EDGES[0])) & (x < BLACK_EDGES[1]) & (y < BLACK_EDGES[2])
    above = y > (BLACK_ON_BROWN[1] if band.brown else band.y + max(0.1, 2 * band.y_deviation))
    least = values.min(axis=1)
    dark = max(0.6, 2.2 * band.least)
    black = (
        neutral & above & (least > dark) | (least > BLACK_AT_ANY_RATE),
        neutral & (y > band.y + band.y_deviation) & (least > 0.6 * dark),
        True,
    )
    return cold, red, black
