"""Geometry: levels, boxes and grids keep their promises for any slide; area fractions equal a count of pixels."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.slides.geometry import (
    PILLOW,
    ROUNDING,
    PatchGeometry,
    area_fractions,
    choose_level,
    filled_downsamples,
    integral_image,
    patch_grid,
    readable_bounds,
    region_box,
    true_downsample,
)

# Levels


@pytest.mark.parametrize(
    ("slide_mpp", "downsamples", "target_mpp", "level"),
    [
        (0.25, (1, 4, 16), 0.5, 0),
        (0.25, (1, 2, 4, 16), 0.5, 1),
        (0.25, (1, 4, 16), 1.0, 1),
        (0.25, (1, 4, 16), 3.9, 1),
        (0.25, (1, 4, 16), 4.0, 2),
        (0.2325, (1, 4), 0.5, 0),
        (0.499, (1, 4), 0.5, 0),
        (0.503, (1, 4), 0.5, 0),  # within the 1 % that a level may be coarser
        (0.25, (1, 2.00008, 4), 0.5, 1),
        (0.25, (1, 2.03, 4), 0.5, 0),
        (0.52, (1, 4), 0.5, 0),  # enlarged by 4 %
    ],
)
def test_level(slide_mpp: float, downsamples: tuple[float, ...], target_mpp: float, level: int) -> None:
    assert choose_level(slide_mpp, downsamples, target_mpp) == level


def test_upsampling_is_only_by_choice() -> None:
    with pytest.raises(ValueError, match=r"1 um/px, coarser than the target of 0\.5: .* enlarged 2\.00 times"):
        choose_level(1.0, (1, 4), 0.5)
    assert choose_level(1.0, (1, 4), 0.5, allow_upsampling=True) == 0


@pytest.mark.parametrize(("slide_mpp", "target_mpp", "whose"), [(0.04, 0.5, "slide"), (0.5, 6, "target")])
def test_implausible_mpp(slide_mpp: float, target_mpp: float, whose: str) -> None:
    with pytest.raises(ValueError, match=f"implausible mpp .* from the {whose}"):
        choose_level(slide_mpp, (1,), target_mpp)


@settings(deadline=None)  # other work on the machine must not fail a test
@given(st.floats(0.05, 5), st.lists(st.floats(1.5, 64), max_size=6, unique=True), st.floats(0.05, 5), st.booleans())
def test_level_is_the_coarsest_fine_one(slide_mpp: float, coarser: list[float], target: float, allow: bool) -> None:
    downsamples = (1.0, *sorted(coarser))
    if slide_mpp > target * 1.05 and not allow:
        with pytest.raises(ValueError, match="coarser"):
            choose_level(slide_mpp, downsamples, target)
        return
    level = choose_level(slide_mpp, downsamples, target, allow_upsampling=allow)
    assert level == 0 or slide_mpp * downsamples[level] <= target * 1.01
    assert all(slide_mpp * d > target * 1.01 for d in downsamples[level + 1 :])


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(150, 4000), st.integers(150, 4000), st.data())
def test_true_downsample_of_rounded_levels(whole: int, width: int, height: int, data: st.DataObject) -> None:
    """Level 0 has up to `whole - 1` odd pixels a side that the level drops, or fills up."""
    drop = data.draw(st.booleans())
    odd = [data.draw(st.integers(0, whole - 1)) for _ in "xy"]
    full = tuple(n * whole + (o if drop else -o) for n, o in zip((width, height), odd, strict=True))
    assert true_downsample((full[0], full[1]), (width, height)) == whole


def test_true_downsample_that_is_not_whole() -> None:
    assert true_downsample((1000, 1000), (400, 400)) == 2.5
    assert true_downsample((1000, 900), (400, 361)) == pytest.approx((2.5 + 900 / 361) / 2)
    assert true_downsample((100, 100), (300, 300)) == pytest.approx(1 / 3)  # no slide; but no division by zero


def filled_up(full: int, halvings: int, tile: int) -> int:
    """Pixels of a side that is halved and then filled up to whole tiles."""
    return (
        -(-full // 2**halvings // tile) * tile if full % 2**halvings == 0 else -(-full // (tile * 2**halvings)) * tile
    )


@given(st.integers(64, 600), st.integers(64, 600), st.sampled_from([1, 2]), st.sampled_from([(256, 256), (512, 128)]))
def test_filled_downsamples(across: int, down: int, step: int, tile: tuple[int, int]) -> None:
    """Of all levels down to a few tiles, unless each side of each was a whole number of tiles, or both are filled up
    alike: then nothing shows it.
    """
    full = across * tile[0], down * tile[1]
    sizes = [
        (filled_up(full[0], halvings, tile[0]), filled_up(full[1], halvings, tile[1])) for halvings in range(0, 5, step)
    ]
    known = filled_downsamples(sizes, [tile] * len(sizes))
    if any(known):
        assert known == tuple(2.0**halvings for halvings in range(0, 5, step))
    else:
        assert all(abs(full[0] / w / (full[1] / h) - 1) < 0.01 for w, h in sizes)


def test_a_level_of_the_last_tile_continues_the_levels_before_it() -> None:
    sizes = [(98 * 256, 70 * 256), (49 * 256, 35 * 256), *((w * 256, h * 256) for w, h in [(25, 18), (13, 9), (7, 5)])]
    sizes += [(4 * 256, 3 * 256), (2 * 256, 2 * 256), (256, 256)]
    tiles = [(256, 256)] * len(sizes)
    assert filled_downsamples(sizes, tiles) == (1, 2, 4, 8, 16, 32, 64, 128)
    assert filled_downsamples([sizes[0], sizes[-1]], tiles[:2]) == (None, None)  # of 128, 256 or more


@pytest.mark.parametrize(
    "sizes",
    [
        [(2600, 2400), (650, 600)],
        [(2600, 2400), (1024, 945)],
        [(15_000, 15_000), (1024, 1024)],  # of whole tiles by chance
        [(4000, 3000), (1000, 740)],  # out of proportion, and of no whole tiles
    ],
)
def test_levels_that_are_not_filled_up(sizes: list[tuple[int, int]]) -> None:
    assert filled_downsamples(sizes, [(256, 256)] * 2) == (None, None)
    assert filled_downsamples([(7744, 7680), (3904, 3840)], [None, None]) == (None, None)


# Boxes and grids

mpps = st.sampled_from([0.2325, 0.25, 0.2501, 0.4990, 0.5, 0.503, 1.0]) | st.floats(0.1, 1.5)
downsamples_ = st.sampled_from([1.0, 2.0, 4.0, 16.0]) | st.floats(1, 40)


@st.composite
def geometries(draw: st.DrawFn) -> PatchGeometry:
    return PatchGeometry(draw(st.integers(16, 600)), draw(mpps), draw(mpps), 0, draw(downsamples_))


@settings(deadline=None)
@given(geometries(), st.integers(0, 200_000), st.integers(0, 200_000))
def test_box_is_the_patch(geometry: PatchGeometry, x: int, y: int) -> None:
    box = region_box(x, y, geometry)
    left, top, right, bottom = box.box_level_px
    assert right - left == pytest.approx(geometry.patch_level_px, abs=2.1 * ROUNDING)
    assert bottom - top == pytest.approx(geometry.patch_level_px, abs=2.1 * ROUNDING)
    for corner, low, position in zip(box.corner_level_px, (left, top), (x, y), strict=True):
        assert 0 <= low < 1
        assert (corner + low) * geometry.downsample == pytest.approx(position, abs=1.1 * ROUNDING * geometry.downsample)
    assert box.size_level_px == (math.ceil(right), math.ceil(bottom))  # no pixel too few or too many
    if box.is_exact(geometry.patch_px):
        assert geometry.patch_level_px == pytest.approx(geometry.patch_px, abs=2 * ROUNDING)


@pytest.mark.parametrize(
    ("x", "target_mpp", "downsample", "exact"),
    [(8, 1.0, 4.0, True), (8, 0.25, 1.0, True), (9, 1.0, 4.0, False), (8, 1.01, 4.0, False), (0, 0.5, 1.0, False)],
)
def test_exact_box(x: int, target_mpp: float, downsample: float, exact: bool) -> None:
    assert region_box(x, 40, PatchGeometry(224, target_mpp, 0.25, 0, downsample)).is_exact(224) is exact


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 500)] * 2, *[st.integers(0, 3000)] * 2), st.floats(16, 700), st.floats(0.2, 900))
def test_grid(bounds: tuple[int, int, int, int], patch: float, stride: float) -> None:
    assume(max(bounds[2:]) / stride < 300)
    grid = patch_grid(bounds, patch, stride)
    assert grid.dtype == np.int64
    assert grid.shape == (len(grid), 2)
    assert len(np.unique(grid, axis=0)) == len(grid)
    order = np.lexsort((grid[:, 0], grid[:, 1]))
    np.testing.assert_array_equal(order, np.arange(len(grid)))  # reading order
    num_expected = 1
    for axis in range(2):
        start, length = bounds[axis], bounds[axis + 2]
        values = np.unique(grid[:, axis])
        assert (values >= start).all()
        assert (values + patch <= start + length + 2 * ROUNDING).all()
        if stride >= 1:
            multiples = start + np.arange(len(values)) * stride
            assert (np.abs(values - multiples) <= 0.5).all()  # never drifts
        fitting = Fraction(length) - Fraction(patch)
        count = math.floor(fitting / Fraction(stride)) + 1 if fitting >= 0 else 0
        if stride >= 1 and len(grid):
            assert count - len(values) in (0, 1)  # the last one may be rounded out of the bounds
        num_expected *= len(values)
    assert len(grid) == num_expected


def test_grid_counts() -> None:
    assert len(patch_grid((0, 0, 896, 448), 448, 448)) == 2
    assert len(patch_grid((0, 0, 895, 448), 448, 448)) == 1
    assert len(patch_grid((0, 0, 447, 448), 448, 448)) == 0
    assert patch_grid((3, 5, 1200, 500), 448.9, 448.9).tolist() == [[3, 5], [452, 5]]


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.sampled_from([1.0, 4.0, 16.0, 2.5, 4.0063]),
    st.integers(300, 2000),
    st.integers(300, 2000),
    mpps,
    st.integers(16, 300),
)
def test_patches_of_the_grid_lie_in_the_level(
    downsample: float, width: int, height: int, slide_mpp: float, patch_px: int
) -> None:
    size = (int(width // downsample), int(height // downsample))
    geometry = PatchGeometry(patch_px, 0.5, slide_mpp, 0, downsample)
    bounds = readable_bounds((7, 0, width - 7, height), size, downsample)
    assert bounds[0] + bounds[2] <= size[0] * downsample + ROUNDING
    for x, y in patch_grid(bounds, geometry.patch_l0_px, geometry.patch_l0_px):
        box = region_box(int(x), int(y), geometry)
        for corner, extent, full in zip(box.corner_level_px, box.size_level_px, size, strict=True):
            assert corner >= 0
            assert corner + extent <= full


# Tissue fractions

masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@settings(deadline=None)
@given(masks, st.integers(1, 7), st.integers(1, 40), st.data())
def test_area_fractions_equal_a_count_of_pixels(
    mask: np.ndarray, mask_l0_px: int, patch: int, data: st.DataObject
) -> None:
    height, width = (side * mask_l0_px for side in mask.shape)
    coords = data.draw(
        hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.just(2)), elements=st.integers(0, max(height, width)))
    )
    full = np.zeros((2 * max(height, width) + patch,) * 2, bool)
    full[:height, :width] = mask.repeat(mask_l0_px, 0).repeat(mask_l0_px, 1)
    expected = [full[y : y + patch, x : x + patch].mean() for x, y in coords]
    got = area_fractions(integral_image(mask), coords, patch, mask_l0_px)
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_a_patch_all_on_tissue_has_exactly_one() -> None:
    mask = np.ones((3000, 5000), bool)
    coords = np.random.default_rng(0).integers(0, 40_000, (2000, 2))
    fractions = area_fractions(integral_image(mask), coords, 448.3, 32.03)
    assert (fractions[coords.max(axis=1) < 90_000] == 1).all()


@settings(deadline=None)
@given(masks)
def test_integral_image(mask: np.ndarray) -> None:
    table = integral_image(mask)
    for r in range(mask.shape[0] + 1):
        for c in range(mask.shape[1] + 1):
            assert table[r, c] == mask[:r, :c].sum()


def test_half_is_a_level_of_twice_the_downsample() -> None:
    full = PatchGeometry(224, 0.5, 0.2467, 0, 1.0)
    half, coarser = replace(full, decode="half"), replace(full, downsample=2.0)
    assert (half.patch_level_px, half.patch_read_px) == (full.patch_level_px, coarser.patch_level_px)
    for x, y in ((0, 0), (454, 908), (455, 909)):
        assert region_box(x, y, half) == region_box(x, y, coarser)
    assert half.reduced_by("lanczos-torch").resampling == "lanczos-torch"
    enlarged = replace(half, slide_mpp=0.2521)
    assert enlarged.reduced_by("lanczos-torch").resampling == PILLOW
    assert (full.record(), half.record()) == (full.record(), full.record() | {"decode": "half"})


@pytest.mark.parametrize(("slide_mpp", "can"), [(0.2467, True), (0.25, True), (0.2525, True), (0.2526, False)])
def test_half_is_fine_enough_by_the_rule_of_levels(slide_mpp: float, can: bool) -> None:
    assert PatchGeometry(224, 0.5, slide_mpp, 0, 1.0).is_halvable == can
    assert (choose_level(slide_mpp, (1.0, 2.0), 0.5) == 1) == can


@pytest.mark.parametrize("stride", [1.7, 448.0, 453.9, 223.1])
def test_corners_of_half_are_even(stride: float) -> None:
    bounds = (0, 0, 460, 470) if stride < 2 else (0, 0, 3001, 2001)
    fine, even = patch_grid(bounds, 453.9, stride), patch_grid(bounds, 453.9, stride, 2)
    assert (even % 2 == 0).all()
    assert len(np.unique(even, axis=0)) == len(even)
    assert (even + 453.9 <= np.array(bounds[2:]) + ROUNDING).all()
    if stride > 2:
        columns, of_even = np.unique(fine[:, 0]), np.unique(even[:, 0])
        assert np.abs(columns[: len(of_even)] - of_even).max() <= 1.5
