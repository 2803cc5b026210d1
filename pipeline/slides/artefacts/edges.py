"""Find edges of air bubbles and of the coverslip, hairs and threads: long dark lines without colour. Pure.

Such an edge scatters light of every colour alike, so it adds the same density to all channels, over tissue too. Black
ink does as well, but is wide. Where an edge closes a ring, what is within is found with it: the mounting medium is
missing there, and the tissue out of focus. Left out: edges that are hardly darker than the tissue; and what is within a
bubble of which the ring has wide gaps.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides.artefacts.density import closed, grown, shown, steps, touching
from pipeline.slides.artefacts.stains import Band, look_at_stains
from pipeline.slides.glass import Colour

LONG_UM = 800.0
"""Least length of an edge. Our choice: pigment, crowded nuclei and small vessels are shorter."""
MOST_FILLED = 0.35
"""Largest share of its bounding square that an edge fills. Our choice: a line of 150 um fills 0.19 of 800 um."""
GAP_UM = 64.0
"""Gaps in an edge that are closed. Our choice."""
MARGIN_AROUND_UM = 8.0
"""What is dropped on each side of an edge. Our choice: its flanks, which are fainter; twice as much loses more than 1 %
of a small section."""
MOST_RING_MM2 = 12.0
"""Largest area of a bubble. Our choice: 4 mm across. A coverslip's four edges enclose the whole section."""
LEAST_ROUND = 0.55
"""Least share of its bounding box that a bubble fills. Our choice: an ellipse fills 0.79, less where it lies askew."""


def find_edges(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], known: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Find edges of bubbles and of the coverslip in a thumbnail (H, W, 3) of `pixel_um`: bool (H, W), with a margin.

    Args:
        tissue: bool (H, W), from which the colours of the slide's stains are taken.
        known: bool (H, W), readable and not black; nothing else is found.
        glass: of `find_glass`.
    """
    seen = look_at_stains(image, pixel_um, tissue & known, glass)
    grid, least, grey = seen.grid, seen.values.min(axis=1), _is_grey(seen.x, seen.y, seen.band)
    plain = seen.mask_of(grey & (least > max(0.5, 1.8 * seen.band.least)))
    faint = seen.mask_of(grey & (least > max(0.3, 1.2 * seen.band.least)))
    lines = touching(plain, closed(faint, steps(GAP_UM / 2, grid.pixel_um)))
    found = _long_ones(lines, grid.pixel_um)
    return shown(grown(grid.enlarged(found, tissue.shape), steps(MARGIN_AROUND_UM, pixel_um)), image, known)


def _is_grey(x: NDArray[np.float32], y: NDArray[np.float32], band: Band) -> NDArray[np.bool_]:
    """Pixels with ratios (N,) that have more red and blue to green than the slide's stains, as grey over them has."""
    if band.brown:
        return np.asarray((x > -0.25) & (x < 0.3) & (y > -0.25) & (y < 0.25))
    above = y > band.y + max(0.12, 2.5 * band.y_deviation)
    return np.asarray(above & (x > band.x + 0.1) & (x > -0.7) & (x < 0.3) & (y < 0.25))


def _long_ones(lines: NDArray[np.bool_], pixel_um: float) -> NDArray[np.bool_]:
    """The parts of `lines` (h, w) that are long and narrow, and what those that are rings enclose."""
    found = np.zeros_like(lines)
    if not lines.any():
        return found
    labels, _ = ndimage.label(lines, np.ones((3, 3)))
    for label, place in enumerate(ndimage.find_objects(labels), start=1):
        tall, wide = (side.stop - side.start for side in place)
        if np.hypot(tall, wide) * pixel_um < LONG_UM:
            continue
        part = labels[place] == label
        if part.sum() > MOST_FILLED * max(tall, wide) ** 2:
            continue
        filled = np.asarray(ndimage.binary_fill_holes(part))
        is_ring = filled.mean() >= LEAST_ROUND and filled.sum() * pixel_um**2 <= MOST_RING_MM2 * 1e6
        found[place] |= filled if is_ring else part
    return found
