"""What is said where the student sees more than its teacher did."""

import pytest

from pipeline.training.augment import beyond_the_teacher


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
