"""Find folds: narrow strips in which the section lies on itself, so that it absorbs twice. Pure.

Densities of two layers add, so a fold is about twice as dense as the tissue on both of its sides, and of the same
colour: a strand of cells, the nearest thing to it, is denser because it has more haematoxylin. Means along short lines
in eight directions are compared with those along parallel lines at each side, as in line detectors for vessels.

Left out: folds narrower than some 50 um, which the thumbnail does not resolve; those wider than `SIDE_UM`; folds along
the edge of the tissue, which have tissue on one side only. Where tissue itself is dense in strips without a change of
colour, as at muscle, keratin and vessels full of blood, such strips may be found. Checks of patches look closer.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides.artefacts.density import Coarse, closed, coarse, density, grown, large_parts, steps, touching
from pipeline.slides.glass import Colour

GRID_UM = 24.0
"""um per pixel at which lines are looked for. Our choice: a fold of 50 um is two pixels wide."""
DIRECTIONS = 8
"""Directions of lines. Our choice: 22.5 degrees apart; a line of 360 um strays 36 um from a fold in between."""
LINE_UM = 360.0
"""Length of the lines. Our choice: longer than glands are wide; shorter than folds, also curved ones."""
SIDE_UM = 300.0
"""How far the parallel lines are at each side. Our choice: just beyond the widest folds that are usual."""
PLAIN, FAINT = (4.5, 1.35), (2.5, 1.2)
"""Of lines that are folds, and of those on which a fold goes on: deviations of the slide's own ratios, in logarithms,
above their median, and the least ratio. A fold that is wider than a pixel has 2. Our choice: tissue alike everywhere
varies by 6 %, so that 1.35 decides; glands of 200 um in pale stroma by 15 %, and hardly any fold is sure there.
"""
MOST_COLOUR = 0.18
"""Largest difference of the line from its sides in the logarithms of red to green and blue to green. Our choice: that
between haematoxylin and eosin is 2.5.
"""
LEAST_OWN = 1.2
"""Times the denser side's density that a pixel of a fold has itself. Our choice: two layers have 2 in the mean."""
LEAST_SIDE = 0.3
"""Least density of the sides, sum of the channels. Our choice: fainter is glass or fat."""
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
    grid = coarse(image, pixel_um, GRID_UM)
    inside = grid.all_of(tissue & known).astype(np.float32)
    dense = density(grid.image, glass)
    total = _filled(dense.sum(axis=2), inside, grid.pixel_um)
    ratio, direction, denser = _contrast(total, inside, grid.pixel_um)
    own = np.log(np.maximum(ratio[inside > 0], 0.1))
    if len(own) == 0:
        return np.zeros(tissue.shape, bool)
    middle, upper = np.percentile(own, [50, 84])
    plain, faint = (max(np.exp(middle + number * (upper - middle)), least) for number, least in (PLAIN, FAINT))
    places = np.flatnonzero((ratio >= faint) & (total >= LEAST_OWN * denser))
    alike = np.zeros(ratio.shape, bool)
    alike.ravel()[places] = _is_alike(dense, places, direction.ravel()[places], grid)
    found = touching(alike & (ratio >= plain), alike)
    found |= (
        grown(found, 1) & (total >= LEAST_OWN * denser) & (inside > 0)
    )  # the ends, of which the line is half outside
    found = large_parts(closed(found, 1), LEAST_FOLD_UM2, grid.pixel_um)
    return grid.enlarged(found, tissue.shape) & tissue & known


def _contrast(
    total: NDArray[np.float32], inside: NDArray[np.float32], pixel_um: float
) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.float32]]:
    """Of each pixel of densities (h, w) the largest ratio over all directions of the mean along the line to that of the
    denser side, the number of that direction, and that side's mean. The ratio is 0 where `inside` (h, w) is.
    """
    best, direction, beside = np.zeros_like(total), np.zeros(total.shape, np.int8), np.zeros_like(total)
    side, half = _lengths(pixel_um)
    for number, (down, right) in enumerate(_directions()):
        mean = np.zeros_like(total)
        for step in range(-half, half + 1):
            _add_moved(mean, total, step * down, step * right)
        mean /= 2 * half + 1
        denser = np.maximum(LEAST_SIDE, _moved(mean, side * right, -side * down))
        np.maximum(denser, _moved(mean, -side * right, side * down), out=denser)
        ratio = mean / denser
        better = ratio > best
        np.copyto(best, ratio, where=better)
        np.copyto(direction, np.int8(number), where=better)
        np.copyto(beside, denser, where=better)
    return best * inside, direction, beside


def _is_alike(
    dense: NDArray[np.float32], places: NDArray[np.int64], direction: NDArray[np.int8], grid: Coarse
) -> NDArray[np.bool_]:
    """Which of the `places` (N,) in densities (h, w, 3) have lines, in their `direction` (N,), of the sides' colour."""
    height, width = dense.shape[:2]
    rows, columns = places // width, places % width
    side, half = _lengths(grid.pixel_um)
    alike = np.zeros(len(places), bool)
    for number, (down, right) in enumerate(_directions()):
        chosen = direction == number
        line, sides = (np.zeros((int(chosen.sum()), 3), np.float32) for _ in range(2))
        for step in range(-half, half + 1, 2):
            for across, sums in ((0, line), (side, sides), (-side, sides)):
                y = rows[chosen] + round(step * down) + round(across * right)
                x = columns[chosen] + round(step * right) - round(across * down)
                sums += dense[y.clip(0, height - 1), x.clip(0, width - 1)]
        change = np.log(np.maximum(line, 1e-3)) - np.log(np.maximum(sides, 1e-3))
        alike[chosen] = np.abs(change[:, [0, 2]] - change[:, [1]]).max(axis=1, initial=0) <= MOST_COLOUR
    return alike


def _lengths(pixel_um: float) -> tuple[int, int]:
    """Pixels to a side, and from the middle of a line to its end."""
    return steps(SIDE_UM, pixel_um), steps(LINE_UM / 2, pixel_um)


def _directions() -> Iterator[tuple[float, float]]:
    """Rows down and columns right of a step along each direction."""
    return ((np.sin(angle), np.cos(angle)) for angle in np.pi / DIRECTIONS * np.arange(DIRECTIONS))


def _filled(total: NDArray[np.float32], inside: NDArray[np.float32], pixel_um: float) -> NDArray[np.float32]:
    """Densities (h, w) with the mean of the tissue around in place of what is not `inside` (h, w)."""
    size = 2 * steps(SIDE_UM, pixel_um) + 1
    around = ndimage.uniform_filter(total * inside, size, mode="constant")
    share = ndimage.uniform_filter(inside, size, mode="constant")
    return np.where(inside > 0, total, around / np.maximum(share, 1e-3)).astype(np.float32)


def _slices(shape: tuple[int, ...], down: float, right: float) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where values of this shape go, and where they come from, when they are taken from further down and right."""
    height, width = shape
    dy = min(max(round(down), -height), height)  # from beyond the edges comes nothing
    dx = min(max(round(right), -width), width)
    return (
        (slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0))),
        (slice(max(dy, 0), height - max(-dy, 0)), slice(max(dx, 0), width - max(-dx, 0))),
    )


def _add_moved(target: NDArray[np.float32], values: NDArray[np.float32], down: float, right: float) -> None:
    """Add values (h, w) from so many pixels further down and right, in whole pixels; nothing from beyond the edges."""
    to, source = _slices(values.shape, down, right)
    target[to] += values[source]


def _moved(values: NDArray[np.float32], down: float, right: float) -> NDArray[np.float32]:
    """The same by itself."""
    result = np.zeros_like(values)
    _add_moved(result, values, down, right)
    return result
