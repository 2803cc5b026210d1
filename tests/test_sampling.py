"""Sampling: uniform, nested, the same everywhere; splits that keep their distance."""

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.sampling import GAP, TRAIN, VAL, patch_keys, rank_slides, sample_patches, split_strip

GRID = np.stack([a.ravel() for a in np.meshgrid(np.arange(40) * 448, np.arange(30) * 448)], axis=1)


def splitmix(value: int) -> int:
    """The finaliser as Steele, Lea and Flood print it, in whole numbers."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def reference_key(slide_id: str, x: int, y: int, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}\0{slide_id}".encode()).digest()
    a, b = (int.from_bytes(digest[i : i + 8], "little") for i in (0, 8))
    return splitmix((splitmix(x ^ a) + (y ^ b)) % 2**64)


@settings(deadline=None)  # other work on the machine must not fail a test
@given(st.text(max_size=20), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**31))
def test_keys_equal_whole_number_arithmetic(slide_id: str, x: int, y: int, seed: int) -> None:
    assert patch_keys(slide_id, np.array([[x, y]]), seed)[0] == reference_key(slide_id, x, y, seed)


def test_keys_never_change() -> None:
    """A plan made years ago must come out again."""
    keys = patch_keys("slide", np.array([[0, 0], [448, 0], [0, 448]]), 0)
    assert [hex(key) for key in keys] == ["0xadd1fb7c40486011", "0xae95d60e80e74dbc", "0x3be65db8fb5ffb62"]


@settings(deadline=None)
@given(st.integers(0, 1300), st.integers(0, 1300), st.integers(0, 9))
def test_samples_nest_and_are_in_reading_order(a: int, b: int, seed: int) -> None:
    small, large = (sample_patches("s", GRID, n, seed) for n in sorted((a, b)))
    assert len(small) == min(a, b, len(GRID))
    assert set(small) <= set(large)
    assert (np.diff(small) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_sample_is_of_places_not_of_indices(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(GRID))
    shuffled = GRID[order]
    expected = {tuple(xy) for xy in GRID[sample_patches("s", GRID, 50, 3)]}
    assert {tuple(xy) for xy in shuffled[sample_patches("s", shuffled, 50, 3)]} == expected


def test_sample_is_uniform() -> None:
    """Every place is taken as often as any other, whatever the slide; and pairs of neighbours as often as chance has
    it."""
    num_slides, num = 600, 300
    hits = np.zeros(len(GRID), int)
    pairs = 0
    for i in range(num_slides):
        taken = np.zeros(len(GRID), bool)
        taken[sample_patches(f"slide-{i}", GRID, num, seed=0)] = True
        hits += taken
        field = taken.reshape(30, 40)
        pairs += int((field[:, 1:] & field[:, :-1]).sum() + (field[1:] & field[:-1]).sum())
    assert hits.sum() == num_slides * num
    share = num / len(GRID)
    # without replacement within a slide: a place's count is binomial
    chi_square = ((hits - num_slides * share) ** 2 / (num_slides * share * (1 - share))).sum()
    assert 0.001 < stats.chi2.sf(chi_square, len(GRID) - 1) < 0.999
    num_pairs = 30 * 39 + 29 * 40
    expected = num_slides * num_pairs * share * (num - 1) / (len(GRID) - 1)
    assert pairs == pytest.approx(expected, rel=0.01)


def test_seed_and_slide_change_the_sample() -> None:
    base = set(sample_patches("a", GRID, 100, 0))
    for other in (sample_patches("a", GRID, 100, 1), sample_patches("b", GRID, 100, 0)):
        assert len(base & set(other)) < 30  # 8 by chance


def test_no_patches() -> None:
    assert len(sample_patches("a", np.zeros((0, 2), np.int64), 10, 0)) == 0
    np.testing.assert_array_equal(sample_patches("a", GRID, None, 0), np.arange(len(GRID)))
    assert len(split_strip(np.zeros((0, 2), np.int64), 448, 0.2)) == 0


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=30), st.integers(0, 5), st.randoms())
def test_ranks_of_slides(ids: list[str], seed: int, rng: random.Random) -> None:
    ranked = rank_slides(ids, seed)
    assert rank_slides(rng.sample(ids, len(ids)), seed) == ranked
    assert rank_slides([*ids, "one more slide"], seed) == rank_slides(["one more slide", *ids], seed)
    assert [i for i in rank_slides([*ids, "one more slide"], seed) if i != "one more slide"] == ranked


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)), min_size=1, max_size=80),
    st.floats(1, 900),
    st.floats(0.01, 0.99),
)
def test_strip_keeps_a_patch_width(coords: list[tuple[int, int]], patch: float, fraction: float) -> None:
    xy = np.array(coords, np.int64)
    split = split_strip(xy, patch, fraction)
    axis = int(np.argmax(np.ptp(xy, axis=0)))
    train, val = xy[split == TRAIN][:, axis], xy[split == VAL][:, axis]
    assert len(val)
    assert set(split) <= {TRAIN, VAL, GAP}
    for corner in train:  # from edge to edge, on whichever side
        assert max(val.min() - (corner + patch), corner - (val.max() + patch)) >= patch - 1e-6
    middle = np.median(xy[:, axis])
    assert val.min() <= middle <= val.max()


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_strip_has_about_its_fraction(fraction: float) -> None:
    split = split_strip(GRID, 448, fraction)
    assert (split == VAL).mean() == pytest.approx(fraction, abs=2 / 40)  # two columns of 40
    assert (split == GAP).mean() == pytest.approx(2 / 40)
    assert (split[:5] == TRAIN).all()  # both ends are trained on
    assert (split[-5:] == TRAIN).all()
    assert (split_strip(GRID[:, ::-1], 448, fraction) == split).all()  # along the longer side
