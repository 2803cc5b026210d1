"""Augmentation, to the bit as in version 0.1.0, and what is said where the student sees more than its teacher."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.first_augment import as_first_written
from support.stores import make_patches

from pipeline.cohort.views import dihedral
from pipeline.training.augment import (
    JITTER,
    Augmentation,
    augment,
    beyond_the_teacher,
    copy_pixels,
    jitter,
    leaves_alone,
)

AUGMENTATIONS: tuple[Augmentation, ...] = ("none", "flips", "flips+jitter")


@settings(max_examples=150, deadline=None)
@given(
    side=st.integers(1, 70),
    seed=st.integers(0, 2**31),
    key=st.integers(0, 2**64 - 1),
    which=st.integers(0, 7),
    noise=st.booleans(),
)
def test_pixels_are_to_the_bit_those_of_version_0_1_0(side: int, seed: int, key: int, which: int, noise: bool) -> None:
    rng = np.random.default_rng(seed)
    patch = rng.integers(0, 256, (side, side, 3), np.uint8) if noise else make_patches(1, side, seed)[0]
    key, out = key & ~7 | which, np.empty_like(patch)
    for augmentation in AUGMENTATIONS:
        before = patch.copy()
        augment(patch, key, augmentation, out)
        assert np.array_equal(out, as_first_written(patch, key, augmentation))
        assert np.array_equal(patch, before)
        assert not leaves_alone(key, augmentation) or np.array_equal(out, patch)


@pytest.mark.parametrize("key", [0, 2**64 - 1, 0x0123_4567_89AB_CDE6, 0xFEDC_BA98_7654_3213, 0x8000_7FFF_8000_7FF5])
def test_so_are_those_of_whole_patches_in_a_batch(key: int) -> None:
    patch = np.random.default_rng(key % 97).integers(0, 256, (224, 224, 3), np.uint8)
    batch = np.zeros((3, 224, 224, 3), np.uint8)
    for augmentation in AUGMENTATIONS:
        augment(patch, key, augmentation, batch[1])
        assert np.array_equal(batch[1], as_first_written(patch, key, augmentation))
    assert not batch[[0, 2]].any()


@pytest.mark.parametrize("which", range(8))
def test_means_are_summed_in_the_order_that_they_were(which: int) -> None:
    """Numbers lie in memory as `astype` laid them, on which the last digit of a mean hangs."""
    patch = np.random.default_rng(which).integers(0, 256, (224, 224, 3), np.uint8)
    turned = dihedral(patch, which)
    assert np.empty_like(turned, np.float32).strides == turned.astype(np.float32).strides


def test_turns_are_the_eight_symmetries() -> None:
    patch = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    turned = np.zeros((8, 3, 3, 3), np.uint8)
    for which in range(8):
        copy_pixels(dihedral(patch, which), turned[which])
    expected = [np.rot90(side, turns) for side in (patch, patch[:, ::-1]) for turns in range(4)]
    assert {view.tobytes() for view in turned} == {view.tobytes() for view in expected}
    assert len({view.tobytes() for view in turned}) == 8
    assert np.array_equal(turned[0], patch)


def changed(patch: NDArray[np.uint8], key: int) -> NDArray[np.int64]:
    """The patch with jitter."""
    out = np.empty_like(patch)
    jitter(patch, key, out)
    return out.astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(key=st.integers(0, 2**64 - 1), level=st.integers(0, 255))
def test_jitter_is_bounded_and_deterministic(key: int, level: int) -> None:
    patch = np.full((8, 8, 3), level, np.uint8)
    assert np.array_equal(changed(patch, key), changed(patch, key))
    # a plain patch has neither contrast nor saturation: only brightness acts
    assert np.abs(changed(patch, key) - level).max() <= JITTER * level + 1


def test_jitters_extremes_are_its_limits() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert changed(grey, 0).tolist() == np.full((4, 4, 3), 90).tolist()
    assert changed(grey, 2**64 - 1).tolist() == np.full((4, 4, 3), 110).tolist()
    half = np.concatenate([grey, grey + 40])
    low, high = changed(half, 0xFFFF << 16), changed(half, 0xFFFF << 16 | 0xFFFF << 32)  # contrast 0.9 and 1.1
    assert int(low[-1, 0, 0]) - int(low[0, 0, 0]) == pytest.approx(40 * 1.1 * 0.9, abs=1)
    assert int(high[-1, 0, 0]) - int(high[0, 0, 0]) == pytest.approx(40 * 1.1 * 1.1, abs=1)


@pytest.mark.parametrize("num_views", [1, 4])
def test_without_augmentation_there_is_nothing_to_say(num_views: int) -> None:
    assert beyond_the_teacher("none", num_views) == ""


def test_the_note_says_what_each_of_the_two_sees() -> None:
    assert beyond_the_teacher("flips", 1).startswith(
        "the student sees flips and quarter turns that the teacher did not: it saw the patch as it is. "
    )
    note = beyond_the_teacher("flips+jitter", 4)
    assert "flips, quarter turns and colour changes that" in note
    assert "it saw 4 views of each patch without them" in note


def test_an_augmentation_that_is_not_known_is_no_silence() -> None:
    with pytest.raises(KeyError):
        beyond_the_teacher("blur", 1)
