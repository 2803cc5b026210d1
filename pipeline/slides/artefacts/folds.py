"""Find folds: narrow strips in which the section lies on itself, so that it absorbs twice. Pure.

Densities of two layers add, and keep their colour: a fold is about twice as dense as tissue of its own colour is
elsewhere on the slide. A strand of cells is as dense, but has the colour of haematoxylin, with which the slide's dense
tissue goes. So density is measured against the median of the slide's tissue of the same ratio of red to green, and
its mean along short lines in eight directions decides, as in line detectors for vessels. What is found must end with a
step as high as a layer, where a dense rim fades, and be narrow.

Left out: folds narrower than some 50 um, which the thumbnail does not resolve; those wider than `MOST_WIDTH_UM`. Strips
of muscle, septa and vessels full of blood on slides that are pale otherwise may be found.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides.artefacts.density import closed, coarse, density, grown, large_parts, steps, touching
from pipeline.slides.glass import Colour

AROUND = 3
"""Pixels along a side of the square whose mean colour a pixel is taken to have. Our choice."""
COLOUR_GROUPS = 10
"""Groups of equally many pixels, by colour, that have a median density each. Our choice."""
FEW_PIXELS = 200
"""With fewer pixels of tissue nothing is found: there is no density of the slide's own. Our choice."""
DIRECTIONS = 8
"""Directions of lines. Our choice: 22.5 degrees apart; a line of 360 um strays 36 um from a fold in between."""
LINE_UM = 360.0
"""Length of the lines. Our choice: longer than glands are wide; shorter than folds, also curved ones."""
INSIDE = 0.6
"""Least share of a line that is tissue. Our choice: folds reach the edge of the tissue."""
PLAIN, FAINT = (4.0, 0.5), (2.0, 0.35)
"""Of lines that are folds, and of those on which a fold goes on: deviations of the slide's own lines above their
median, and the least logarithm of the density. Two layers have 0.69. Our choice: even tissue varies by 0.07, tissue
with many septa by 0.16."""
LEAST_ITSELF = 0.2
"""The same of a pixel of a fold itself. Our choice: tissue is grainy."""
LEAST_STEP = 0.5
"""Least difference of the same between a fold and the tissue beside it. Our choice: planted folds of two layers have
0.53 and more, dense rims of sections that we inspected 0.25 to 0.47."""
MOST_COLOUR = 0.3
"""Largest difference of the logarithm of red to green between them. Our choice: that between haematoxylin and eosin is
2.5; folds of tissue of several colours have up to 0.25, a strand of cells in stroma 0.5."""
MARGIN_UM = 8.0
"""What is dropped around a fold. Our choice: half a pixel of the coarser grid, which is half a fold at its rim."""
BESIDE_UM = 48.0
"""How far from a fold the tissue is beside it. Our choice: three pixels, of which the first is left out."""
MOST_WIDTH_UM = 400.0
"""Largest width of a fold. Our choice: wider areas are another tissue, or a piece that lies on the section."""
LEAST_FOLD_UM2 = 40_000.0
"""Least area of a fold. Our choice: 100 um by 400 um."""


def find_folds(
    image: NDArray[np.uint8], pixel_um: float, tissue: NDArray[np.bool_], known: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Find folds in the tissue of a thumbnail (H, W, 3) of `pixel_um`: bool (H, W).

    Args:
        tissue: bool (H, W); nothing else is found.
        known: bool (H, W), readable and not black.
        glass: of `find_glass`.
    """
    found = np.zeros(tissue.shape, bool)
    rows, columns = np.flatnonzero(tissue.any(axis=1)), np.flatnonzero(tissue.any(axis=0))
    if len(rows) == 0:
        return found
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    grid = coarse(image[box], pixel_um)
    inside = grid.all_of(tissue[box] & known[box])
    if inside.sum() < FEW_PIXELS:
        return found
    excess, colour = _density_for_its_colour(density(grid.image, glass), inside)
    lines = _along_lines(excess, inside, steps(LINE_UM / 2, grid.pixel_um))
    middle, upper = np.percentile(lines[inside], [50, 84])
    plain, faint = (max(middle + number * (upper - middle), least) for number, least in (PLAIN, FAINT))
    dense = inside & (excess >= LEAST_ITSELF)
    folds = touching(inside & (lines >= plain), dense & (lines >= faint))
    folds |= grown(folds, 1) & dense  # the ends, of which the line is half outside
    folds = large_parts(closed(folds, 1) & inside, LEAST_FOLD_UM2, grid.pixel_um)
    folds = _with_a_step(folds, excess, colour, inside, grid.pixel_um)
    found[box] = grown(grid.enlarged(folds, tissue[box].shape), steps(MARGIN_UM, pixel_um))
    return found & tissue & known


def _density_for_its_colour(
    dense: NDArray[np.float32], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logarithm of the density of each pixel, (h, w, 3), over the median of those `inside` (h, w) of its colour: (h,
    w); and its colour, the logarithm of red to green around it: (h, w). Both are 0 outside.
    """
    weight = _means_around(inside.astype(np.float32))
    means = np.maximum(np.stack([_means_around(np.where(inside, dense[..., c], 0)) for c in range(3)], axis=-1), 0.02)
    colours = np.where(inside, np.log(means[..., 0] / means[..., 1]), 0).astype(np.float32)
    colour = colours[inside]
    around = np.log((means.sum(axis=-1) / np.maximum(weight, 1e-3))[inside])
    order = np.argsort(colour, kind="stable")
    groups = np.array_split(order, COLOUR_GROUPS)
    middles, densities = ([float(np.median(values[group])) for group in groups] for values in (colour, around))
    usual = np.interp(colour, middles, densities)
    excess = np.zeros(inside.shape, np.float32)
    excess[inside] = np.log(np.maximum(dense.sum(axis=-1)[inside], 0.05)) - usual
    return excess, colours


def _along_lines(excess: NDArray[np.float32], inside: NDArray[np.bool_], half: int) -> NDArray[np.float32]:
    """The largest mean over all directions of what lies along a line through each pixel: (h, w). Of the pixels
    `inside` (h, w), which have to be most of it; others have the least float.
    """
    best = np.full(excess.shape, np.finfo(np.float32).min, np.float32)
    places = np.nonzero(inside)
    padded, weights = (np.pad(each, half) for each in (excess, inside.astype(np.float32)))
    width = padded.shape[1]
    start = (places[0] + half) * width + places[1] + half
    least = INSIDE * (2 * half + 1)
    largest = best[places]
    for angle in np.pi / DIRECTIONS * np.arange(DIRECTIONS):
        total, number = np.zeros(len(start), np.float32), np.zeros(len(start), np.float32)
        for step in range(-half, half + 1):
            place = start + round(step * np.sin(angle)) * width + round(step * np.cos(angle))
            total += padded.ravel()[place]
            number += weights.ravel()[place]
        np.maximum(largest, np.where(number >= least, total / np.maximum(number, 1), best[0, 0]), out=largest)
    best[places] = largest
    return best


def _with_a_step(
    folds: NDArray[np.bool_],
    excess: NDArray[np.float32],
    colour: NDArray[np.float32],
    inside: NDArray[np.bool_],
    pixel_um: float,
) -> NDArray[np.bool_]:
    """The connected parts of `folds` (h, w) that are narrow, denser by a layer than what lies beside them, and of its
    colour.
    """
    kept = np.zeros_like(folds)
    labels, _ = ndimage.label(folds, np.ones((3, 3)))
    reach = steps(BESIDE_UM, pixel_um)
    for label, (down, right) in enumerate(ndimage.find_objects(labels), start=1):
        place = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in (down, right))
        part = labels[place] == label
        if not grown(~np.pad(part, 1), steps(MOST_WIDTH_UM / 2, pixel_um)).all():
            continue
        beside = grown(part, reach) & ~grown(part, 1) & inside[place] & ~folds[place]
        core = part & ~grown(~part, 1)
        core = core if core.any() else part
        if beside.any():
            step, change = (v[place][core].mean() - v[place][beside].mean() for v in (excess, colour))
            kept[place] |= part & bool(step >= LEAST_STEP and abs(change) <= MOST_COLOUR)
    return kept


def _means_around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means (h, w) over the square around each pixel; 0 beyond the edges."""
    return np.asarray(ndimage.uniform_filter(values, AROUND, mode="constant"), np.float32)
