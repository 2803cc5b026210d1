"""Outlines of masks: exact there and back, simple rings, holes in their objects."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from shapely import Polygon

from pipeline.slides.annotations.outlines import mask_of, polygons_of


def check(mask: np.ndarray) -> None:
    polygons = polygons_of(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    shapes = [Polygon(outline, holes) for outline, *holes in polygons]
    assert all(shape.is_valid for shape in shapes)
    assert sum(shape.area for shape in shapes) == mask.sum()
    assert all(shape.exterior.is_ccw and not any(hole.is_ccw for hole in shape.interiors) for shape in shapes)
    rings = [ring.astype(float) for polygon in polygons for ring in polygon]
    np.testing.assert_array_equal(mask_of(rings, mask.shape), mask)
    for polygon, shape in zip(polygons, shapes, strict=True):  # each is one object: its pixels, and no other's
        alone = mask_of([ring.astype(float) for ring in polygon], mask.shape)
        assert alone.sum() == shape.area
        assert ndimage.label(alone)[1] == 1


def test_every_mask_of_three_by_three() -> None:
    for bits in product([False, True], repeat=9):
        check(np.array(bits).reshape(3, 3))


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_there_and_back(mask: np.ndarray) -> None:
    check(mask)


def test_corners_only_and_the_object_within_a_hole() -> None:
    mask = np.ones((7, 9), bool)
    mask[1:6, 1:8] = False
    mask[3, 3] = True
    (outer, hole), (inner,) = polygons_of(mask)
    assert outer.tolist() == [[0, 0], [9, 0], [9, 7], [0, 7], [0, 0]]
    assert hole.tolist() == [[1, 1], [1, 6], [8, 6], [8, 1], [1, 1]]
    assert inner.tolist() == [[3, 3], [4, 3], [4, 4], [3, 4], [3, 3]]


@pytest.mark.parametrize("shape", [(5, 4), (1, 1), (40, 30)])
def test_outlines_beyond_the_mask_and_askew_are_those_of_a_point_in_polygon_test(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.random(9)) * 2 * np.pi
        reach = rng.uniform(0.2, 1.5, 9)[:, None] * shape[0]
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach + np.array(shape[::-1]) / 2
        ring = np.concatenate([ring, ring[:1]])
        x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
        odd = np.zeros(shape, bool)
        for (x0, y0), (x1, y1) in pairwise(ring):
            odd ^= ((y0 > y) != (y1 > y)) & (x > (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        np.testing.assert_array_equal(mask_of([ring], shape), odd)
