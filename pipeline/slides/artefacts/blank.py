"""Find rectangles of one colour within the tissue: tiles that a scanner or a converter left blank. Pure.

Tissue varies from pixel to pixel, also where it is out of focus. A blank tile has one colour and straight edges; a
lumen has the colour of the glass. Black ones are not known pixels, and not looked at here.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides.artefacts.density import grown
from pipeline.slides.glass import Colour

MOST_DIFFERENCE = 1
"""Largest difference between neighbours in a channel, grey levels. Our choice: rounding when a level is made."""
LEAST_SIDE_PX = 6
"""Smallest side of what is found. Our choice: a tile of 256 pixels at 0.25 um/px is 8 pixels of 8 um wide."""
LIKE_GLASS = 6
"""Largest difference of a channel from the glass, grey levels, of what counts as lumen. Our choice: a blank tile is
white, black or grey, and glass is hardly ever as white as 250.
"""
LEAST_FILLED = 0.9
"""Least share of its bounding box that a blank area fills. Our choice: a circle fills 0.79; corners may be cut by the
edge of the tissue."""


def find_blank(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], known: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Find blank rectangles in the tissue of a thumbnail (H, W, 3): bool (H, W).

    Args:
        pixel_um: not used: what a resampling leaves of a blank tile is told in pixels.
        tissue: bool (H, W); nothing else is found.
        known: bool (H, W), readable and not black.
        glass: of `find_glass`: lumina have its colour.
    """
    found = np.zeros(tissue.shape, bool)
    rows, columns = np.flatnonzero(tissue.any(axis=1)), np.flatnonzero(tissue.any(axis=0))
    if len(rows) == 0:
        return found
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    flat = _like_neighbours(image[box][..., 1]) & tissue[box] & known[box]
    core = ~grown(~flat, LEAST_SIDE_PX // 2 - 1)  # parts that touch by a pixel come apart
    if not core.any():
        return found
    labels, _ = ndimage.label(core)
    for label, place in enumerate(ndimage.find_objects(labels), start=1):
        area = labels[place] == label
        colours = image[box][place][area]
        if area.mean() < LEAST_FILLED or np.ptp(colours, axis=0).max() > 2 * MOST_DIFFERENCE:
            continue
        if not any(np.abs(colours[0] - np.array(kind)).max() <= LIKE_GLASS for kind in glass):
            found[box][place] |= area
    return grown(found, LEAST_SIDE_PX // 2) & tissue & known


def _like_neighbours(channel: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of a channel (h, w) that hardly differ from the four next to them: bool (h, w)."""
    flat = np.zeros(channel.shape, bool)
    flat[1:-1, 1:-1] = True
    for one, other, first, second in (
        (channel[1:], channel[:-1], flat[1:], flat[:-1]),
        (channel[:, 1:], channel[:, :-1], flat[:, 1:], flat[:, :-1]),
    ):
        alike = np.maximum(one, other) - np.minimum(one, other) <= MOST_DIFFERENCE
        first &= alike
        second &= alike
    return flat
