"""Samples by class: quotas are met, larger samples contain smaller ones, and nothing but hashes decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sampling import sample_patches
from pipeline.slides.annotations.quotas import NO_CLASS, class_of_patches, class_on_top, order_by_quota, sample_by_class


def patches(number: int) -> np.ndarray:
    return np.stack([np.arange(number) % 40 * 64, np.arange(number) // 40 * 64], axis=1)


def test_a_patch_is_of_the_class_that_has_most_of_it() -> None:
    fractions = np.array([[0.6, 0.4], [0.4, 0.6], [0.5, 0.5], [0.3, 0.4], [0.9, 1.0], [0.0, 0.0]])
    assert class_of_patches(fractions, 0.5).tolist() == [0, 1, 0, NO_CLASS, 1, NO_CLASS]
    assert class_of_patches(np.zeros((3, 0)), 0.5).tolist() == [NO_CLASS] * 3


def test_of_classes_that_overlap_the_smaller_lies_on_top() -> None:
    """Tumour, and necrosis and a vessel drawn within it: whatever the order of the names."""
    tumour, necrosis, vessel = np.ones(20), np.zeros(20), np.zeros(20)
    necrosis[:6] = [1.0, 1.0, 1.0, 0.6, 0.5, 0.3]
    vessel[:2] = [1.0, 0.5]
    expected = ["v", "v", "n", "n", "n", *"t" * 15]  # half of the second shows either, and the vessel is smaller
    for names in ("tnv", "vtn", "nvt"):
        fractions = np.stack([{"t": tumour, "n": necrosis, "v": vessel}[name] for name in names], axis=1)
        assert [names[index] for index in class_on_top(fractions, 0.5)] == expected
    assert class_on_top(np.array([[0.4, 0.4, 1.0]]), 0.5).tolist() == [2]  # the others are too little to count
    assert class_on_top(np.array([[0.4, 0.3], [0.0, 0.0]]), 0.5).tolist() == [NO_CLASS] * 2
    assert class_on_top(np.zeros((3, 0)), 0.5).tolist() == [NO_CLASS] * 3


@given(st.lists(st.lists(st.integers(0, 5000), min_size=3, max_size=3), min_size=1, max_size=30), st.integers(1, 9))
def test_classes_that_do_not_overlap_are_those_that_have_most(rows: list[list[int]], tenths: int) -> None:
    shares = np.array([[a, b, max(10_000 - a - b, 0)] for a, b, _ in rows])
    is_unequal = [len(set(row)) == 3 for row in shares.tolist()]
    fractions = shares[is_unequal] / 10_000
    on_top, most = class_on_top(fractions, tenths / 10), class_of_patches(fractions, tenths / 10)
    np.testing.assert_array_equal(on_top, most)


def counts(sizes: list[int], shares: list[float], num_patches: int) -> list[int]:
    """How many patches of each class are taken, those of no class last; `sizes` likewise."""
    class_of = np.repeat([*range(len(shares)), NO_CLASS], sizes)
    taken = sample_by_class("s", patches(len(class_of)), class_of, shares, num_patches, 0)
    return [int((class_of[taken] == index).sum()) for index in [*range(len(shares)), NO_CLASS]]


@pytest.mark.parametrize(
    ("sizes", "shares", "num", "expected"),
    [
        ([500, 500, 500, 500], [1, 1, 1], 300, [100, 100, 100, 0]),
        ([500, 500, 500], [3, 1], 200, [150, 50, 0]),
        ([500, 500, 500], [0.3, 0.1], 200, [150, 50, 0]),
        ([10, 500, 500, 500], [1, 1, 1], 300, [10, 145, 145, 0]),  # what a rare class leaves, the others share
        ([10, 20, 500], [1, 1], 100, [10, 20, 70]),  # patches of no class fill up
        ([0, 20, 500], [1, 1], 100, [0, 20, 80]),
        ([10, 20, 5], [1, 9], 100, [10, 20, 5]),  # fewer than asked for: all
    ],
)
def test_quotas_are_met(sizes: list[int], shares: list[float], num: int, expected: list[int]) -> None:
    assert counts(sizes, shares, num) == expected


@given(
    st.lists(st.integers(-1, 3), min_size=1, max_size=120),
    st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    st.randoms(use_true_random=False),
)
def test_samples_nest_and_do_not_depend_on_the_order(classes: list[int], shares: list[float], rng: object) -> None:
    class_of, coords = np.array(classes), patches(len(classes))
    order = np.array(rng.sample(range(len(classes)), len(classes)))  # type: ignore[attr-defined]
    before: set[tuple[int, int]] = set()
    for number in range(len(classes) + 1):
        taken = sample_by_class("s", coords, class_of, shares, number, 3)
        chosen = {tuple(map(int, xy)) for xy in coords[taken]}
        assert len(chosen) == number
        assert before <= chosen
        assert np.all(np.diff(taken) > 0)
        other = sample_by_class("s", coords[order], class_of[order], shares, number, 3)
        assert {tuple(map(int, xy)) for xy in coords[order][other]} == chosen
        before = chosen


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5), st.integers(1, 200))
def test_a_class_with_patches_left_is_near_its_quota(shares: list[int], number: int) -> None:
    """Within one patch of number x share / sum, but for the rounding of many classes at once (Balinski and Young)."""
    class_of = np.repeat(np.arange(len(shares)), 200)
    order = order_by_quota(np.arange(len(class_of), dtype=np.uint64), class_of, shares)[:number]
    taken = np.bincount(class_of[order], minlength=len(shares))
    quotas = number * np.array(shares) / sum(shares)
    assert np.abs(taken - quotas).max() <= len(shares) / 2


def test_within_a_class_and_without_any_the_sample_is_the_uniform_one() -> None:
    coords = patches(400)
    for of_all in (0, NO_CLASS):
        taken = sample_by_class("s", coords, np.full(400, of_all), [1.0], 50, 7)
        np.testing.assert_array_equal(taken, sample_patches("s", coords, 50, 7))
    class_of = np.where(coords[:, 0] < 640, 0, 1)
    taken = sample_by_class("s", coords, class_of, [1, 1], 60, 7)
    left = coords[class_of == 0]
    np.testing.assert_array_equal(coords[taken][class_of[taken] == 0], left[sample_patches("s", left, 30, 7)])
