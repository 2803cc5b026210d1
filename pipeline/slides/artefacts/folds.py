"""Find folds: narrow strips in which the section lies on itself, so that it absorbs twice. Pure.

Densities of two layers add, and keep their colour: a fold is about twice as dense as tissue of its own colour is
elsewhere on the slide. A strand of cells is as dense, but has the colour of haematoxylin, with which the slide's dense
tissue goes. So density is measured against the slide's tissue of the same ratio of red to green, in two ways:

- at 16 um, against the median of that colour. Means along short lines in eight directions decide, as in line detectors
  for vessels. What is found must end with a step as high as a layer, where a dense rim fades.
- at 8 um, in squares of 24 um, against what nine in ten squares of that colour do not pass. What is denser still by
  twice the scatter of the colour is a fold, also where it is 30 um narrow or runs along dark strands, if it is long,
  ends with a step, and has its surroundings' colour.

Both must be narrow. Left out: folds wider than `MOST_WIDTH_UM`, and those on slides whose tissue of one colour has many
densities, such as frozen sections. Strips of muscle, septa and vessels full of blood on slides that are pale otherwise
may be found.
"""

from dataclasses import dataclass

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
ALONG_UM, LEAST_FADING_UM2 = 200.0, 20_000.0
"""Distance within which that step is measured again at each place of a fold, and the least area of what has a lower one
and is taken out. Our choice: a dense rim that a fold runs into is one part with it; of planted folds nothing is lost
(decision 0107)."""
MARGIN_UM = 8.0
"""What is dropped around a fold. Our choice: half a pixel of the coarser grid, which is half a fold at its rim."""
BESIDE_UM = 48.0
"""How far from a fold the tissue is beside it. Our choice: three pixels, of which the first is left out."""
MOST_WIDTH_UM = 400.0
"""Largest width of a fold. Our choice: wider areas are another tissue, or a piece that lies on the section."""
LEAST_FOLD_UM2 = 40_000.0
"""Least area of a fold along lines. Our choice: 100 um by 400 um."""
FINE_UM = 8.0
"""um per pixel of the grid on which squares of `AROUND` pixels are compared."""
UPPER = 90
"""Percentile of the density of a colour that squares of a fold pass. Our choice: below it tissue of one colour is of
all densities, and folds are a tenth of a slide at most."""
SCATTERS, BEYOND = 2.2, (0.25, 0.5)
"""How far squares of a fold pass it: this many times the logarithm between the median and the upper quartile of a
colour, within these bounds. Our choice: with twice as much 6 % of the demo's skin is lost, with 2.2 times nothing; two
layers at the median are 0.69 above it."""
FOLLOWED = 0.5
"""Share of that on which a fold goes on. Our choice: with 0.3 2 % of clean tissue more is lost."""
LEAST_STRIP_UM2, LEAST_STRIP_UM = 5_000.0, 150.0
"""Least area of a fold of squares, and diagonal of the rectangle around it. Our choice: 30 um by 160 um."""
LEAST_RISE, MOST_CHANGE = 0.4, 0.4
"""Least logarithm of its density over that of the tissue beside it, both near its edge and in the median along the
edge, and largest difference of colour. Our choice: of planted ones 99 % by area have a rise of more, and nine in ten a
change of less than 0.3 either way; a dense rim that fades rises by 0.2."""
BESIDE_UM2 = (16.0, 32.0)
"""From where to where the tissue is beside it, um. What lies nearer is mixed with the fold in a square."""
EDGE_SQUARE = 5
"""Pixels along a side of the square over which the density of a fold near its edge is taken. Our choice: 40 um."""
MOST_SQUARES = 20_000
"""Squares from which densities of colours are taken, evenly spaced in reading order. Our choice: 2,000 a colour."""


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
    judged = tissue[box] & known[box]
    found[box] = _by_lines(image[box], pixel_um, judged, glass) | _by_squares(image[box], pixel_um, judged, glass)
    return found & tissue & known


def _by_lines(
    image: NDArray[np.uint8], pixel_um: float, judged: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Folds by means along lines, in the pixels `judged` (H, W) of an image (H, W, 3): bool (H, W), with a margin."""
    grid = coarse(image, pixel_um)
    inside = grid.all_of(judged)
    if inside.sum() < FEW_PIXELS:
        return np.zeros_like(judged)
    excess, colour = _density_for_its_colour(density(grid.image, glass), inside)
    lines = _along_lines(excess, inside, steps(LINE_UM / 2, grid.pixel_um))
    middle, upper = np.percentile(lines[inside], [50, 84])
    plain, faint = (max(middle + number * (upper - middle), least) for number, least in (PLAIN, FAINT))
    dense = inside & (excess >= LEAST_ITSELF)
    folds = touching(inside & (lines >= plain), dense & (lines >= faint))
    folds |= grown(folds, 1) & dense  # the ends, of which the line is half outside
    folds = large_parts(closed(folds, 1) & inside, LEAST_FOLD_UM2, grid.pixel_um)
    folds = _with_a_step(folds, excess, colour, inside, grid.pixel_um)
    return grown(grid.enlarged(folds, judged.shape), steps(MARGIN_UM, pixel_um))


def _by_squares(
    image: NDArray[np.uint8], pixel_um: float, judged: NDArray[np.bool_], glass: list[Colour]
) -> NDArray[np.bool_]:
    """Folds by the density of squares for their colour; as `_by_lines`."""
    grid = coarse(image, pixel_um, FINE_UM)
    inside = grid.all_of(judged)
    if inside.sum() < FEW_PIXELS:
        return np.zeros_like(judged)
    squares = _squares(density(grid.image, glass), inside)
    least = float(np.clip(SCATTERS * squares.scatter, *BEYOND))
    parts = touching(squares.beyond > least, squares.beyond > FOLLOWED * least)
    parts = large_parts(closed(parts, 1) & inside, LEAST_STRIP_UM2, grid.pixel_um)
    folds = _long_and_of_one_colour(parts, squares, inside, grid.pixel_um)
    return grown(grid.enlarged(folds, judged.shape), steps(MARGIN_UM, pixel_um))


@dataclass(frozen=True, eq=False)
class _Squares:
    """What squares around pixels (h, w) have; 0 outside of the tissue.

    Attributes:
        amount: logarithm of their density.
        colour: logarithm of red to green.
        beyond: how far their density passes that of nine in ten of their colour, logarithm; the least float outside.
        scatter: from the median of a colour's density to its upper quartile, logarithm, in the mean over colours.
    """

    amount: NDArray[np.float32]
    colour: NDArray[np.float32]
    beyond: NDArray[np.float32]
    scatter: float


def _squares(dense: NDArray[np.float32], inside: NDArray[np.bool_]) -> _Squares:
    """The squares around each pixel, of densities (h, w, 3), of what is `inside` (h, w)."""
    weight = np.maximum(_means_around(inside.astype(np.float32))[inside], 0.1)
    means = [_means_around(np.where(inside, dense[..., channel], 0))[inside] / weight for channel in range(3)]
    red, green, blue = (np.maximum(each, 0.02) for each in means)
    colour, amount = np.log(red / green), np.log(red + green + blue)
    some = slice(None, None, -(-len(colour) // MOST_SQUARES))
    groups = np.array_split(np.argsort(colour[some], kind="stable"), COLOUR_GROUPS)
    middles = [float(np.median(colour[some][group])) for group in groups]
    usual = np.array([np.percentile(amount[some][group], (50, 75, UPPER)) for group in groups])
    maps = [np.zeros(inside.shape, np.float32), np.zeros(inside.shape, np.float32)]
    maps.append(np.full(inside.shape, np.finfo(np.float32).min, np.float32))
    for values, where in zip((amount, colour, amount - np.interp(colour, middles, usual[:, 2])), maps, strict=True):
        where[inside] = values
    return _Squares(maps[0], maps[1], maps[2], float((usual[:, 1] - usual[:, 0]).mean()))


def _long_and_of_one_colour(
    parts: NDArray[np.bool_], squares: _Squares, inside: NDArray[np.bool_], pixel_um: float
) -> NDArray[np.bool_]:
    """The connected ones of `parts` (h, w) that are long, narrow, denser than what lies beside them, and of its
    colour.
    """
    kept = np.zeros_like(parts)
    labels, _ = ndimage.label(parts, np.ones((3, 3)))
    near, far = (steps(each, pixel_um) for each in BESIDE_UM2)
    for label, sides in enumerate(ndimage.find_objects(labels), start=1):
        if np.hypot(*(side.stop - side.start for side in sides)) * pixel_um < LEAST_STRIP_UM:
            continue
        place = tuple(slice(max(side.start - far, 0), side.stop + far) for side in sides)
        part = labels[place] == label
        if not _is_wide(part, pixel_um):
            distance, nearest = ndimage.distance_transform_edt(~part, return_indices=True)
            beside = (distance > near) & (distance <= far) & inside[place] & ~parts[place]
            edge = nearest[0][beside], nearest[1][beside]
            kept[place] |= part & _rises(squares.amount[place], squares.colour[place], part, beside, edge)
    return kept


def _rises(
    amount: NDArray[np.float32],
    colour: NDArray[np.float32],
    part: NDArray[np.bool_],
    beside: NDArray[np.bool_],
    edge: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> bool:
    """Whether a part (h, w) is denser than what is `beside` it (h, w), of which the pixels of the part at `edge` are
    nearest, and of its colour.
    """
    if not beside.any():
        return False
    weight = np.maximum(ndimage.uniform_filter(part.astype(np.float32), EDGE_SQUARE), 1e-3)
    within = ndimage.uniform_filter(np.where(part, amount, 0), EDGE_SQUARE) / weight
    rise = np.median(within[edge] - amount[beside])
    return bool(rise >= LEAST_RISE and abs(colour[part].mean() - colour[beside].mean()) <= MOST_CHANGE)


def _is_wide(part: NDArray[np.bool_], pixel_um: float) -> bool:
    """Whether a part of (h, w) holds a square of `MOST_WIDTH_UM`."""
    return not grown(~np.pad(part, 1), steps(MOST_WIDTH_UM / 2, pixel_um)).all()


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
        if _is_wide(part, pixel_um):
            continue
        beside = grown(part, reach) & ~grown(part, 1) & inside[place] & ~folds[place]
        core = part & ~grown(~part, 1)
        core = core if core.any() else part
        if beside.any():
            step, change = (v[place][core].mean() - v[place][beside].mean() for v in (excess, colour))
            if step >= LEAST_STEP and abs(change) <= MOST_COLOUR:
                kept[place] |= part & ~_fading(part, core, beside, excess[place], pixel_um)
    return kept


def _fading(
    part: NDArray[np.bool_],
    core: NDArray[np.bool_],
    beside: NDArray[np.bool_],
    excess: NDArray[np.float32],
    pixel_um: float,
) -> NDArray[np.bool_]:
    """The stretches of a `part` (h, w) around which its `core` is not denser by a layer than what is `beside` it: bool
    (h, w). Where either is not near, nothing is known, and it stays.
    """
    size = 2 * steps(ALONG_UM, pixel_um) + 1
    shares, means = [], []
    for mask in (core, beside):
        share = ndimage.uniform_filter(mask.astype(np.float64), size, mode="constant")
        total = ndimage.uniform_filter(np.where(mask, excess, 0).astype(np.float64), size, mode="constant")
        shares.append(share > 0.5 / size**2)  # one pixel at least
        means.append(total / np.maximum(share, 0.5 / size**2))
    low = part & shares[0] & shares[1] & (means[0] - means[1] < LEAST_STEP)
    return large_parts(low, LEAST_FADING_UM2, pixel_um)


def _means_around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means (h, w) over the square around each pixel; 0 beyond the edges."""
    return np.asarray(ndimage.uniform_filter(values, AROUND, mode="constant"), np.float32)
