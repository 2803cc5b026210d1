"""Outlines of a mask as polygons along the edges of its pixels, and the mask of such outlines. Pure.

A polygon's outlines are exact: the mask of the outlines of a mask is that mask. Left out: smoothing.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PixelRing = NDArray[np.int64]
"""A closed outline, int64 (K + 1, 2) of (x, y) in corners of pixels; its last point is its first."""
Polygon = list[PixelRing]
"""An outline and those of its holes."""


def polygons_of(mask: NDArray[np.bool_]) -> list[Polygon]:
    """The polygons of a mask (H, W), one for each object whose pixels share sides, in the order of their topmost
    pixels. Outlines are counterclockwise in a frame whose y points up and holes clockwise, as RFC 7946 wants it of
    GeoJSON. No outline passes a point twice.
    """
    labels, number = ndimage.label(mask)
    outlines: list[PixelRing | None] = [None] * (number + 1)
    holes: list[list[PixelRing]] = [[] for _ in range(number + 1)]
    for ring in _rings(mask):
        x, y = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]]  # the pixel to its lower right is within the ring
        if mask[y, x]:
            outlines[labels[y, x]] = _turned(ring, 1)
        else:
            holes[labels[y - 1, x]].append(_turned(ring, -1))
    return [[ring, *holes[label]] for label, ring in enumerate(outlines) if ring is not None]


def mask_of(rings: Iterable[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of outlines: pixels whose centre lies within an odd number of the rings.

    Args:
        rings: float64 (K + 1, 2) of (x, y), in pixels of the mask; the last point is the first.
        shape: (H, W).
    """
    height, width = shape
    toggles = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        low, high = ring[:-1], ring[1:]
        swapped = (low[:, 1] > high[:, 1])[:, None]
        low, high = np.where(swapped, high, low), np.where(swapped, low, high)
        # rows whose centre, r + 1/2, is in [low y, high y): an end that two edges share counts once
        first = np.clip(np.ceil(low[:, 1] - 0.5), 0, height).astype(np.int64)
        last = np.clip(np.ceil(high[:, 1] - 0.5), 0, height).astype(np.int64)
        counts = last - first
        edge = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        slope = (high[edge, 0] - low[edge, 0]) / (high[edge, 1] - low[edge, 1])
        x = low[edge, 0] + (row + 0.5 - low[edge, 1]) * slope
        np.add.at(toggles, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
    inside: NDArray[np.bool_] = np.cumsum(toggles[:, :width], axis=1) % 2 == 1
    return inside


def _rings(mask: NDArray[np.bool_]) -> list[PixelRing]:
    """All outlines of a mask, of objects and of holes, without their direction; none passes a point twice."""
    x, y, across, down = _corners(mask)
    row_order, column_order = np.lexsort((across, x, y)), np.lexsort((down, y, x))
    along_row, along_column = np.empty_like(x), np.empty_like(x)
    for order, partner in ((row_order, along_row), (column_order, along_column)):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    points, partners = np.stack([x, y], axis=1), (along_row.tolist(), along_column.tolist())
    seen = np.zeros(len(x), bool)
    rings: list[PixelRing] = []
    for start in range(len(x)):
        if seen[start]:
            continue
        nodes, node = list[int](), start
        while not nodes or node != start:
            for partner_of in partners:
                nodes.append(node)
                node = partner_of[node]
        seen[nodes] = True
        rings += [points[[*part, part[0]]] for part in _split(nodes, points[nodes])]
    return rings


def _corners(mask: NDArray[np.bool_]) -> tuple[PixelRing, PixelRing, PixelRing, PixelRing]:
    """The corners of a mask's outlines: x and y of each, and its rank among those of one point along the row and along
    the column; int64 (M,). Where two objects touch at a point, it is a corner of both.
    """
    padded = np.pad(mask, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    crossed = (a == d) & (b == c) & (a != b)
    y, x = np.nonzero((a ^ b ^ c ^ d) | crossed)
    # at a crossing, the corner of the upper pixel and that of the lower one
    y2, x2 = np.nonzero(crossed)
    zeros, falling = np.zeros_like(x), a[y2, x2].astype(np.int64)
    first_across = zeros.copy()
    first_across[crossed[y, x]] = 1 - falling  # left of the point if the upper pixel is the left one
    return (
        np.concatenate([x, x2]),
        np.concatenate([y, y2]),
        np.concatenate([first_across, falling]),
        np.concatenate([zeros, np.ones_like(x2)]),
    )


def _split(nodes: Sequence[int], points: PixelRing) -> list[list[int]]:
    """An outline in parts that pass no point twice."""
    parts, path = list[list[int]](), list[int]()
    places: dict[tuple[int, int], int] = {}
    names = list(map(tuple, points.tolist()))
    at: list[tuple[int, int]] = []
    for node, name in zip(nodes, names, strict=True):
        if name in places:
            start = places[name]
            parts.append(path[start:])
            for gone in at[start:]:
                del places[gone]
            del path[start:], at[start:]
        places[name] = len(path)
        path.append(node)
        at.append(name)
    return [*parts, path]


def _turned(ring: PixelRing, sign: int) -> PixelRing:
    """The ring in the direction in which its area has this sign."""
    x, y = ring[:, 0], ring[:, 1]
    area = int((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
    return ring if area * sign > 0 else ring[::-1]
