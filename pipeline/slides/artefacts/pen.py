"""Find pen: black, blue, green and red ink on the glass or over the tissue. Pure.

Haematoxylin, eosin and DAB all absorb green; the logarithms of the ratios of a pixel's densities, red to green and blue
to green, lie for all mixtures of them in a narrow band that each slide has of its own. Blue and green ink absorb more
red than any stain does, red ink as much blue as green but no red, black ink everything alike. Each ink is found where
it is plain, and followed to where it is fainter. Colours of stains: Ruifrok and Johnston 2001. Left out: brown and
yellow ink, which look like DAB; slides of which trichrome, Alcian blue or the like colour a part: their blue is that of
a pen, so switch the rule off.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.artefacts.density import closed, grown, large_parts, opened, shown, steps, touching
from pipeline.slides.artefacts.stains import Band, look_at_stains
from pipeline.slides.glass import Colour

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
BLUE_HAEMATOXYLIN = (0.2, -0.8, -0.4)
"""Below the first logarithm, of red to green, and between the others, of blue to green, a pixel is no ink but stain.
Our choice: crowded nuclei of a blue scan have up to 0.15 and -0.5 to -0.75, whatever the eosin, and may be rarer than
what the band is taken from; blue ink over eosin has with as much red less than -0.83.
"""
LEAST_MM2 = 0.03
"""Smaller marks are left. Our choice: some two patches of 112 um; pigment and dust are smaller."""
MARGIN_UM = 8.0
"""What is dropped around ink, beside what a square of the coarser grid has of it. Our choice: ink runs out within some
20 um, and twice this margin loses more than 1 % of a small section."""
CLOSED_UM = 48.0
"""Gaps in a stroke that are closed. Our choice: some cells."""


def find_pen(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], known: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Find pen in a thumbnail (H, W, 3) of `pixel_um`: bool (H, W), with a margin.

    Args:
        tissue: bool (H, W), from which the colours of the slide's stains are taken.
        known: bool (H, W), readable and not black; nothing else is found.
        glass: of `find_glass`.
    """
    seen = look_at_stains(image, pixel_um, tissue & known, glass)
    found = seen.mask_of(np.zeros(len(seen.places), bool))
    for plain, faint, wide in _inks(seen.values, seen.x, seen.y, seen.band):
        start, follow = seen.mask_of(plain), seen.mask_of(plain | faint)
        if wide:
            start = opened(start, steps(WIDE_UM / 2, seen.grid.pixel_um))
        found |= touching(start, follow)
    found = large_parts(closed(found, steps(CLOSED_UM / 2, seen.grid.pixel_um)), LEAST_MM2 * 1e6, seen.grid.pixel_um)
    return shown(grown(seen.grid.enlarged(found, tissue.shape), steps(MARGIN_UM, pixel_um)), image, known)


Ink = tuple[NDArray[np.bool_], NDArray[np.bool_], bool]
"""Pixels (N,) that are plainly ink, those that may be, and whether the plain ones count in wide areas only."""


def _inks(
    values: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], band: Band
) -> tuple[Ink, Ink, Ink]:
    """Blue or green, red, and black ink among pixels of densities (N, 3) and ratios (N,)."""
    aside = np.abs(y - band.y)
    over_tissue = (x > band.cold_edge - 0.2) & (aside > max(0.12, 2 * band.y_deviation))
    over_tissue &= values[:, 0] > 2.2 * band.red
    stained = (x < BLUE_HAEMATOXYLIN[0]) & (y > BLUE_HAEMATOXYLIN[1]) & (y < BLUE_HAEMATOXYLIN[2])
    cold = (
        ((x > band.cold_edge) & (values[:, 0] > 0.35) | over_tissue) & ~stained,
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
