"""The median filter: scipy's, to the bit, at the edges too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from pipeline.slides import median
from pipeline.slides.median import Network, column_network, median_filter, square_network

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
FLOATS = st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 1.0])
BYTES = st.integers(0, 255) | st.sampled_from([0, 243, 255])


def plain(image: np.ndarray, side: int) -> np.ndarray:
    return ndimage.median_filter(image, (side, side, *(1,) * (image.ndim - 2)), mode="nearest")


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, SHAPES, elements=FLOATS), st.sampled_from([1, 3, 5, 7, 9, 11]))
def test_saturations_are_filtered_as_by_scipy(image: np.ndarray, side: int) -> None:
    """Squares that are wider than the image, too."""
    filtered = median_filter(image, side)
    assert filtered.dtype == image.dtype
    np.testing.assert_array_equal(filtered.view(np.uint32), plain(image, side).view(np.uint32))


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.uint8, SHAPES.map(lambda s: (*s, 3)), elements=BYTES), st.sampled_from([1, 3, 5, 7, 9, 11]))
def test_colours_are_filtered_channel_by_channel(image: np.ndarray, side: int) -> None:
    before = image.copy()
    np.testing.assert_array_equal(median_filter(image, side), plain(image, side))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("values", [1, 100, 1000, 2**15])
def test_strips_do_not_show(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(median, "STRIP_VALUES", values)
    image = np.random.default_rng(0).random((67, 91), np.float32)
    np.testing.assert_array_equal(median_filter(image, 7), plain(image, 7))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_columns_are_sorted(count: int) -> None:
    """By the zero-one principle all inputs of zeros and ones decide (Knuth, volume 3, 5.3.4)."""
    inputs = np.array([[case >> bit & 1 for case in range(2**count)] for bit in range(count)], np.uint8)
    network = Network(count)
    wires = list(range(count))
    network.sort(wires)
    np.testing.assert_array_equal(network.finish(wires).run(list(inputs)), np.sort(inputs, axis=0))


@pytest.mark.parametrize("side", [3, 5, 7, 9])
def test_the_median_of_sorted_columns(side: int) -> None:
    """All inputs of zeros and ones: a sorted column is told by its number of ones."""
    rng = np.random.default_rng(side)
    ones = rng.integers(0, side + 1, (side, 50_000)) if side > 5 else np.indices((side + 1,) * side).reshape(side, -1)
    rows = [(ones >= side - row).astype(np.uint8) for row in range(side)]  # row 0 has the columns' smallest values
    (middle,) = square_network(side).run([row[column] for row in rows for column in range(side)])
    np.testing.assert_array_equal(middle, ones.sum(axis=0) > side * side // 2)


def test_networks_hold_no_idle_step() -> None:
    for network in (column_network(5), square_network(5)):
        used = {wire for _, first, second, _ in network.steps for wire in (first, second)} | set(network.outputs)
        assert {made for *_, made in network.steps} <= used
