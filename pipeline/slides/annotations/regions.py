"""The annotations of a slide: classes, their areas, and which share of a patch lies in each.

Of polygons, areas are exact up to floating point; of masks, exact to fractions of a mask pixel.
"""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.base.errors import AnnotationError
from pipeline.slides.geometry import FRACTION_DECIMALS, area_fractions, integral_image

PIECE_POINTS = 256
"""Points of a piece of a shape that is not split further. Our choice: a shape of a hundred thousand points is then
compared with a patch by the few near it.
"""
MOST_SPLITS = 16
"""Times that a shape is quartered at most. Our choice: then its pieces are smaller than a level-0 pixel."""
BLOCK = 20_000
"""Patches that are compared at once. Our choice: it bounds the memory."""
POINT_BYTES, OUTLINE_BYTES = 24, 320
"""Bytes of memory that GEOS takes for a point, with room for z, and for an outline. Measured: 408 for a triangle."""
BAND_PIXELS = 1 << 23
"""Mask pixels whose sums are held at once, 64 MiB; more only if a single row of patches has more. Our choice."""


class RegionSource(Protocol):
    """Regions of a slide, as polygons or as a mask."""

    def names(self) -> tuple[str, ...]:
        """The classes, sorted."""

    def area_l0_px(self, name: str) -> float:
        """Area of a class, level-0 pixels."""

    def share(self, names: Collection[str], coords_l0_px: NDArray[np.int64], patch_l0_px: float) -> NDArray[np.float64]:
        """Share of each patch, (N,), in any of the classes."""

    def rings(self, name: str) -> list[NDArray[np.float64]]:
        """The closed outlines of a class, holes included, (K, 2) each."""

    def num_bytes(self) -> int:
        """Bytes of memory that the regions take, about."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """Annotated regions of one slide.

    Attributes:
        source: the regions.
        mpp: um/px of level 0.
        notes: what was mended or left out when they were read, a sentence each.
        spellings: of each class, how the file writes its name.
    """

    source: RegionSource
    mpp: float
    notes: tuple[str, ...] = ()
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that have an area on the slide, sorted."""
        return self.source.names()

    @functools.cached_property
    def areas_um2(self) -> Mapping[str, float]:
        """Area of each class on the slide, square micrometres."""
        return {name: self.source.area_l0_px(name) * self.mpp**2 for name in self.classes}

    def fractions(
        self, classes: Sequence[str], coords_l0_px: NDArray[np.int64], patch_l0_px: float
    ) -> NDArray[np.float64]:
        """Share of each patch's area in each class: float64 (N, C), in 0..1; 0 for a class that the slide lacks.

        Args:
            classes: C names.
            coords_l0_px: (N, 2) top left corners (x, y), level 0.
            patch_l0_px: side of a patch, level-0 pixels.
        """
        shares = np.zeros((len(coords_l0_px), len(classes)))
        for column, name in enumerate(classes):
            shares[:, column] = self.source.share((name,), coords_l0_px, patch_l0_px)
        return shares

    def fraction_in_any(
        self, classes: Sequence[str], coords_l0_px: NDArray[np.int64], patch_l0_px: float
    ) -> NDArray[np.float64]:
        """Share of each patch's area in the union of the classes: float64 (N,), in 0..1. Arguments: see `fractions`."""
        return self.source.share(tuple(classes), coords_l0_px, patch_l0_px)

    def rings(self, name: str) -> list[NDArray[np.float64]]:
        """The outlines of a class, of its regions and of their holes: float64 (K, 2) of (x, y) each, level-0 pixels,
        the last point the first. A point is in the class if an odd number of them encloses it.

        Raises:
            AnnotationError: the annotations are a mask, which has none.
        """
        return self.source.rings(name)


class PolygonRegions:
    """Regions as polygons.

    Args:
        shapes: of each class, on the slide, level-0 pixels; valid, polygons only.
    """

    def __init__(self, shapes: Mapping[str, shapely.Geometry]) -> None:
        self._shapes = dict(sorted(shapes.items()))
        self._trees: dict[frozenset[str], shapely.STRtree] = {}

    def names(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(self._shapes)

    def area_l0_px(self, name: str) -> float:
        """Area of a class, level-0 pixels."""
        return float(self._shapes[name].area)

    def share(self, names: Collection[str], coords_l0_px: NDArray[np.int64], patch_l0_px: float) -> NDArray[np.float64]:
        """Share of each patch, (N,), in any of the classes."""
        tree = self._tree(frozenset(names).intersection(self._shapes))
        shares = np.zeros(len(coords_l0_px))
        for start in range(0, len(coords_l0_px), BLOCK):
            low = coords_l0_px[start : start + BLOCK].astype(np.float64)
            boxes = shapely.box(low[:, 0], low[:, 1], low[:, 0] + patch_l0_px, low[:, 1] + patch_l0_px)
            patch, piece = tree.query(boxes, predicate="intersects")
            areas = shapely.area(shapely.intersection(boxes[patch], tree.geometries[piece]))
            shares[start : start + BLOCK] = np.bincount(patch, areas, len(low))
        return np.clip(np.round(shares / patch_l0_px**2, FRACTION_DECIMALS), 0.0, 1.0)

    def rings(self, name: str) -> list[NDArray[np.float64]]:
        """The closed outlines of a class, holes included, (K, 2) each."""
        rings = shapely.get_rings(shapely.get_parts(self._shapes[name]))
        return [np.asarray(shapely.get_coordinates(ring)) for ring in rings]

    def num_bytes(self) -> int:
        """Bytes of memory that the regions take, about; without the trees that shares are found by."""
        parts = shapely.get_parts(list(self._shapes.values()))
        num_outlines = len(parts) + int(shapely.get_num_interior_rings(parts).sum())
        return POINT_BYTES * int(shapely.get_num_coordinates(parts).sum()) + OUTLINE_BYTES * num_outlines

    def _tree(self, names: frozenset[str]) -> shapely.STRtree:
        """The pieces of the union of some classes."""
        if names not in self._trees:
            shapes = [self._shapes[name] for name in names]
            whole = shapes[0] if len(shapes) == 1 else shapely.union_all(shapes)
            self._trees[names] = shapely.STRtree(_pieces(whole))
        return self._trees[names]


def _pieces(shape: shapely.Geometry) -> list[shapely.Geometry]:
    """A shape in pieces of few points, which do not overlap."""
    done: list[shapely.Geometry] = []
    left = [(part, MOST_SPLITS) for part in shapely.get_parts(shape)]
    while left:
        part, splits = left.pop()
        if shapely.get_num_coordinates(part) <= PIECE_POINTS or not splits:
            done.append(part)
            continue
        x0, y0, x2, y2 = shapely.bounds(part)
        x1, y1 = (x0 + x2) / 2, (y0 + y2) / 2
        quarters = shapely.box([x0, x1, x0, x1], [y0, y0, y1, y1], [x1, x2, x1, x2], [y1, y1, y2, y2])
        cut = shapely.get_parts(shapely.get_parts(shapely.intersection(part, quarters)))
        left += [(piece, splits - 1) for piece in cut if piece.geom_type == "Polygon"]
    return done


class MaskRegions:
    """Regions as a mask.

    Args:
        values: unsigned integers (H, W); 0 is in no class.
        names: the class of each other value that occurs; several values may have one class.
        pixel_l0_px: side of a mask pixel, level-0 pixels.
        where: the file's path, for errors.
        corner_l0_px: (x, y) of the mask's corner on the slide.

    Attributes:
        size_l0_px: (width, height) that it covers, level-0 pixels.
        pixel_l0_px: side of a pixel of it.
    """

    def __init__(
        self,
        values: NDArray[np.unsignedinteger],
        names: Mapping[int, str],
        pixel_l0_px: float,
        where: str,
        corner_l0_px: tuple[int, int] = (0, 0),
    ) -> None:
        self._values, self._names, self.pixel_l0_px, self._where = values, dict(names), pixel_l0_px, where
        self.size_l0_px = values.shape[1] * pixel_l0_px, values.shape[0] * pixel_l0_px
        self._corner = np.array(corner_l0_px, np.int64)

    def names(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted(set(self._names.values())))

    def area_l0_px(self, name: str) -> float:
        """Area of a class, level-0 pixels."""
        return float(np.count_nonzero(self._is_in((name,), self._values)) * self.pixel_l0_px**2)

    def share(self, names: Collection[str], coords_l0_px: NDArray[np.int64], patch_l0_px: float) -> NDArray[np.float64]:
        """Share of each patch, (N,), in any of the classes. Sums are made for bands of rows, not for the whole mask."""
        height, width = self._values.shape
        coords_l0_px = coords_l0_px - self._corner
        first = np.clip(np.floor(coords_l0_px[:, 1] / self.pixel_l0_px), 0, height - 1).astype(np.int64)
        last = np.clip(np.ceil((coords_l0_px[:, 1] + patch_l0_px) / self.pixel_l0_px), 1, height).astype(np.int64)
        order = np.argsort(coords_l0_px[:, 1], kind="stable")
        rows = max(math.ceil(patch_l0_px / self.pixel_l0_px) + 1, BAND_PIXELS // width)
        shares = np.zeros(len(coords_l0_px))
        start = 0
        while start < len(order):
            top = first[order[start]]
            stop = max(start + 1, int(np.searchsorted(last[order], top + rows, side="right")))
            now = order[start:stop]
            band = self._is_in(names, self._values[top : last[order[stop - 1]]])
            moved = coords_l0_px[now] - np.array([0.0, top * self.pixel_l0_px])
            shares[now] = area_fractions(integral_image(band), moved, patch_l0_px, self.pixel_l0_px)
            start = stop
        return shares

    def rings(self, name: str) -> list[NDArray[np.float64]]:
        """A mask has no outlines.

        Raises:
            AnnotationError: always.
        """
        raise AnnotationError(f"{self._where}: a mask has no outlines of class {name}; polygons are needed here")

    def num_bytes(self) -> int:
        """Bytes of memory that the mask takes."""
        return int(self._values.nbytes)

    def _is_in(self, names: Collection[str], values: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
        """Which pixels are in any of the classes."""
        wanted = [value for value, name in self._names.items() if name in names]
        return np.isin(values, np.array(wanted, self._values.dtype))
