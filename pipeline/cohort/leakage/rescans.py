"""Find slides that may be one piece of glass scanned twice, or neighbouring sections of one block.

Scans of one slide differ in scanner, compression, brightness and resolution, and in how it lay: the files share no byte
and no pixel (`cohort.copies` finds those that do). What stays is where the tissue is darker than around. So each slide
gets a print: the tissue's darkness in a square about its centre of mass, whose side follows the tissue's extent, less
the mean of its surroundings. Many sections have a dark rim (cortex, capsule, epidermis), which would make them alike by
their outlines; so each cell counts by how it differs from the cells that are as far from the edge. Two prints are
compared by their correlation inside both tissues, in all eight turns and flips and small shifts. A tilt of two degrees
passes. Left out: other angles, scans of another part of the slide, and stains so different that other tissue is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.base.console import Progress

SIDE = 64
"""Cells along a print. Our choice: at 20 mm of tissue a cell is 0.3 mm, finer than glands and coarser than noise."""
SPAN = 4.0
"""Side of the square, in root mean square distances of the tissue from its centre. Our choice: all of a compact
section (a square has 2.4).
"""
AROUND = 4.0
"""Width (standard deviation) of the surroundings that are taken off, in cells. Our choice."""
LEAST_SPREAD = 1.0
"""Spread (standard deviation) from which a ring is divided by it, grey levels. Our choice: less is noise."""
MOST_REDUCED = 1024
"""Side that a thumbnail is reduced to before it is looked at, pixels. Our choice."""
LEAST_CELLS = 150
"""Cells of tissue that a print needs, and that two must share; less is too little to tell slides apart. Our choice."""
MOST_SHIFT = 3
"""Cells by which the centres of two scans may differ. Our choice: 5 % of the square."""
RADIUS_RATIO = 1.25
"""Ratio of the extents of two scans of a slide, at most. Our choice: the tissue's outline depends on the stain."""
FIRST_LOOK = 0.25
"""Correlation of two coarse prints, without shifts, from which a pair is compared in full. Our choice."""
ALIKE = 0.5
"""Correlation from which two slides are listed. Decision 0075 has what scans of one slide reach, and unrelated ones."""
ALIKE_SIGMAS = 6.0
"""How unlikely the correlation must be by chance, in standard deviations of Fisher's z. Our choice: some 5e7 places of
pairs are looked at in a cohort of a thousand slides.
"""
CELLS_TOGETHER = 6
"""Neighbouring cells that vary as one. Our choice, on the safe side: darkness is smooth."""
LEAST_SHARED = 0.5
"""Share of the larger tissue that two scans must have in common. Our choice."""
COARSE = SIDE // 2
MANY_PAIRS = 1000
"""Pairs to be compared in full from which there is a progress line. Our choice: some seconds."""
MOST_OTHERS = 3
"""Other slides that a warning names. Our choice."""
_Cell = TypeVar("_Cell", bound=np.generic)


@dataclass(frozen=True, eq=False)
class SlidePrint:
    """What a slide's tissue looks like from afar.

    Attributes:
        detail: float32 (SIDE, SIDE), darkness of the tissue less that of its surroundings, less the mean of its ring
            (cells as far from the edge), in standard deviations of the ring; 0 off tissue.
        inside: bool (SIDE, SIDE), cells that are tissue.
        radius_um: root mean square distance of the tissue from its centre, micrometres.
    """

    detail: NDArray[np.float32]
    inside: NDArray[np.bool_]
    radius_um: float


@dataclass(frozen=True)
class Rescan:
    """Two slides that may be one: their indices, how alike they are (correlation), and how the second lies."""

    first: int
    second: int
    correlation: float
    turn: int

    @property
    def words(self) -> str:
        """How alike they are, and how the one lies against the other."""
        turned = f", turned by {self.turn % 4 * 90} degrees" if self.turn % 4 else ""
        return f"correlation {self.correlation:.2f}{turned}{', mirrored' if self.turn >= 4 else ''}"


def slide_print(
    thumbnail: NDArray[np.uint8], mask: NDArray[np.bool_], unreadable: NDArray[np.bool_], pixel_um: float
) -> SlidePrint | None:
    """The print of a slide; `None` if there is too little tissue, or none of it differs from the rest.

    Args:
        thumbnail: uint8 (H, W, 3).
        mask: bool (H, W), tissue; `unreadable` areas do not count.
        pixel_um: side of a pixel, micrometres.
    """
    tissue = mask & ~unreadable
    factor = max(1, max(tissue.shape) // MOST_REDUCED)
    darkness = 255 - thumbnail[..., 1]
    share = _reduced(tissue.astype(np.uint8) * np.uint8(255), factor) / np.float32(255)
    weighted = _reduced(darkness * tissue, factor)  # mean darkness times share
    if not share.any():
        return None
    rows, columns = (share.sum(axis=axis) for axis in (1, 0))
    (y, spread_y), (x, spread_x) = _centre(rows), _centre(columns)
    radius = float(np.hypot(spread_y, spread_x))
    if radius * SPAN < 2:
        return None
    inside, dark = _cells(share, y, x, radius * SPAN), _cells(weighted, y, x, radius * SPAN)
    around = ndimage.gaussian_filter(dark, AROUND) / np.maximum(ndimage.gaussian_filter(inside, AROUND), 1e-6)
    is_inside = inside > 0.5
    if is_inside.sum() < LEAST_CELLS:
        return None
    rings = _rings(is_inside)
    values = (dark / np.maximum(inside, 0.5) - around)[is_inside]
    values = values - _ring_means(values, rings)
    if values.std() < 1:
        return None
    detail = np.zeros((SIDE, SIDE), np.float32)
    detail[is_inside] = values / np.maximum(np.sqrt(_ring_means(values**2, rings)), LEAST_SPREAD)
    return SlidePrint(detail, is_inside, radius * factor * pixel_um)


def find_rescans(prints: Sequence[SlidePrint | None]) -> list[Rescan]:
    """Pairs of slides that may be one, in the order of their indices; slides without a print are in none."""
    known = [index for index, each in enumerate(prints) if each is not None]
    looked = [each for each in prints if each is not None]
    if len(looked) < 2:
        return []
    found, pairs = [], _first_look(looked)
    with Progress("comparing slides", len(pairs), "pairs", silent=len(pairs) < MANY_PAIRS) as progress:
        for a, b, turns in pairs:
            correlation, turn = max((_best(looked[a], looked[b], turn), -turn) for turn in turns)
            if correlation > 0:
                found.append(Rescan(known[a], known[b], correlation, -turn))
            progress.step()
    return found


def rescan_warnings(
    prints: Sequence[SlidePrint | None], ids: Sequence[str], cases: Sequence[str], same: Sequence[Sequence[str]]
) -> dict[int, str]:
    """The audit's warnings of slides that may be one, by the slide's index.

    Args:
        prints, ids, cases: of each slide.
        same: groups of ids that are known to be one slide, which nothing more is said of.
    """
    known = {frozenset((a, b)) for group in same for a in group for b in group}
    others: dict[int, list[tuple[int, Rescan]]] = {}
    for pair in find_rescans(prints):
        if {ids[pair.first], ids[pair.second]} not in known:
            others.setdefault(pair.first, []).append((pair.second, pair))
            others.setdefault(pair.second, []).append((pair.first, pair))
    warnings = {}
    for index, found in others.items():
        named = [
            f"{ids[other]!r} ({'' if cases[other] == cases[index] else 'of another case, '}{pair.words})"
            for other, pair in found[:MOST_OTHERS]
        ]
        more = f" and {len(found) - MOST_OTHERS:,} more" if len(found) > MOST_OTHERS else ""
        warnings[index] = f"it may be the same tissue as {', '.join(named)}{more}, scanned twice: look at both"
    return warnings


def _first_look(prints: Sequence[SlidePrint]) -> list[tuple[int, int, list[int]]]:
    """Pairs that are worth comparing in full, with the turns at which they are: by coarse prints and extents."""
    small = [each.detail.reshape(COARSE, 2, COARSE, 2).mean(axis=(1, 3)) for each in prints]
    small = [each / max(float(np.linalg.norm(each)), 1e-6) for each in small]
    flat = np.stack([each.ravel() for each in small])
    radii = np.array([each.radius_um for each in prints])
    turns_of: dict[tuple[int, int], list[int]] = {}
    for turn in range(8):
        turned = np.stack([_turned(each, turn).ravel() for each in small])
        for start in range(0, len(prints), 1024):
            alike = flat[start : start + 1024] @ turned.T
            ratio = np.abs(np.log(radii[start : start + 1024, None] / radii[None]))
            for a, b in np.argwhere((alike >= FIRST_LOOK) & (ratio <= np.log(RADIUS_RATIO))):
                if a + start < b:
                    turns_of.setdefault((int(a) + start, int(b)), []).append(turn)
    return [(a, b, turns) for (a, b), turns in sorted(turns_of.items())]


def _best(first: SlidePrint, second: SlidePrint, turn: int) -> float:
    """The best correlation of two prints over small shifts, with the second turned, of those that cannot be chance; 0
    if there is none.
    """
    detail, inside = _turned(second.detail, turn), _turned(second.inside, turn)
    least = max(LEAST_SHARED * max(int(first.inside.sum()), int(inside.sum())), LEAST_CELLS)
    # Details are 0 off tissue, so that sums of products over all cells are sums over the cells that both have.
    a, a_inside = first.detail.ravel(), first.inside.ravel().astype(np.float32)
    b, b_inside = (_shifted(values) for values in (detail, inside))
    sum_a, sum_aa, shared = (b_inside @ np.stack([a, a**2, a_inside], axis=1)).T.astype(np.float64)
    sum_b, sum_ab = (b @ np.stack([a_inside, a], axis=1)).T.astype(np.float64)
    sum_bb = (np.square(b, out=b) @ a_inside).astype(np.float64)
    number = np.maximum(shared, 1)
    norm = np.sqrt(np.maximum(sum_aa - sum_a**2 / number, 0) * np.maximum(sum_bb - sum_b**2 / number, 0))
    correlation = (sum_ab - sum_a * sum_b / number) / np.maximum(norm, 1e-6)
    is_sure = [s >= least and c >= least_correlation(round(s)) for s, c in zip(shared, correlation, strict=True)]
    return max(correlation[is_sure].tolist(), default=0.0)


def _shifted(values: NDArray[_Cell]) -> NDArray[np.float32]:
    """A square of cells in all small shifts, 0 beyond its edge: float32 (shifts, SIDE * SIDE)."""
    padded = np.pad(values.astype(np.float32), MOST_SHIFT)
    return np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE)).reshape(-1, SIDE * SIDE)


def least_correlation(num_cells: int) -> float:
    """The correlation of that many shared cells from which two slides are listed."""
    return max(ALIKE, float(np.tanh(ALIKE_SIGMAS / np.sqrt(max(num_cells / CELLS_TOGETHER - 3, 1)))))


def _rings(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The ring of each of the (cells,) inside: its distance from the nearest cell outside, in whole cells."""
    rings: NDArray[np.int64] = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1][inside].astype(np.int64)
    return rings


def _ring_means(values: NDArray[np.float32], rings: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each of the (cells,), the mean of its ring."""
    means: NDArray[np.float64] = np.bincount(rings, values) / np.maximum(np.bincount(rings), 1)
    return means[rings]


def _turned(values: NDArray[_Cell], turn: int) -> NDArray[_Cell]:
    """A square in one of its eight positions: turned by `turn` % 4 quarters, and mirrored from 4 on."""
    return np.rot90(values[:, ::-1] if turn >= 4 else values, turn % 4)


def _reduced(values: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    """Means over squares of `factor` pixels."""
    image = Image.fromarray(values)
    return np.asarray(image.reduce(factor) if factor > 1 else image, np.float32)


def _centre(profile: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of a profile's position."""
    places = np.arange(len(profile)) + 0.5
    weights = profile / profile.sum(dtype=np.float64)
    mean = float(places @ weights)
    return mean, float(np.sqrt(((places - mean) ** 2) @ weights))


def _cells(values: NDArray[np.float32], y: float, x: float, side: float) -> NDArray[np.float32]:
    """Means of `values` in SIDE x SIDE cells of the square of that side about (y, x); 0 beyond the edge."""
    pad = int(side / 2) + 2
    image = Image.fromarray(np.pad(values, pad))
    box = (x + pad - side / 2, y + pad - side / 2, x + pad + side / 2, y + pad + side / 2)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX, box=box), np.float32)
