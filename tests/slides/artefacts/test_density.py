"""Optical density, the coarse grid and masks on it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from pipeline.slides.artefacts.density import closed, coarse, density, grown, large_parts, opened, steps, touching

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def test_density_is_that_of_beer_and_lambert() -> None:
    pixels = np.array([[[243, 122, 0], [255, 243, 61]]], np.uint8)
    expected = np.log([[[1, 243 / 122, 243 / 0.5], [1, 1, 243 / 61]]])
    found = density(pixels, [(243.0, 243.0, 243.0), (1.0, 1.0, 1.0)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(density(pixels, []), found)  # no glass: usual white


@pytest.mark.parametrize(
    ("pixel_um", "factor"),
    [(8.0, 2), (16.0, 1), (20.0, 1), (5.0, 3), (7.99, 2), (8.08, 2), (10.6, 2), (6.0, 3), (11.0, 1)],
)
def test_the_grid_is_as_near_as_can_be_to_what_it_should_be(pixel_um: float, factor: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    grid = coarse(image, pixel_um)
    assert (grid.factor, grid.pixel_um) == (factor, pixel_um * factor)
    whole = image[: 13 // factor * factor, : 17 // factor * factor].astype(float)
    means = whole.reshape(13 // factor, factor, 17 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(grid.image - means).max() < 0.6  # Pillow rounds in whole numbers


def test_masks_go_there_and_back() -> None:
    mask = np.zeros((13, 17), bool)
    mask[4:9, 3:17] = True
    grid = coarse(np.zeros((13, 17, 3), np.uint8), 8.0)
    squares = grid.all_of(mask)
    np.testing.assert_array_equal(squares, mask[:12, :16].reshape(6, 2, 8, 2).all(axis=(1, 3)))
    back = grid.enlarged(squares, mask.shape)
    assert back.shape == mask.shape
    assert not (back & ~mask).any()
    assert back[4:8, 4:17].all()  # the last column, which no square covers, goes with its neighbours


def test_a_thumbnail_smaller_than_a_square_is_one() -> None:
    grid = coarse(np.full((1, 3, 3), 7, np.uint8), 2.0)
    assert grid.image.shape == (1, 3, 3)
    assert grid.enlarged(grid.all_of(np.ones((1, 3), bool)), (1, 3)).all()


@settings(max_examples=30, deadline=None)
@given(MASKS, st.integers(0, 4))
def test_masks_grow_close_and_open_as_scipys(mask: np.ndarray, pixels: int) -> None:
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), bool)
    wide = ndimage.binary_dilation(mask, square)
    np.testing.assert_array_equal(grown(mask, pixels), wide)
    np.testing.assert_array_equal(closed(mask, pixels), ndimage.binary_erosion(wide, square, border_value=1) | mask)
    narrow = ndimage.binary_erosion(mask, square, border_value=1)
    np.testing.assert_array_equal(opened(mask, pixels), ndimage.binary_dilation(narrow, square))


@settings(max_examples=30, deadline=None)
@given(MASKS)
def test_parts_are_followed_from_their_starts(mask: np.ndarray) -> None:
    start = np.zeros_like(mask)
    start[::3, ::3] = True
    expected = ndimage.binary_propagation(start & mask, np.ones((3, 3)), mask)
    np.testing.assert_array_equal(touching(start, mask), expected)


def test_small_parts_go() -> None:
    mask = np.zeros((9, 9), bool)
    mask[0, :3] = mask[1, 3] = mask[5:7, 5] = True
    kept = large_parts(mask, 4 * 8.0**2, 8.0)
    assert (kept.sum(), kept[:2].sum()) == (4, 4)
    assert large_parts(np.zeros((0, 4), bool), 1.0, 8.0).shape == (0, 4)


def test_lengths_are_at_least_a_pixel() -> None:
    assert [steps(um, 16.0) for um in (1, 24, 40, 100)] == [1, 2, 2, 6]
