"""Plan a sweep: which cases of which centres and classes train probes, while class and centre go from unrelated to one.

A schedule says how many patches each cell (a centre and a class) gives to training at each step. It begins balanced;
then cells where the class goes with the centre grow and the others shrink, until each class comes from centres of its
own (Cramer's V from 0 to 1). PathoROB has one for each of its three sets (arXiv 2507.17845, `pathorob/apd/utils.py`):
its centres, classes, slides a cell and patches a slide are below, and its numbers come from croma. It is only taken for
exactly such a set.

Any other set gets a schedule of ours, on the two centres and two classes whose smallest cell has the most cases:

- A case is all slides of a patient. It gives the same number of patches to a cell as every other case: as many as leave
  the smallest cell at least four fifths of its cases, at most 100. Cases of both centres, or with fewer patches in a
  cell, are left out of it.
- Of the K cases of the smallest cell a quarter, at least two and at most 16, is tested on, one validates, and the rest,
  an even number 2 M of at most 32, can train. PathoROB's own numbers for K = 12 and K = 9 are the same.
- At step j of S (S = M, at most 7) two cells train on M + k cases and two on M - k, k = round(j M / S): V is k / M.

That needs 7 cases a cell. Left out: more than two centres or classes, centres that PathoROB tests on only (subset OOD),
and the other direction of the correlation, which would give other numbers. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from croma.downstream import pathorob_schedule
from numpy.typing import NDArray

from pipeline.evaluate.robustness.data import IndexRows
from pipeline.evaluate.robustness.sweep_cases import CaseDraw

OUR_SCHEDULE, PATHOROB_SCHEDULE = "own", "pathorob"
"""Whose schedule is asked for: ours, or PathoROB's of the set that the centres are of."""
MOST_PATCHES = 100
"""Of a case in a cell. Our choice, for the time that the probes take; PathoROB has 30, 100 and 300."""
LEAST_PATCHES = 2
"""Of a case in a cell: with one, PathoROB's rule for validation gives no row."""
KEPT_CASES = 0.8
"""Of the smallest cell's cases that must have as many patches as a case gives. Our choice."""
LEAST_BALANCED = 2
"""Cases a cell when balanced: of one there is no step between V = 0 and 1."""
MOST_BALANCED, MOST_TESTED, MOST_STEPS = 16, 16, 7
"""For the time it takes. 16 is what croma's authors take for a set of 50 slides a cell; 7 steps are PathoROB's most."""
LEAST_TESTED = 2
"""Cases a cell that are tested on: PathoROB's fewest."""
LEAST_CASES = 2 * LEAST_BALANCED + 1 + LEAST_TESTED
"""Cases a cell."""

SplitPlan = tuple[list[tuple[int, int, int]], int]
"""What croma takes for a step: (centre, class, patches) of every cell, and the most cases that a cell ever gives."""
TwoByTwo = tuple[tuple[str, str], tuple[str, str]]
"""Two centres and two classes."""
CasesOfCell = Mapping[str, tuple[int, ...]]
"""Images of each case in a cell, by the case's name; indices into the set's `paths`, ascending."""


@dataclass(frozen=True)
class PublishedSweep:
    """PathoROB's experiment on one of its sets.

    Attributes:
        dataset: PathoROB's name.
        centers, classes: in the order of its schedule; of subset ID.
        slides: of each cell.
        patches: of each slide in a cell.
        most_tested: slides of each centre that may be tested on, where one may have several classes; else `None`.
    """

    dataset: str
    centers: tuple[str, ...]
    classes: tuple[str, ...]
    slides: int
    patches: int
    most_tested: tuple[int, ...] | None = None


PUBLISHED_SWEEPS: Mapping[str, PublishedSweep] = {
    "pathorob-camelyon": PublishedSweep("camelyon", ("RUMC", "UMCU"), ("normal", "tumor"), 17, 300),
    "pathorob-tcga": PublishedSweep(
        "tcga",
        ("Asterand", "Christiana Healthcare", "Roswell Park", "University of Pittsburgh"),
        (
            *("Breast_invasive_carcinoma", "Colon_adenocarcinoma"),
            *("Lung_adenocarcinoma", "Lung_squamous_cell_carcinoma"),
        ),
        12,
        30,
    ),
    "pathorob-tolkach-esca": PublishedSweep(
        "tolkach_esca",
        ("VALSET2_WNS", "VALSET4_CHA_FULL"),
        ("TUMOR", "MUSC_PROP", "SH_OES", "SH_MAG", "REGR_TU", "ADVENT"),
        9,
        100,
        (12, 5),
    ),
}
"""By the names of `g2l reproduce`. Source: `load_data` of PathoROB's `pathorob/apd/utils.py`."""


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """A sweep that can be run.

    Attributes:
        schedule: `OUR_SCHEDULE`, or a name of `PUBLISHED_SWEEPS`.
        centers, classes: in the order of the schedule.
        cells: by centre and class, the cases with enough patches.
        patches: that a case gives to a cell.
        splits: the schedule, balanced first.
        tested: cases a cell that are tested on.
        draws: of each centre, its cases that are tested on.
    """

    schedule: str
    centers: tuple[str, ...]
    classes: tuple[str, ...]
    cells: tuple[tuple[CasesOfCell, ...], ...]
    patches: int
    splits: tuple[SplitPlan, ...]
    tested: int
    draws: tuple[CaseDraw, ...]

    @property
    def num_trained(self) -> int:
        """Cases a cell that can train at most."""
        return self.splits[0][1]

    @property
    def strengths(self) -> tuple[float, ...]:
        """Cramer's V of centre and class among the training patches of each step."""
        return tuple(cramers_v(split) for split, _ in self.splits)

    def cases_at(self, step: int) -> list[str]:
        """How many cases each cell trains on at a step, in words: "RUMC, tumor: 8"."""
        cells, _ = self.splits[step]
        return [f"{self.centers[i]}, {self.classes[j]}: {patches // self.patches}" for i, j, patches in cells]


def cramers_v(split: Sequence[tuple[int, int, int]]) -> float:
    """Cramer's V of counts (row, column, count): 0 if rows and columns are unrelated, 1 if one tells the other."""
    table = np.zeros((1 + max(i for i, _, _ in split), 1 + max(j for _, j, _ in split)))
    for i, j, count in split:
        table[i, j] = count
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    above_chance = ((table - expected) ** 2 / expected).sum() / table.sum()
    return float(np.sqrt(above_chance / (min(table.shape) - 1)))


def plan_sweep(schedule: str, rows: IndexRows) -> SweepPlan | str:
    """The sweep of a set by one of the two schedules; or why there is none, a sentence without a full stop."""
    if schedule == OUR_SCHEDULE:
        return _own_plan(rows)
    here = set(rows.centers.tolist())
    names = [name for name, published in PUBLISHED_SWEEPS.items() if here.issuperset(published.centers)]
    if not names:
        centers = "; ".join(", ".join(published.centers) for published in PUBLISHED_SWEEPS.values())
        any_set = f"any set takes --robustness-sweep {OUR_SCHEDULE}"
        return f"the set has the centres of none of PathoROB's ({centers}); {any_set}"
    return _published_plan(names[0], rows)


def _published_plan(name: str, rows: IndexRows) -> SweepPlan | str:
    """PathoROB's, if the set is PathoROB's."""
    published = PUBLISHED_SWEEPS[name]
    found = _cells(rows, rows.slides)
    cells = tuple(tuple(found.get((a, b), {}) for b in published.classes) for a in published.centers)
    if others := _other_cells(published, cells):
        return f"{name} has {others}; another set takes --robustness-sweep {OUR_SCHEDULE}"
    splits = tuple(pathorob_schedule(published.dataset, rows_per_slide=published.patches))
    tested = published.slides - splits[0][1] - 1
    most = published.most_tested or (None,) * len(cells)
    draws = tuple(_case_draw(cell, tested, limit) for cell, limit in zip(cells, most, strict=True))
    if lacking := [center for center, draw in zip(published.centers, draws, strict=True) if not draw.num_sets]:
        return f"no set of cases of {lacking[0]} has {tested} of each class, to test on"
    shape = (published.centers, published.classes, cells, published.patches)
    return SweepPlan(name, *shape, splits, tested, draws)


def _other_cells(published: PublishedSweep, cells: Sequence[Sequence[CasesOfCell]]) -> str:
    """The first cell that is not as published, in words; "" if there is none."""
    for center, of_center in zip(published.centers, cells, strict=True):
        for label, cell in zip(published.classes, of_center, strict=True):
            odd = [f", {slide!r} with {len(i)} patches" for slide, i in cell.items() if len(i) != published.patches]
            if len(cell) != published.slides or odd:
                return (
                    f"{published.slides} slides of {published.patches} patches each of {label} from {center}, and here "
                    f"are {len(cell)} slides{odd[0] if odd else ''}"
                )
    return ""


def _own_plan(rows: IndexRows) -> SweepPlan | str:
    """Ours, if some two centres and two classes have enough cases."""
    found = _without_shared_cases(_cells(rows, rows.slides if rows.cases is None else rows.cases))
    centers, classes = (sorted({key[at] for key in found}) for at in (0, 1))
    choices = [(a, b) for a in combinations(centers, 2) for b in combinations(classes, 2)]
    if not choices:
        return "it needs two centres and two classes with cases of their own"
    fewest = {choice: min(map(len, _chosen(found, choice, LEAST_PATCHES))) for choice in choices}
    best = max(choices, key=lambda choice: (fewest[choice], _num_images(found, choice)))  # the first of those alike
    if fewest[best] < LEAST_CASES:
        (one, other), (first, second) = best
        return (
            f"our schedule needs {LEAST_CASES} cases with {LEAST_PATCHES} patches each of two classes from two "
            f"centres; best are {first} and {second} from {one} and {other}, with {fewest[best]} in the smallest cell"
        )
    patches = _patches_of_case(found, best)
    cells = _chosen(found, best, patches)
    return _plan_of(best, ((cells[0], cells[1]), (cells[2], cells[3])), patches)


def _plan_of(
    choice: TwoByTwo, cells: tuple[tuple[CasesOfCell, CasesOfCell], tuple[CasesOfCell, CasesOfCell]], patches: int
) -> SweepPlan:
    """Our plan for two centres and two classes with enough cases."""
    fewest = min(len(cell) for of_center in cells for cell in of_center)
    tested = min(MOST_TESTED, max(LEAST_TESTED, fewest // 4))
    balanced = min(MOST_BALANCED, (fewest - 1 - tested) // 2)
    tested = min(MOST_TESTED, fewest - 1 - 2 * balanced)
    steps = min(balanced, MOST_STEPS)
    splits = []
    for step in range(steps + 1):
        more = (2 * step * balanced + steps) // (2 * steps)  # the nearest whole number to step / steps of them
        counts = {True: (balanced + more) * patches, False: (balanced - more) * patches}
        splits.append(([(i, j, counts[i == j]) for i in range(2) for j in range(2)], 2 * balanced))
    draws = tuple(_case_draw(of_center, tested, None) for of_center in cells)
    return SweepPlan(OUR_SCHEDULE, *choice, cells, patches, tuple(splits), tested, draws)


def _cells(rows: IndexRows, cases: NDArray[np.str_]) -> dict[tuple[str, str], CasesOfCell]:
    """The images of every case in every cell, each image once, though it may be in several subsets."""
    found: dict[tuple[str, str], dict[str, set[int]]] = {}
    columns = (rows.centers.tolist(), rows.classes.tolist(), cases.tolist(), rows.images.tolist())
    for center, label, case, image in zip(*columns, strict=True):
        found.setdefault((center, label), {}).setdefault(case, set()).add(image)
    return {key: {case: tuple(sorted(cell[case])) for case in sorted(cell)} for key, cell in sorted(found.items())}


def _without_shared_cases(cells: Mapping[tuple[str, str], CasesOfCell]) -> dict[tuple[str, str], CasesOfCell]:
    """The cells without cases of several centres."""
    centers: dict[str, set[str]] = {}
    for (center, _), cell in cells.items():
        for case in cell:
            centers.setdefault(case, set()).add(center)
    own = {case for case, names in centers.items() if len(names) == 1}
    return {key: {case: images for case, images in cell.items() if case in own} for key, cell in cells.items()}


def _chosen(cells: Mapping[tuple[str, str], CasesOfCell], choice: TwoByTwo, patches: int) -> list[CasesOfCell]:
    """The four cells of two centres and two classes, with the cases that have so many patches."""
    four = [cells.get((center, label), {}) for center in choice[0] for label in choice[1]]
    return [{case: images for case, images in cell.items() if len(images) >= patches} for cell in four]


def _num_images(cells: Mapping[tuple[str, str], CasesOfCell], choice: TwoByTwo) -> int:
    """Patches of the four cells."""
    return sum(len(images) for cell in _chosen(cells, choice, LEAST_PATCHES) for images in cell.values())


def _patches_of_case(cells: Mapping[tuple[str, str], CasesOfCell], choice: TwoByTwo) -> int:
    """The most patches that a case can give if the smallest cell is to keep enough of its cases."""
    smallest = min(map(len, _chosen(cells, choice, LEAST_PATCHES)))
    needed = max(LEAST_CASES, int(np.ceil(KEPT_CASES * smallest)))
    sizes = [sorted((len(images) for images in cell.values()), reverse=True) for cell in _chosen(cells, choice, 1)]
    return min(MOST_PATCHES, *(of_cell[needed - 1] for of_cell in sizes))


def _case_draw(cells: Sequence[CasesOfCell], tested: int, most: int | None) -> CaseDraw:
    """Draws of the cases of a centre that are tested on."""
    classes_of: dict[str, list[int]] = {}
    for label, cell in enumerate(cells):
        for case in cell:
            classes_of.setdefault(case, []).append(label)
    return CaseDraw(classes_of, len(cells), tested, most)
