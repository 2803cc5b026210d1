"""Regions as a person drew them, and what has to be mended before their area can be measured. Pure.

All coordinates are (x, y) in pixels of level 0. What is mended is noted, never silent; what cannot be mended without
changing the region is an error. Left out: curved edges, which readers turn into polygons.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.base.errors import AnnotationError
from pipeline.config.class_rules import clean_class

CLASS_JOINT = ": "
"""Between the names of a class and its subclasses, as QuPath writes them: "Tumor: Positive"."""
UNCLASSIFIED = "Unclassified"
"""The class of regions that have none; QuPath's word."""
MOST_CHANGE = 0.05
"""Share of its area that mending may change of a region. Our choice: the loop where a hand closes its line is small
beside the region; of a figure of eight nobody knows which part was meant.
"""
MOST_COORDINATE = 1e9
"""Coordinates beyond it are refused. Our choice: no slide has a thousandth of it."""
LEAST_INSIDE = 0.5
"""Share of the drawn area that must lie on the slide. Our choice: less is another slide, or another unit."""
NOTICED_OUTSIDE = 1e-3
"""Share of a class's area beyond the slide that is worth a note. Our choice: programs round at the slide's edge."""
MOST_LISTED = 5
"""Regions that a note names by their numbers. Our choice."""
ELLIPSE_POINTS = 360
"""Corners of the polygon that stands for an ellipse: its area is 0.005 % too small. Our choice."""


@dataclass(frozen=True)
class DrawnRegion:
    """A region of one class.

    Attributes:
        number: its place in the file, from 1; to name it.
        class_name: its class.
        rings: float64 (K, 2), (x, y) in level-0 pixels: its outline, then those of its holes.
        is_hole: whether it is taken out of the other regions of its class, as negative regions are.
    """

    number: int
    class_name: str
    rings: Sequence[NDArray[np.float64]]
    is_hole: bool = False


@dataclass(frozen=True)
class ScannedPart:
    """The part of a slide that was scanned, where that is not all of it.

    Attributes:
        corner_l0_px: (x, y) of its top left corner.
        size_l0_px: (width, height).
        counts_from_it: whether a file's coordinates count from its corner, not from the slide's.
    """

    corner_l0_px: tuple[int, int]
    size_l0_px: tuple[int, int]
    counts_from_it: bool = False


@dataclass
class Notes:
    """What was mended or left out, and of which regions; and how classes are spelled."""

    _numbers: dict[str, list[int]] = field(default_factory=dict)
    _general: list[str] = field(default_factory=list)
    _spellings: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, number: int) -> None:
        """Note something of a region."""
        self._numbers.setdefault(what, []).append(number)

    def say(self, line: str) -> None:
        """Note something of the whole file."""
        self._general.append(line)

    def class_named(self, *parts: str) -> str:
        """The class that a file names, perhaps by the names of a class and its subclasses; its spelling is kept."""
        name = CLASS_JOINT.join(filter(None, map(clean_class, parts)))
        spellings, written = self._spellings.setdefault(name, []), CLASS_JOINT.join(parts)
        if written not in spellings:
            spellings.append(written)
        return name

    @property
    def spellings(self) -> dict[str, tuple[str, ...]]:
        """How the file spells each class, in the order of the names."""
        return {name: tuple(written) for name, written in sorted(self._spellings.items())}

    def lines(self) -> tuple[str, ...]:
        """A line for each kind of note."""
        found = []
        for what, numbers in self._numbers.items():
            some = ", ".join(map(str, numbers[:MOST_LISTED])) + (", ..." if len(numbers) > MOST_LISTED else "")
            found.append(f"{len(numbers)} region{'s' if len(numbers) > 1 else ''} (number {some}): {what}")
        found += [
            f"class {name} is spelled in {len(written)} ways, taken as one: {', '.join(map(ascii, written))}"
            for name, written in self.spellings.items()
            if len(written) > 1
        ]
        return (*found, *self._general)


def ellipse_outline(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The outline of the ellipse within a box: (K, 2), of any points of which the box is the bounding box."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray((low + high) / 2 + unit * (high - low) / 2)


def box_outline(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The outline of an upright box of two opposite corners, (4, 2)."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def shapes_by_class(
    regions: Iterable[DrawnRegion],
    size_l0_px: tuple[int, int],
    notes: Notes,
    where: str,
    slide_name: str,
    scanned: ScannedPart | None = None,
) -> dict[str, shapely.Geometry]:
    """The area of each class on the slide: the union of its regions, without its holes.

    Args:
        size_l0_px: (width, height) of the slide; what lies beyond is cut off.
        notes: is given what was mended.
        where: the file's path, for errors.
        slide_name: likewise.
        scanned: the part of the slide that was scanned, if not all was.

    Raises:
        AnnotationError: a coordinate is not a number, or mending changes a region by more than `MOST_CHANGE`, or most
            of the area lies beyond the slide.
    """
    positive: dict[str, list[tuple[int, shapely.Geometry]]] = {}
    negative: dict[str, list[shapely.Geometry]] = {}
    for region in regions:
        shape = _mended(region, notes, where)
        if not shape.is_empty and region.is_hole:
            negative.setdefault(region.class_name, []).append(shape)
        elif not shape.is_empty:
            positive.setdefault(region.class_name, []).append((region.number, shape))
    for name in sorted(negative.keys() - positive.keys()):
        notes.say(f"class {name} has holes, but no regions that they could be taken out of")
    drawn = {name: _without_holes(shapes, negative.get(name, []), notes) for name, shapes in positive.items()}
    return _on_slide(drawn, size_l0_px, notes, where, slide_name, scanned)


def _without_holes(
    numbered: Sequence[tuple[int, shapely.Geometry]], holes: Sequence[shapely.Geometry], notes: Notes
) -> shapely.Geometry:
    """The union of a class's regions without its holes. A region that lies within a hole, an island, stays, also if it
    touches the hole's edge; one that is the hole does not.
    """
    shapes = np.array([shape for _, shape in numbered])
    if not holes:
        return shapely.union_all(shapes)
    around, island = shapely.STRtree(shapes).query(np.array(holes), predicate="contains")
    is_part = ~shapely.equals(np.array(holes)[around], shapes[island])
    around, island = around[is_part], island[is_part]
    is_island = np.zeros(len(shapes), np.bool_)
    is_island[island] = True
    all_holes = shapely.union_all(holes)
    shapely.prepare(all_holes)
    for place in np.flatnonzero(~is_island & shapely.covers(all_holes, shapes)).tolist():
        notes.add("holes take all of it away", numbered[place][0])
    kept = [_areal(shapely.difference(shapely.union_all(shapes[~is_island]), all_holes))]
    of_holes = shapely.STRtree(holes)
    for place in np.flatnonzero(is_island).tolist():
        own = np.setdiff1d(of_holes.query(shapes[place]), around[island == place])
        left = _areal(shapely.difference(shapes[place], shapely.union_all(of_holes.geometries[own])))
        what = "holes take all of it away" if left.is_empty else "it lies within a hole and was kept"
        notes.add(what, numbered[place][0])
        kept.append(left)
    return shapely.union_all(kept)


def _mended(region: DrawnRegion, notes: Notes, where: str) -> shapely.Geometry:
    """A region as a valid polygon or polygons; empty, and noted, if it has no area."""
    rings = [_ring(points, region.number, where) for points in region.rings]
    if not all(map(len, rings)) or not rings:
        notes.add("an outline of fewer than 3 different points was left out", region.number)
    if not rings or not len(rings[0]):  # without its outline, its holes are holes of nothing
        return shapely.Polygon()
    rings = [points for points in rings if len(points)]
    if any(_repeats(points) for points in rings):
        notes.add("points that follow themselves were left out", region.number)
    drawn = shapely.Polygon(rings[0], rings[1:])
    if not drawn.is_valid:
        drawn = _without_stray_holes(rings, region, notes)
    mended = drawn if drawn.is_valid else _uncrossed(drawn, region, notes, where)
    if mended.area:
        return mended
    notes.add("it has no area and was left out", region.number)
    return shapely.Polygon()


def _without_stray_holes(rings: Sequence[NDArray[np.float64]], region: DrawnRegion, notes: Notes) -> shapely.Geometry:
    """A polygon without those of its holes that lie outside its outline, and take nothing away: `make_valid` takes such
    a hole for a second outline, and adds its area to the region.
    """
    outline, *holes = (_made_valid(shapely.Polygon(points)) for points in rings)
    shapely.prepare(outline)  # most holes lie well inside, which is then quick to see
    is_open = ~shapely.is_empty(holes) & ~shapely.contains_properly(outline, holes)
    strays = is_open.tolist()
    for place in np.flatnonzero(is_open).tolist():
        strays[place] = not shapely.intersection(outline, holes[place]).area
    if any(strays):
        notes.add("a hole that lies outside its outline was left out", region.number)
    kept = [points for points, is_stray in zip(rings[1:], strays, strict=True) if not is_stray]
    return shapely.Polygon(rings[0], kept)


def _made_valid(shape: shapely.Geometry) -> shapely.Geometry:
    """The valid polygons of a shape, by GEOS: outlines together, less all holes that meet them."""
    return _areal(shapely.make_valid(shape, method="structure", keep_collapsed=False))


def _uncrossed(drawn: shapely.Geometry, region: DrawnRegion, notes: Notes, where: str) -> shapely.Geometry:
    """A polygon that crosses itself, mended; refused if that changes its area by more than `MOST_CHANGE`."""
    mended = _made_valid(drawn)
    before, after, fault = drawn.area, mended.area, "crosses itself"
    if before < 0:  # an outline less its holes
        before, fault = shapely.Polygon(shapely.get_exterior_ring(drawn)).area, "is smaller than its holes"
    change = abs(after - before) / (max(before, after) or 1.0)
    if change > MOST_CHANGE:
        raise AnnotationError(
            f"{where}: the outline of region {region.number} (class {region.class_name}) {fault}, and mending it "
            f"would change its area from {before:,.0f} to {after:,.0f} level-0 pixels ({change:.0%}; at most "
            f"{MOST_CHANGE:.0%}). Correct it in the program that drew it"
        )
    if after:
        reason = shapely.is_valid_reason(drawn).split("[")[0].lower()
        notes.add(f"{reason}: mended, its area went from {before:,.0f} to {after:,.0f} level-0 pixels", region.number)
    return mended


def _ring(points: NDArray[np.float64], number: int, where: str) -> NDArray[np.float64]:
    """The points of an outline, without the last if it is the first again."""
    if points.ndim != 2 or (len(points) and points.shape[1] < 2):
        raise AnnotationError(f"{where}: the outline of region {number} is no list of points (x, y)")
    points = points[:, :2]
    if not (np.abs(points) <= MOST_COORDINATE).all():  # NaN is not either
        raise AnnotationError(f"{where}: region {number} has a coordinate that is infinite, huge or not a number")
    while len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    others = points[(points != points[:1]).any(axis=1)]
    has_three = bool((others != others[:1]).any())
    return points if has_three else points[:0]


def _repeats(points: NDArray[np.float64]) -> bool:
    """Whether a point follows itself."""
    return bool((points[1:] == points[:-1]).all(axis=1).any())


def _areal(shape: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a shape, without its points and lines."""
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = shapely.get_parts(shape)
    return shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])


def _on_slide(
    drawn: dict[str, shapely.Geometry],
    size_l0_px: tuple[int, int],
    notes: Notes,
    where: str,
    slide_name: str,
    scanned: ScannedPart | None,
) -> dict[str, shapely.Geometry]:
    """What lies on the slide of each class; most of it must lie where the slide was scanned."""
    frame, words = _frame(size_l0_px, scanned, slide_name)
    total = math.fsum(shape.area for shape in drawn.values())
    kept = math.fsum(_part_within(shape, frame).area for shape in drawn.values())
    if kept < LEAST_INSIDE * total:
        x, y = scanned.corner_l0_px if scanned is not None and scanned.counts_from_it else (0, 0)
        left, top, right, bottom = shapely.total_bounds(list(drawn.values())) - (x, y, x, y)
        raise AnnotationError(
            f"{where}: {1 - kept / total:.0%} of its regions' area lies beyond {words.frame}: they reach from "
            f"({left:,.0f}, {top:,.0f}) to ({right:,.0f}, {bottom:,.0f}). It is of another slide, or its coordinates "
            f"are not pixels of level 0{words.otherwise}"
        )
    slide = shapely.box(0, 0, *size_l0_px)
    inside = {name: _areal(_part_within(shape, slide)) for name, shape in drawn.items()}
    for name, shape in drawn.items():
        lost = shape.area - inside[name].area
        if lost > NOTICED_OUTSIDE * shape.area:
            notes.say(f"class {name}: {lost / shape.area:.1%} of its area lies beyond the slide and was cut off")
        unscanned = inside[name].area - _part_within(inside[name], frame).area
        if unscanned > NOTICED_OUTSIDE * shape.area:
            notes.say(
                f"class {name}: {unscanned / shape.area:.1%} of its area lies where the slide was not scanned"
                f"{words.otherwise}"
            )
    return {name: shape for name, shape in inside.items() if not shape.is_empty}


def _part_within(shape: shapely.Geometry, box: shapely.Geometry) -> shapely.Geometry:
    """The part of a shape in an upright box: the shape itself, if that is all of it, for GEOS takes long to cut many
    regions with holes.
    """
    left, top, right, bottom = box.bounds
    x0, y0, x1, y1 = shape.bounds
    is_inside = x0 >= left and y0 >= top and x1 <= right and y1 <= bottom
    return shape if is_inside else shapely.intersection(shape, box)


@dataclass(frozen=True)
class _Words:
    """How an error names what regions must lie on, and what they may count from otherwise."""

    frame: str
    otherwise: str = ""


def _frame(
    size_l0_px: tuple[int, int], scanned: ScannedPart | None, slide_name: str
) -> tuple[shapely.Geometry, _Words]:
    """What was scanned of a slide, on which nothing else can be drawn."""
    if scanned is None:
        width, height = size_l0_px
        return shapely.box(0, 0, width, height), _Words(f"slide {slide_name}, which has {width} x {height} pixels")
    (x, y), (width, height) = scanned.corner_l0_px, scanned.size_l0_px
    words = f"the scanned area of slide {slide_name}, which has {width} x {height} pixels"
    if scanned.counts_from_it:
        said = _Words(words, ", or they count from the slide's corner (--annotation-origin slide)")
    else:
        otherwise = ", or they count from the corner of its scanned area (--annotation-origin scan)"
        said = _Words(f"{words} from ({x:,}, {y:,})", otherwise)
    return shapely.box(x, y, x + width, y + height), said
