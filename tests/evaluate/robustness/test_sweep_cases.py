"""Draws of test cases, against all sets of cases that fit, listed."""

import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.robustness.sweep_cases import CaseDraw


def all_sets(classes_of: dict[str, list[int]], num_classes: int, times: int, most: int | None) -> set[frozenset[str]]:
    """As PathoROB lists them: every subset, if it has so many cases of each class."""
    sizes = range(len(classes_of) + 1 if most is None else min(most, len(classes_of)) + 1)
    subsets = (frozenset(chosen) for size in sizes for chosen in combinations(classes_of, size))
    return {
        chosen
        for chosen in subsets
        if all(sum(label in classes_of[case] for case in chosen) == times for label in range(num_classes))
    }


cases = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2),
    st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    max_size=8,
)


@given(cases, st.integers(1, 3), st.none() | st.integers(1, 4), st.integers(0, 9))
def test_the_sets_are_those_that_fit(classes_of: dict[str, list[int]], times: int, most: int | None, seed: int) -> None:
    expected = all_sets(classes_of, 3, times, most)
    draw = CaseDraw(classes_of, 3, times, most)
    assert draw.num_sets == len(expected)
    if expected:
        assert draw.draw(random.Random(seed)) in expected
        assert draw.draw(random.Random(seed)) == draw.draw(random.Random(seed))
    else:
        with pytest.raises(AssertionError, match="no such set"):
            draw.draw(random.Random(seed))


def test_all_sets_are_equally_likely() -> None:
    classes_of = {"a": [0], "b": [0, 1], "c": [1], "d": [0, 1], "e": [0], "f": [1]}
    expected = all_sets(classes_of, 2, 2, None)
    draw, generator = CaseDraw(classes_of, 2, 2, None), random.Random(0)
    drawn = Counter(draw.draw(generator) for _ in range(400 * len(expected)))
    assert set(drawn) == expected
    assert max(abs(number - 400) for number in drawn.values()) < 100  # five standard deviations of 20


def test_the_order_of_the_cases_does_not_matter() -> None:
    classes_of = {f"{i}": [i % 2] for i in range(9)}
    back = dict(reversed(classes_of.items()))
    assert [CaseDraw(of, 2, 3, None).draw(random.Random(4)) for of in (classes_of, back)] in [
        [chosen, chosen] for chosen in all_sets(classes_of, 2, 3, None)
    ]


def test_many_cases_are_no_matter() -> None:
    """Sets that nobody could list: 500 cases of each of two classes."""
    draw = CaseDraw({f"{i}": [i % 2] for i in range(1000)}, 2, 16, None)
    assert draw.num_sets > 10**50
    assert len(draw.draw(random.Random(0))) == 32
