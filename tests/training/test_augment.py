"""What a store's views make of the default augmentation, and what is said where the student sees more."""

import pytest

from pipeline.config.stages import TrainConfig
from pipeline.training.augment import beyond_the_teacher, with_augmentation


@pytest.mark.parametrize(
    ("asked", "num_views", "expected"),
    [
        ({}, 1, "flips"),
        ({}, 4, "none"),
        ({"augment": "flips"}, 4, "flips"),  # the default's name, but asked for
        ({"augment": "flips+jitter"}, 4, "flips+jitter"),
        ({"augment": "none"}, 1, "none"),
    ],
)
def test_only_the_default_gives_way_to_views(asked: dict[str, str], num_views: int, expected: str) -> None:
    config = TrainConfig.build({"student": "s", "seed": 3, **asked})
    resolved = with_augmentation(config, num_views)
    assert resolved.augment == expected
    assert resolved.model_copy(update={"augment": config.augment}) == config  # nothing else changes
    assert with_augmentation(resolved, num_views).augment == expected


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
