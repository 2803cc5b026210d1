"""The points of a learning curve: halves by default, and as many steps as the whole."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.study.points import Cohort, numbers_of, points_of, settings_of, with_a_batch

COHORTS = (Cohort((100, 50, 100, 50, 100, 100, 100, 200)), Cohort((200, 100, 100, 100, 50, 50, 100, 100)))


def test_by_default_each_number_is_half_of_the_next() -> None:
    assert numbers_of(None, 100, "--slides") == [6, 12, 25, 50, 100]
    assert numbers_of(None, 6, "--slides") == [1, 2, 3, 6]
    assert numbers_of(" 8,2, 4,4", 8, "--slides") == [2, 4, 8]


@pytest.mark.parametrize(("text", "words"), [("4,x", "whole numbers"), ("0,4", "from 1"), ("4,9", "there are 8")])
def test_numbers_that_cannot_be_had_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        numbers_of(text, 8, "--slides")


def test_rows_are_counted() -> None:
    assert [COHORTS[0].num_rows(*of) for of in ((None, None), (2, None), (2, 60), (None, 10))] == [800, 150, 110, 80]


@pytest.mark.parametrize("equal_steps", [True, False])
def test_fewer_rows_make_as_many_steps_or_epochs(equal_steps: bool) -> None:
    axes = {"slides": [1, 2, 4, 8], "patches": [25, 200], "epochs": [1, 6]}
    points = points_of(axes, COHORTS, epochs=6, batch_size=10, equal_steps=equal_steps)
    epochs = [point.setting.options.get("epochs", 6) for point in points]
    if equal_steps:
        assert epochs == [48, 24, 12, 6, 24, 6, 1, 6]
        slides = [(point.number, epochs[i]) for i, point in enumerate(points) if point.axis == "slides"]
        assert {number * 100 // 10 * each for number, each in slides} == {480}
    else:
        assert epochs == [6, 6, 6, 6, 6, 6, 1, 6]
    assert [point.setting.label for point in points if point.setting.label == "base"] == ["base"] * 3
    assert len(settings_of(points)) == 6


def test_the_epochs_of_a_point_do_not_depend_on_the_seeds() -> None:
    """Or more seeds would make other runs of the same point."""
    axes = {"slides": [1, 3]}
    made = [
        [point.setting for point in points_of(axes, cohorts, epochs=4, batch_size=10, equal_steps=True)]
        for cohorts in (COHORTS[:1], COHORTS[1:], COHORTS)
    ]
    assert made[0] == made[1] == made[2]


def test_a_point_of_fewer_rows_than_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 slides: 100 rows to train on, fewer than a batch of 128"):
        points_of({"slides": [1, 8]}, COHORTS, epochs=1, batch_size=128, equal_steps=True)


def test_points_of_fewer_rows_than_a_batch_can_be_left_out_but_the_whole() -> None:
    assert with_a_batch("slides", [1, 2, 4, 8], COHORTS, 128) == [2, 4, 8]
    assert with_a_batch("patches", [10, 16, 200], COHORTS, 128) == [16, 200]
    assert with_a_batch("epochs", [1, 6], COHORTS, 128) == [1, 6]
    assert with_a_batch("slides", [1, 2, 4, 8], COHORTS, 10_000) == [8]
