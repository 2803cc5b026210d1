"""Where the colours of a slide's stains lie, for the rules that look for other colours. Pure.

Haematoxylin, eosin and DAB all absorb green; the logarithms of the ratios of a pixel's densities, red to green and blue
to green, lie for all mixtures of them in a narrow band that each slide has of its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.artefacts.density import Coarse, coarse, density
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


@dataclass(frozen=True)
class StainedPixels:
    """The N pixels of the coarser grid that have a colour to speak of.

    Attributes:
        grid: the coarser grid, (h, w).
        places: their numbers in it, (N,).
        values: their densities, at least `FLOOR`, (N, 3).
        x, y: logarithms of the ratios red to green and blue to green, (N,).
        band: where the slide's stains lie.
    """

    grid: Coarse
    places: NDArray[np.int64]
    values: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    band: Band

    def mask_of(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of the pixels (N,) as a mask of the grid, (h, w)."""
        mask = np.zeros(self.grid.image.shape[:2], bool)
        mask.ravel()[self.places[chosen]] = True
        return mask


def look_at_stains(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], glass: list[Colour]
) -> StainedPixels:
    """The coloured pixels of a thumbnail (H, W, 3) of `pixel_um`, and the slide's stains, by its `tissue` (H, W)."""
    grid = coarse(image, pixel_um)
    dense = density(grid.image, glass)
    places = np.flatnonzero((brightest(dense) >= LEAST_DENSITY) & (grid.image[..., 1] > 0))
    values = np.maximum(dense.reshape(-1, 3)[places], FLOOR)
    x, y = np.log(values[:, 0] / values[:, 1]), np.log(values[:, 2] / values[:, 1])
    return StainedPixels(grid, places, values, x, y, stain_band(values, x, y, grid.all_of(tissue).ravel()[places]))


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
