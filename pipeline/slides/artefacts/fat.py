"""Find fat and empty lumen within the tissue: places that are mostly as clear as the glass. Pure.

Off by default: adipose tissue is tissue, and a teacher has something to say of it. Whoever wants patches full of cells
drops it. Fat cells are clear and 50 to 100 um wide with thin walls between them, so the share of clear pixels around a
place tells both fat and lumen; which of the two it is, is not told.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides.artefacts.density import coarse, density, steps
from pipeline.slides.glass import Colour, brightest

CLEAR = 0.15
"""Density below which a pixel is clear. Our choice: pale stroma has 0.2 or more, glass less than 0.05."""
AROUND_UM = 160.0
"""Side of the square around a place. Our choice: two fat cells."""
LEAST_SHARE = 0.6
"""Least share of clear pixels in the square. Our choice: walls of fat cells take a third at most."""


def find_fat(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], known: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Find fat and empty lumen in the tissue of a thumbnail (H, W, 3) of `pixel_um`: bool (H, W).

    Args:
        tissue: bool (H, W); nothing else is found. Large lumens are no tissue already.
        known: bool (H, W), readable and not black.
        glass: of `find_glass`.
    """
    grid = coarse(image, pixel_um)
    clear = (brightest(density(grid.image, glass)) < CLEAR).astype(np.float32)
    share = ndimage.uniform_filter(clear, 2 * steps(AROUND_UM / 2, grid.pixel_um) + 1, mode="nearest")
    return grid.enlarged(share >= LEAST_SHARE, tissue.shape) & tissue & known
