"""The points of a learning curve: how many slides, patches and epochs, and the run of each. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.study.grid import Setting, label_of

NUM_POINTS = 5
"""Points of an axis by default. Our choice: one more than a fit needs, each half of the next."""


@dataclass(frozen=True)
class Cohort:
    """What a store has to train on.

    Attributes:
        patches: training patches with an embedding of each slide, by the rank of the slide.
    """

    patches: tuple[int, ...]

    def num_rows(self, slides: int | None, patches: int | None) -> int:
        """Rows of the first `slides` slides, of at most `patches` patches each."""
        return sum(min(each, patches or each) for each in self.patches[:slides])


@dataclass(frozen=True)
class Point:
    """A point of a curve: its number on its axis, and the setting of its runs."""

    axis: str
    number: int
    setting: Setting


def numbers_of(text: str | None, largest: int, option: str) -> list[int]:
    """Parse numbers separated by commas; by default `largest` and its halves, ascending.

    Raises:
        ConfigError: a number is none, or not between 1 and `largest`.
    """
    if text is None:
        halves = {max(1, round(largest / 2**power)) for power in range(NUM_POINTS)}
        return sorted(halves)
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ConfigError(f"{option} {text}: give whole numbers separated by commas, such as 4,8,16") from None
    if numbers[0] < 1 or numbers[-1] > largest:
        raise ConfigError(f"{option} {text}: there are {largest:,}; give numbers from 1 to that")
    return numbers


def points_of(
    axes: Mapping[str, Sequence[int]], cohorts: Sequence[Cohort], *, epochs: int, batch_size: int, equal_steps: bool
) -> list[Point]:
    """The points of all axes; the whole of an axis is the base's run.

    Args:
        axes: numbers by the name of the axis: "slides", "patches" or "epochs".
        cohorts: one a seed, as each seed ranks slides in its own way.
        epochs: of the whole.
        batch_size: of all runs.
        equal_steps: whether runs on fewer rows make more epochs, for as many steps as the whole as near as whole epochs
            allow; slides count as if they had equally many patches, so that all seeds make the same epochs.

    Raises:
        ConfigError: a point has fewer rows than a batch.
    """
    points = []
    for axis, number in ((axis, number) for axis, numbers in axes.items() for number in numbers):
        options, rows = _subset_of(axis, number, cohorts[0]), rows_of_point(axis, number, cohorts)
        if rows < batch_size:
            raise ConfigError(
                f"{number} {axis}: {rows:,} rows to train on, fewer than a batch of {batch_size}. Give a "
                "smaller --batch-size, or leave that number out"
            )
        of_point = number if axis == "epochs" else epochs
        if options and equal_steps:
            slides, patches = _limits_of(options)
            of_point = equal_epochs(cohorts[0], slides, patches, epochs, batch_size)
        if of_point != epochs:
            options["epochs"] = of_point
        words = {name: str(value) for name, value in options.items()}
        points.append(Point(axis, number, Setting(label_of(words), words, options)))
    return points


def rows_of_point(axis: str, number: int, cohorts: Sequence[Cohort]) -> int:
    """Rows to train on at a point, by the seed that has fewest."""
    slides, patches = _limits_of(_subset_of(axis, number, cohorts[0]))
    return min(cohort.num_rows(slides, patches) for cohort in cohorts)


def with_a_batch(axis: str, numbers: Sequence[int], cohorts: Sequence[Cohort], batch_size: int) -> list[int]:
    """The numbers of an axis, ascending, whose points have at least the rows of a batch; the last one in any case."""
    return [n for n in numbers if n == numbers[-1] or rows_of_point(axis, n, cohorts) >= batch_size]


def _limits_of(options: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The most slides, and the most patches of each, that the options of a point leave."""
    return options.get("train_slides"), options.get("train_patches_per_slide")


def _subset_of(axis: str, number: int, whole: Cohort) -> dict[str, Any]:
    """The options of `train-student` that restrict a point's rows; none for the whole."""
    if axis == "slides" and number < len(whole.patches):
        return {"train_slides": number}
    if axis == "patches" and number < max(whole.patches):
        return {"train_patches_per_slide": number}
    return {}


def equal_epochs(whole: Cohort, slides: int | None, patches: int | None, epochs: int, batch_size: int) -> int:
    """Epochs that make as many steps on a subset as `epochs` on the whole, as near as whole epochs allow."""
    steps = whole.num_rows(None, None) // batch_size * epochs
    expected = whole.num_rows(None, patches) * (slides or len(whole.patches)) // len(whole.patches)
    return max(1, round(steps / max(1, expected // batch_size)))


def settings_of(points: Sequence[Point]) -> list[Setting]:
    """The settings of the points, each once."""
    return list({point.setting.label: point.setting for point in points}.values())
