"""Shares of patches in classes, against dense grids of points, exact clipping and each other."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.base.errors import AnnotationError
from pipeline.slides.annotations import regions
from pipeline.slides.annotations.regions import Annotations, MaskRegions, PolygonRegions

CORNERS = np.stack(np.meshgrid(np.arange(-16, 240, 37), np.arange(-8, 240, 41)), -1).reshape(-1, 2).astype(np.int64)
Points = list[tuple[Fraction, Fraction]]


def star(num: int, seed: int) -> Any:
    """A star of whole coordinates with a hole, around the middle of 200 pixels."""
    radii = np.random.default_rng(seed).uniform(40, 100, num)
    angle = np.arange(num) * 2 * np.pi / num
    ring = 100 + np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=1)
    return shapely.Polygon(np.rint(ring), [np.rint(100 + (ring - 100) * 0.3)])


def clipped(points: Points, axis: int, bound: int, sign: int) -> Points:
    """Sutherland and Hodgman's clipping by one side of a box, in fractions."""
    kept: Points = []
    for a, b in itertools.pairwise([*points, points[0]]):
        da, db = sign * (a[axis] - bound), sign * (b[axis] - bound)
        if da >= 0:
            kept.append(a)
        if (da > 0 > db) or (da < 0 < db):
            t = da / (da - db)
            kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
    return kept


def exact_share(shape: Any, x: int, y: int, side: int) -> float:
    """The share of a patch in a polygon with holes, in rational numbers."""
    total = Fraction(0)
    for number, ring in enumerate([shape.exterior, *shape.interiors]):
        points: Points = [(Fraction(int(a)), Fraction(int(b))) for a, b in list(ring.coords)[:-1]]
        for axis, bound, sign in ((0, x, 1), (0, x + side, -1), (1, y, 1), (1, y + side, -1)):
            points = clipped(points, axis, bound, sign) if points else points
        pairs = zip(points, points[1:] + points[:1], strict=True)
        area = abs(sum((a[0] * b[1] - a[1] * b[0] for a, b in pairs), Fraction(0))) / 2
        total += area if number == 0 else -area
    return float(total / side**2)


def by_points(shape: Any, coords: NDArray[np.int64], side: float, per_side: int = 64) -> NDArray[np.float64]:
    """Share of the middles of a dense grid in each patch that lie within a shape."""
    middles = (np.arange(per_side) + 0.5) * (side / per_side)
    x, y = (each.ravel() for each in np.meshgrid(middles, middles))
    return np.array([shapely.contains_xy(shape, x + left, y + top).mean() for left, top in coords])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("piece_points", [12, 256])
def test_shares_are_those_of_clipping_in_rational_numbers(
    seed: int, piece_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "PIECE_POINTS", piece_points)
    monkeypatch.setattr(regions, "BLOCK", 7)
    shape = star(23, seed)
    shares = Annotations(PolygonRegions({"a": shape}), 0.5).fractions(["a"], CORNERS, 48.0)[:, 0]
    expected = [exact_share(shape, int(x), int(y), 48) for x, y in CORNERS]
    assert np.abs(shares - expected).max() < 1e-8  # rounded to nine decimals
    assert 0 < np.mean(shares > 0) < 1


def test_unions_are_as_a_dense_grid_of_points_has_them() -> None:
    shapes = {"a": star(17, 1), "b": shapely.union_all([star(9, 9), shapely.box(150, 10, 210, 60)])}
    annotations = Annotations(PolygonRegions(shapes), 0.5)
    shares = annotations.fractions(["b", "a", "none"], CORNERS, 48.3)
    assert np.abs(shares[:, 0] - by_points(shapes["b"], CORNERS, 48.3)).max() < 0.01
    assert not shares[:, 2].any()
    together = annotations.fraction_in_any(["a", "b", "none"], CORNERS, 48.3)
    assert np.abs(together - by_points(shapely.union_all(list(shapes.values())), CORNERS, 48.3)).max() < 0.01
    assert (together <= shares.sum(axis=1) + 1e-8).all()
    assert annotations.areas_um2["a"] == pytest.approx(shapes["a"].area / 4)
    assert not annotations.fraction_in_any([], CORNERS, 48.3).any()


def test_a_patch_wholly_inside_has_exactly_one() -> None:
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    disc = shapely.Polygon(1000 + 900 * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    coords = np.array([(901, 899), (1000, 1000), (500, 1003)], np.int64)
    assert Annotations(PolygonRegions({"a": disc}), 1.0).fractions(["a"], coords, 133.7)[:, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("band", [1, 100, 1 << 23])
def test_a_mask_is_as_the_polygons_of_its_pixels(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "BAND_PIXELS", band)
    values = np.random.default_rng(3).integers(0, 4, (25, 30)).astype(np.uint8)
    names, pixel = {1: "one", 2: "two", 3: "one"}, 7.3
    boxes: dict[str, list[Any]] = {"one": [], "two": []}
    for row, column in np.argwhere(values):
        box = shapely.box(column * pixel, row * pixel, (column + 1) * pixel, (row + 1) * pixel)
        boxes[names[int(values[row, column])]].append(box)
    mask = Annotations(MaskRegions(values, names, pixel, "m.png"), 0.5)
    shapes = {name: shapely.union_all(part) for name, part in boxes.items()}
    polygons = Annotations(PolygonRegions(shapes), 0.5)
    assert mask.classes == polygons.classes == ("one", "two")
    for classes in (["one"], ["one", "two"], []):
        found, expected = (each.fraction_in_any(classes, CORNERS, 33.0) for each in (mask, polygons))
        assert np.abs(found - expected).max() < 1e-8
    assert mask.areas_um2["two"] == pytest.approx(polygons.areas_um2["two"])
    with pytest.raises(AnnotationError, match=r"m\.png: a mask has no outlines of class one"):
        mask.rings("one")


def test_a_turn_by_90_degrees_turns_the_shares() -> None:
    """(x, y) becomes (200 - y, x), of the slide and of its patches."""
    shape = star(19, 5)
    turned = shapely.transform(shape, lambda points: np.stack([200 - points[:, 1], points[:, 0]], axis=1))
    coords = np.stack([200 - 48 - CORNERS[:, 1], CORNERS[:, 0]], axis=1)
    before = Annotations(PolygonRegions({"a": shape}), 1.0).fractions(["a"], CORNERS, 48.0)
    after = Annotations(PolygonRegions({"a": turned}), 1.0).fractions(["a"], coords, 48.0)
    assert np.abs(before - after).max() < 1e-8


def test_rings_are_closed_and_all_there() -> None:
    outline, hole = Annotations(PolygonRegions({"a": star(8, 1)}), 1.0).rings("a")
    assert (outline[0] == outline[-1]).all()
    assert (hole[0] == hole[-1]).all()


def test_nothing_is_asked_of_no_patches() -> None:
    none = np.zeros((0, 2), np.int64)
    assert Annotations(PolygonRegions({"a": star(5, 0)}), 1.0).fractions(["a"], none, 8.0).shape == (0, 1)
    mask = MaskRegions(np.ones((3, 3), np.uint8), {1: "a"}, 1.0, "m")
    assert Annotations(mask, 1.0).fractions(["a"], none, 8.0).shape == (0, 1)


def within(rings: list[NDArray[np.float64]], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points (N,) lie within rings, holes being rings too: by counting crossings, without shapely."""
    inside = np.zeros(len(x), bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in itertools.pairwise(ring):
            if y0 != y1:
                crosses = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
                inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def shoelace(ring: NDArray[np.float64]) -> float:
    x, y = ring[:-1].T
    x1, y1 = ring[1:].T
    return abs(float((x * y1 - x1 * y).sum())) / 2


def random_outline(rng: np.random.Generator, middle: tuple[float, float], reach: float) -> NDArray[np.float64]:
    """A closed star-shaped ring of 3 to 40 corners around a place."""
    num = int(rng.integers(3, 41))
    angles = np.sort(np.linspace(0, 2 * np.pi, num, endpoint=False) + rng.uniform(0, 3 / num, num))
    radii = rng.uniform(0.4, 1.0, num) * reach
    ring = np.array(middle) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([ring, ring[:1]])


def check_areas_by_brute_force(seed: int, per_side: int) -> None:
    """One to four polygons apart from each other, with up to two holes each: shares of patches against counted points,
    and their sum over all patches against the area by the shoelace formula.
    """
    rng = np.random.default_rng(seed)
    rings, parts, area = [], [], 0.0
    for place in rng.permutation(4)[: rng.integers(1, 5)]:
        middle = 60 + 125.0 * (place % 2), 60 + 125.0 * (place // 2)
        outline = random_outline(rng, middle, 58)
        holes = []
        for _ in range(rng.integers(0, 3)):
            small = 0.1 * (random_outline(rng, (0, 0), 58))
            hole = small + middle + (12.0 * len(holes) - 6, 0.0)
            if shapely.Polygon(outline).contains(shapely.Polygon(hole)):
                holes.append(hole)
        parts.append(shapely.Polygon(outline, holes))
        area += shoelace(outline) - sum(map(shoelace, holes))
        rings += [outline, *holes]
    side = float(rng.choice([25, 50, 125]))
    coords = np.stack(np.meshgrid(np.arange(0, 250, side), np.arange(0, 250, side)), -1).reshape(-1, 2).astype(np.int64)
    shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    shares = Annotations(PolygonRegions({"a": shape}), 0.5).fractions(["a"], coords, side)[:, 0]
    assert shares.sum() * side**2 == pytest.approx(area, rel=1e-6)
    middles = (np.arange(per_side) + 0.5) * (side / per_side)
    x, y = (each.ravel() for each in np.meshgrid(middles, middles))
    counted = [within(rings, x + left, y + top).mean() for left, top in coords]
    assert np.abs(shares - counted).max() < 4 / per_side


@settings(max_examples=3)
@given(seed=st.integers(0, 10**6))
def test_areas_of_random_polygons_are_those_of_counted_points(seed: int) -> None:
    check_areas_by_brute_force(seed, 32)


@pytest.mark.slow
@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_areas_of_many_random_polygons(seed: int) -> None:
    check_areas_by_brute_force(seed, 100)


def test_the_memory_of_regions_grows_with_points_holes_and_pixels() -> None:
    square, hole = shapely.box(0, 0, 9, 9), shapely.box(2, 2, 4, 4)
    one = PolygonRegions({"a": square}).num_bytes()
    assert one > 5 * 16
    assert (
        PolygonRegions({"a": square, "b": shapely.MultiPolygon([square, shapely.box(20, 0, 29, 9)])}).num_bytes()
        == 3 * one
    )
    assert PolygonRegions({"a": square.difference(hole)}).num_bytes() == 2 * one
    assert PolygonRegions({}).num_bytes() == 0
    assert MaskRegions(np.zeros((3, 5), np.uint16), {}, 1.0, "m.png").num_bytes() == 30
