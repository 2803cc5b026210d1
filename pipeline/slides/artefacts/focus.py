"""Find what is out of focus at the thumbnail's resolution, relative to the slide's own sharpness. Pure.

Two pixels of a sharp slide differ at a distance of one pixel nearly as much as at two, however strong the stain is;
where it is out of focus, half as much. The mean difference at one pixel over that at two is therefore sharpness without
contrast: it is 1 for noise, 0.75 to 0.9 for sharp tissue at 8 um/px, and 0.5 for what is smooth.

Left out: blur that the thumbnail cannot show. At 8 um/px a Gaussian of 8 um is found, one of 6 um in part, one of 4 um
nowhere; checks of patches do that. On a slide that is out of focus nearly everywhere nothing is found. Tissue
that is smooth by nature over 200 um, as colloid, is found as well if it has any relief at all.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides.artefacts.density import grown, large_parts
from pipeline.slides.glass import Colour

CELL_PX = 6
"""Side of the squares over which differences are averaged. Our choice: 48 um at 8 um/px, 60 pairs of pixels at one and
48 at two; 8 finds less along the rim of what is blurred, and 5 varies too much.
"""
WINDOW_CELLS = 3
"""Side of the square of cells that is judged as one. Our choice: one cell alone varies too much, and five across miss
small areas.
"""
MARGIN_PX = 1
"""What is dropped around blurred cells, as a cell that is half sharp is sharp. Our choice."""
LEAST_CELLS = 6
"""Fewer blurred cells that touch are left. Our choice: smooth places of sharp tissue are as large."""
SMOOTH = 0.5
"""Sharpness of what is smooth: its differences grow with the distance."""
OWN_PERCENTILE = 75
"""Percentile of the tissue's cells that is the slide's own sharpness. Our choice: more than half of it may be out of
focus.
"""
LEAST_SHARP = 0.35
"""Share of the way from `SMOOTH` to the slide's own sharpness below which tissue is out of focus. Our choice: of five
slides of four scanners no more than 0.2 % of the tissue lies below it, and under a Gaussian of one pixel 99 %.
"""
LEAST_DIFFERENCE = 0.25
"""Least mean difference at two pixels, grey levels: what differs less is of one colour. Our choice."""
MOST_SHARP = 0.6
"""Tissue of this sharpness is in focus on any slide; a slide of less is no measure for itself. Our choice: under a
Gaussian of one pixel 98 % of the tissue has less."""
FEW_CELLS = 30
"""With fewer cells of tissue nothing is found: there is no sharpness of the slide's own. Our choice."""


def find_blur(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], known: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Find what is out of focus in the tissue of a thumbnail (H, W, 3): bool (H, W), in squares of `CELL_PX`.

    Args:
        pixel_um: not used: the measure is in pixels, and what a pixel cannot show is not found.
        tissue: bool (H, W), from which the slide's own sharpness is taken.
        known: bool (H, W), readable and not black.
        glass: not used.
    """
    found = np.zeros(tissue.shape, bool)
    height, width = (side // CELL_PX for side in tissue.shape)
    covered = slice(0, height * CELL_PX), slice(0, width * CELL_PX)
    inside = tissue[covered] & known[covered]
    whole = np.asarray(inside.reshape(height, CELL_PX, width, CELL_PX).all(axis=(1, 3)))
    near, far = _differences(image[..., 1], whole)
    judged = whole & (far >= LEAST_DIFFERENCE)
    if judged.sum() < FEW_CELLS:
        return found
    total = _summed(np.where(judged, near / np.maximum(far, LEAST_DIFFERENCE), 0))
    sharpness = (total / np.maximum(_summed(judged.astype(np.float32)), 1e-6))[judged]
    own = float(np.percentile(sharpness, OWN_PERCENTILE))
    if own <= MOST_SHARP:
        return found
    least = min(SMOOTH + LEAST_SHARP * (own - SMOOTH), MOST_SHARP)
    blurred = np.zeros_like(judged)
    blurred[judged] = sharpness < least
    blurred = large_parts(blurred, LEAST_CELLS, 1.0)
    blurred = grown(blurred, WINDOW_CELLS // 2)  # a window that holds sharp tissue too is sharp
    found[covered] = blurred.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)
    if not found.any():
        return found
    return grown(found, MARGIN_PX) & tissue


def _differences(
    channel: NDArray[np.uint8], whole: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean differences of a channel (H, W) at one and at two pixels, along rows and columns, in each cell: float32 (h,
    w). The pairs lie within a cell. Rows of cells of which none is `whole` (h, w) stay 0.
    """
    height, width = whole.shape
    means = np.zeros((2, height, width), np.float32)
    for row in np.flatnonzero(whole.any(axis=1)):
        values = channel[row * CELL_PX : (row + 1) * CELL_PX, : width * CELL_PX].astype(np.float32)
        for distance in (1, 2):
            pairs = (np.arange(CELL_PX) < CELL_PX - distance).astype(np.float32)
            across = np.zeros(values.shape[1], np.float32)
            across[:-distance] = np.abs(values[:, distance:] - values[:, :-distance]).sum(axis=0)
            along = np.abs(values[distance:] - values[:-distance]).sum(axis=0)
            total = across.reshape(width, CELL_PX) @ pairs + along.reshape(width, CELL_PX).sum(axis=1)
            means[distance - 1, row] = total / (2 * CELL_PX * (CELL_PX - distance))
    return means[0], means[1]


def _summed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means (h, w) over the window around each cell; 0 beyond the edges."""
    return np.asarray(ndimage.uniform_filter(values, WINDOW_CELLS, mode="constant"), np.float32)
