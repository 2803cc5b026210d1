"""Classes of patches: taken along, read back, refused when damaged."""

import numpy as np
import pytest

from pipeline.slides.annotations.patch_classes import PatchClasses, checked_classes
from pipeline.slides.annotations.quotas import class_of_patches

CLASSES = PatchClasses(("a", "b"), np.array([[0.25, 0.5], [1, 0], [0, 0.125]], np.float32))


def test_columns_by_name_and_rows_by_number_or_mask() -> None:
    assert CLASSES.of(["b", "c", "a"]).tolist() == [[0.5, 0, 0.25], [0, 0, 1], [0.125, 0, 0]]
    assert CLASSES.of([]).shape == (3, 0)
    assert CLASSES.take(np.array([2, 0])).fractions.tolist() == [[0, 0.125], [0.25, 0.5]]
    assert CLASSES.take(np.array([False, True, False])).names == ("a", "b")


def test_a_share_is_compared_as_the_decimals_that_it_has() -> None:
    """Each of the 10,001 shares that there are is not less than itself, as a number of an option."""
    shares = [number / 10_000 for number in range(10_001)]
    stored = PatchClasses(("a",), np.array(shares, np.float32)[:, None])
    assert stored.of(["a"])[:, 0].tolist() == shares
    assert class_of_patches(stored.of(["a"])[9000:9001], 0.9).tolist() == [0]


def test_the_content_is_names_and_numbers() -> None:
    again = checked_classes(["a", "b"], CLASSES.fractions.copy(), 3)
    assert again.content() == CLASSES.content()
    others = [PatchClasses(("a", "c"), CLASSES.fractions), PatchClasses(("a", "b"), CLASSES.fractions[::-1])]
    assert all(other.content() != CLASSES.content() for other in others)


@pytest.mark.parametrize(
    ("names", "fractions"),
    [
        ("ab", CLASSES.fractions),
        (["a", 1], CLASSES.fractions),
        (["a"], CLASSES.fractions),
        (["a", "b"], CLASSES.fractions[:2]),
        (["a", "b"], CLASSES.fractions.astype(np.float64)),
    ],
)
def test_what_is_damaged_is_refused(names: object, fractions: np.ndarray) -> None:
    with pytest.raises(ValueError, match="class"):
        checked_classes(names, fractions, 3)
