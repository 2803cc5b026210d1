"""Sets of cases by centre and class, and embeddings with a planted shortcut, for the tests of the sweep."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.robustness.data import IndexRows
from pipeline.evaluate.robustness.sweep_plan import OUR_SCHEDULE, PUBLISHED_SWEEPS, SweepPlan, plan_sweep

Cases = Iterable[tuple[str, str, str, int]]
"""Case, centre, class, patches."""


def index_rows(cases: Cases) -> IndexRows:
    """One image a patch, in the order of the cases."""
    listed = [case for case in cases for _ in range(case[3])]
    names, centers, classes = (np.array(column, dtype=np.str_) for column in list(zip(*listed, strict=True))[:3])
    return IndexRows(np.arange(len(listed)), names, classes, centers, None)


def grid(number: int, patches: int, centers: str = "ns", classes: str = "ab") -> list[tuple[str, str, str, int]]:
    """As many cases of one class each in every cell."""
    return [(f"{a}{b}{i:02}", a, b, patches) for a in centers for b in classes for i in range(number)]


def planned(rows: IndexRows, schedule: str = OUR_SCHEDULE) -> SweepPlan:
    plan = plan_sweep(schedule, rows)
    assert isinstance(plan, SweepPlan), plan
    return plan


def planted(rows: IndexRows, *, of_class: float, of_center: float, seed: int = 0) -> NDArray[np.float32]:
    """Noise, with the class in one direction and the centre in another, so strong."""
    values = np.random.default_rng(seed).normal(size=(len(rows.images), 8))
    for dimension, (names, strength) in enumerate(((rows.classes, of_class), (rows.centers, of_center))):
        values[:, dimension] += strength * np.unique(names, return_inverse=True)[1]
    return values.astype(np.float32)


def published_cases(name: str) -> list[tuple[str, str, str, int]]:
    """A set of the size of PathoROB's; where its cases have several classes, 18 a centre with three each."""
    published = PUBLISHED_SWEEPS[name]
    return [
        (
            f"{center}{(2 * i + j // 3) % 18 if published.most_tested else label + str(i)}",
            center,
            label,
            published.patches,
        )
        for center in published.centers
        for j, label in enumerate(published.classes)
        for i in range(published.slides)
    ]
