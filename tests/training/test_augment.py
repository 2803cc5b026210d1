"""Augmentation: of earlier runs to the bit, of new ones in whole numbers; what is said where the student sees more."""

import hashlib
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.first_augment import as_first_written, jitter_as_first_written
from support.stores import make_patches

from pipeline.cohort.views.views import dihedral
from pipeline.training.augment import (
    JITTER,
    Augmentation,
    augment,
    beyond_the_teacher,
    copy_pixels,
    drawn_factors,
    jitter_in_floats,
    jitter_whole,
    makes_the_same,
    mean_level,
    opencv_here,
    turn,
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
    key = key & ~7 | which
    for augmentation in AUGMENTATIONS:
        expected = as_first_written(patch, key, augmentation)
        augment(seen := patch.copy(), key, augmentation, in_floats=True)
        assert np.array_equal(seen, expected)
        augment(seen := patch.copy(), key, augmentation)
        assert augmentation == "flips+jitter" or np.array_equal(seen, expected)


@pytest.mark.parametrize("key", [0, 2**64 - 1, 0x0123_4567_89AB_CDE6, 0xFEDC_BA98_7654_3213, 0x8000_7FFF_8000_7FF5])
def test_so_are_those_of_whole_patches_in_a_batch(key: int) -> None:
    patch = np.random.default_rng(key % 97).integers(0, 256, (224, 224, 3), np.uint8)
    batch = np.zeros((3, 224, 224, 3), np.uint8)
    for augmentation in AUGMENTATIONS:
        batch[1] = patch
        augment(batch[1], key, augmentation, in_floats=True)
        assert np.array_equal(batch[1], as_first_written(patch, key, augmentation))
        batch[1] = patch
        augment(batch[1], key, augmentation)
        assert largest_difference(batch[1], as_first_written(patch, key, augmentation)) <= 1
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


def largest_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    """In grey levels."""
    return int(np.abs(first.astype(np.int64) - second).max())


Jitter = Callable[[NDArray[np.uint8], int, NDArray[np.uint8]], None]
BOTH = pytest.mark.parametrize("jitter", [jitter_whole, jitter_in_floats])
CORNERS = [
    0,
    2**64 - 1,
    *(0xFFFF << bit for bit in (16, 32, 48)),
    *(0xFFFFFFFF << bit for bit in (16, 32)),
    0xFFFF << 16 | 0xFFFF << 48,
]
"""Keys of the smallest and the largest change of brightness, contrast and saturation, in all ways."""


def changed(jitter: Jitter, patch: NDArray[np.uint8], key: int) -> NDArray[np.int64]:
    """The patch with jitter."""
    out = np.empty_like(patch)
    jitter(patch, key, out)
    return out.astype(np.int64)


def in_long_numbers(patch: NDArray[np.uint8], key: int) -> NDArray[np.uint8]:
    """What `jitter_whole` is to give, a pixel at a time as its sum is written, in numbers that nothing can overflow."""
    brightness, contrast, saturation = drawn_factors(key)
    gain, x = brightness * contrast, patch.astype(np.int64)
    level = round(512 * (saturation * gain - 1))
    rest = gain - 1 - level / 512
    constant = 128 * (gain - 1) + brightness * (1 - contrast) * (int(x.sum()) / x.size)
    rounding = round(512 * (constant - math.floor(constant) + 0.5 + rest / 2))
    luma = (((x - 128) * (77, 150, 29)).sum(axis=-1, keepdims=True) // 256) * round(512 * rest) + rounding
    changes = ((x - 128) * level + luma) // 512 + math.floor(constant)
    return np.clip(x + changes, 0, 255).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(side=st.integers(1, 40), seed=st.integers(0, 2**31), key=st.integers(0, 2**64 - 1), kind=st.integers(0, 2))
def test_whole_numbers_are_within_a_grey_level_of_float32(side: int, seed: int, key: int, kind: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (side, side, 3), np.uint8)
    patch = (make_patches(1, side, seed)[0], noise, noise // 128 * np.uint8(255))[kind]
    out = changed(jitter_whole, patch, key).astype(np.uint8)
    assert np.array_equal(out, in_long_numbers(patch, key))
    assert largest_difference(out, jitter_as_first_written(patch, key)) <= 1


@pytest.mark.parametrize("key", CORNERS)
def test_nothing_overflows_in_16_bits(key: int) -> None:
    """Every colour of black, white and full channels, in patches that are black, white or mixed otherwise."""
    colours = np.array(np.meshgrid(*[(0, 127, 128, 255)] * 3), np.uint8).reshape(3, 64).T
    for rest in (0, 77, 128, 255):
        patch = np.full((16, 16, 3), rest, np.uint8)
        patch.reshape(-1, 3)[:64] = colours
        out = changed(jitter_whole, patch, key).astype(np.uint8)
        assert np.array_equal(out, in_long_numbers(patch, key))
        assert largest_difference(out, jitter_as_first_written(patch, key)) <= 1


def test_means_of_more_rows_than_fit_into_16_bits_are_exact() -> None:
    levels = np.full((300, 300, 3), 255, np.int16)
    assert mean_level(levels) == 255
    levels[:, :7] = np.random.default_rng(0).integers(0, 256, (300, 7, 3))
    assert mean_level(levels) == int(levels.sum(dtype=np.int64)) / levels.size


def test_whole_numbers_are_the_same_on_every_machine() -> None:
    """The digest that was computed where they were written: no sum in it hangs on a processor or a library."""
    patch = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3)
    patch = ((patch * 2654435761) >> np.uint32(24)).astype(np.uint8)
    digest = hashlib.sha256()
    for key in [*CORNERS, 0x0123_4567_89AB_CDE6, 0xFEDC_BA98_7654_3213]:
        digest.update(changed(jitter_whole, patch, key).astype(np.uint8).tobytes())
    assert digest.hexdigest() == "9f06a1e3dd34f55502144de56a0311c72344110d5859db43e97cfcb7abfaa234"


@pytest.fixture
def looked_up_again() -> Iterator[None]:
    """OpenCV is looked for within the test, and again after it."""
    opencv_here.cache_clear()
    yield
    opencv_here.cache_clear()


@settings(max_examples=200, deadline=None)
@given(
    side=st.integers(1, 70),
    seed=st.integers(0, 2**31),
    key=st.integers(0, 2**64 - 1) | st.sampled_from(CORNERS),
    kind=st.integers(0, 2),
    augmentation=st.sampled_from(AUGMENTATIONS),
)
def test_opencv_makes_the_pixels_that_numpy_makes(
    side: int, seed: int, key: int, kind: int, augmentation: Augmentation
) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (side, side, 3), np.uint8)
    patch = (make_patches(1, side, seed)[0], noise, noise // 128 * np.uint8(255))[kind]
    key, batch = key ^ seed % 8, np.full((3, side, side, 3), 7, np.uint8)
    assert opencv_here() is not None, "installed for the tests"
    batch[1] = patch
    augment(batch[1], key, augmentation)
    with pytest.MonkeyPatch.context() as without:
        without.setattr("pipeline.training.augment.opencv_here", lambda: None)
        augment(patch, key, augmentation)
    assert np.array_equal(batch[1], patch)
    assert (batch[[0, 2]] == 7).all()


def test_it_does_so_in_whole_patches() -> None:
    """Where a processor takes many numbers at once; of each turn."""
    patch = np.random.default_rng(5).integers(0, 256, (224, 224, 3), np.uint8)
    for which in range(8):
        key = 0x9E37_79B9_7F4A_7C10 * (which + 1) % 2**64 & ~7 | which
        augment(seen := patch.copy(), key, "flips+jitter")
        jitter_whole(dihedral(patch, which), key, expected := np.empty_like(patch))
        assert np.array_equal(seen, expected)
        turn(turned := patch.copy(), which, opencv_here())
        assert np.array_equal(turned, dihedral(patch, which))


@pytest.mark.usefixtures("looked_up_again")
def test_threads_augment_at_once_in_patches_of_two_sizes() -> None:
    rng = np.random.default_rng(5)
    patches = [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (224, 96) * 64]
    keys = rng.integers(0, 2**63, len(patches)).tolist()
    alone = [patch.copy() for patch in patches]
    for patch, key in zip(alone, keys, strict=True):
        augment(patch, key, "flips+jitter")
    for _ in range(5):
        together = [patch.copy() for patch in patches]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda patch, key: augment(patch, key, "flips+jitter"), together, keys))
        assert all(map(np.array_equal, together, alone))


def test_without_opencv_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert opencv_here() is None
    patch = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    augment(out := patch.copy(), 5, "flips")
    assert np.array_equal(out, dihedral(patch, 5))


@pytest.mark.usefixtures("looked_up_again")
def test_a_module_that_is_not_opencv_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(error=ZeroDivisionError))
    assert opencv_here() is None


@pytest.mark.usefixtures("looked_up_again")
def test_nor_is_one_without_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name, as an uninstallation may leave it."""
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace())
    assert opencv_here() is None


@pytest.mark.parametrize("which", range(8))
def test_memory_in_any_order_is_taken(which: int) -> None:
    patch = np.random.default_rng(9).integers(0, 256, (20, 20, 3), np.uint8)
    key = 0x9E37_79B9_7F4A_7C10 & ~7 | which
    augment(expected := patch.copy(), key, "flips+jitter")
    by_column, beside_others = patch.transpose(1, 0, 2).copy().transpose(1, 0, 2), np.empty((40, 20, 3), np.uint8)[::2]
    beside_others[:] = patch
    for seen in (np.asfortranarray(patch), by_column, beside_others):
        augment(seen, key, "flips+jitter")
        assert np.array_equal(seen, expected)


@pytest.mark.parametrize("what", ["flip", "transpose", "transform", "sumElems", "addWeighted"])
def test_a_version_that_makes_other_pixels_is_found(what: str) -> None:
    opencv = opencv_here()

    def a_little_off(*args: Any, dst: Any = None, **named: Any) -> Any:
        made = getattr(opencv, what)(*args, **named)
        if what == "sumElems":
            return made[0] + 4000, *made[1:]
        made.reshape(-1)[-1:] ^= 0x40
        if dst is None:
            return made
        dst[:] = made
        return dst

    names = ("flip", "transpose", "transform", "sumElems", "addWeighted")
    other = SimpleNamespace(**{name: getattr(opencv, name) for name in names} | {what: a_little_off})
    assert makes_the_same(SimpleNamespace(**{name: getattr(opencv, name) for name in names}))
    assert not makes_the_same(other)


def test_factors_of_one_change_nothing() -> None:
    patch = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(changed(jitter_whole, patch, 0x7FFF_7FFF_7FFF_0000), patch)


@BOTH
@settings(max_examples=60, deadline=None)
@given(key=st.integers(0, 2**64 - 1), level=st.integers(0, 255))
def test_jitter_is_bounded_and_deterministic(jitter: Jitter, key: int, level: int) -> None:
    patch = np.full((8, 8, 3), level, np.uint8)
    assert np.array_equal(changed(jitter, patch, key), changed(jitter, patch, key))
    # a plain patch has neither contrast nor saturation: only brightness acts
    assert np.abs(changed(jitter, patch, key) - level).max() <= JITTER * level + 1


@BOTH
def test_jitters_extremes_are_its_limits(jitter: Jitter) -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert changed(jitter, grey, 0).tolist() == np.full((4, 4, 3), 90).tolist()
    assert changed(jitter, grey, 2**64 - 1).tolist() == np.full((4, 4, 3), 110).tolist()
    half = np.concatenate([grey, grey + 40])
    keys = 0xFFFF << 16, 0xFFFF << 16 | 0xFFFF << 32  # contrast 0.9 and 1.1
    low, high = (changed(jitter, half, key) for key in keys)
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
