"""The ratio of de Jong et al.: neighbours of the same class over neighbours of the same centre.

After de Jong, Marcus and Teuwen, "Current pathology foundation models are unrobust to medical center differences"
(arXiv 2501.18055), their robustness index: among the k nearest patches of every patch (cosine), those of its class,
divided by those of its centre, summed over all patches. Above 1 biology weighs more than the centre. A neighbour of the
same class and the same centre counts on both sides, whereas PathoROB's index (`index`) leaves it out; so the ratio of
the same embeddings depends on how classes and centres are mixed, and has no upper bound.

A patch is never its own neighbour. Whether de Jong et al. also leave out the other patches of its slide could not be
established from what is public of their text. Both are given: without the patch's own slide, as for PathoROB's index,
and with it, where most near neighbours may be of the same piece of tissue, which counts for class and centre alike. The
table of a robustness set names no case: two slides of a case are neighbours in both. With subsets, neighbours are
searched within each, and the sums go over all, as for the index.

Neighbours are those that `index` searches: exact, and the same for any order of rows. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import Draws, GroupResamples, difference, ratio_draws
from pipeline.evaluate.robustness.tables import interval_if_any
from pipeline.report.content import Cell, Column, Interval, Table

RATIO_K = (3, 5, 10, 20)
"""Numbers of neighbours: those of the paper that G2L follows (arXiv 2510.11176)."""

Ints = NDArray[np.int64]
Names = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class RatioCounts:
    """Neighbours of each of N patches at each k of `RATIO_K`.

    Attributes:
        same_class: of its class, (N, 4); -1 where some patch has fewer than k neighbours.
        same_center: of its centre, likewise.
    """

    same_class: Ints
    same_center: Ints

    def draws(self, at: int, resamples: GroupResamples) -> Draws | None:
        """The ratio at the place `at` of `RATIO_K`; `None` where there is none."""
        above, below = self.same_class[:, at], self.same_center[:, at]
        if above.min() < 0 or not below.sum():
            return None
        return ratio_draws(above.astype(np.float64), below.astype(np.float64), resamples)


class CenterRatio:
    """What counts for the ratio of one model, without and with the patches of each patch's own slide.

    `see` counts; the search for neighbours is the robustness index's, which would otherwise be made twice.

    Attributes:
        label: the model's.
        elsewhere: without the own slide.
        anywhere: with it.
    """

    def __init__(self, label: str, classes: Names, centers: Names, slides: Names) -> None:
        """For patches with a class, centre and slide each, all (N,)."""
        self.label = label
        self._codes = [np.unique(column, return_inverse=True)[1] for column in (classes, centers, slides)]
        shape = (2, len(slides), len(RATIO_K))
        self.elsewhere, self.anywhere = (RatioCounts(*np.full(shape, -1, np.int64)) for _ in range(2))

    def see(self, rows: Ints, block: slice, neighbours: Ints) -> None:
        """Count the neighbours of a block of a subset's `rows`: what `robustness_index` calls `watch`."""
        classes, centers, slides = (codes[rows] for codes in self._codes)
        needed = RATIO_K[-1] + int(np.bincount(slides).max())  # nearest first: all of the own slide, itself included
        neighbours = neighbours[:, :needed]
        queries = np.arange(len(rows))[block, None]
        is_class, is_center = classes[neighbours] == classes[queries], centers[neighbours] == centers[queries]
        for counts, left_out in (
            (self.elsewhere, slides[neighbours] == slides[queries]),
            (self.anywhere, neighbours == queries),
        ):
            kept, enough = np.argsort(left_out, axis=1, kind="stable"), int((~left_out).sum(1).min())
            for at, k in enumerate(RATIO_K):
                if k <= enough:
                    near = kept[:, :k]
                    counts.same_class[rows[block], at] = np.take_along_axis(is_class, near, 1).sum(1)
                    counts.same_center[rows[block], at] = np.take_along_axis(is_center, near, 1).sum(1)

    def draws(self, with_own_slide: bool, resamples: GroupResamples) -> list[Draws | None]:
        """The ratio at each k of `RATIO_K`."""
        counts = self.anywhere if with_own_slide else self.elsewhere
        return [counts.draws(at, resamples) for at in range(len(RATIO_K))]


def ratio_tables(models: Sequence[CenterRatio], reference: str, resamples: GroupResamples) -> list[Table]:
    """The ratio of each model at each k without and with its own slide, and differences from the reference."""
    columns = [
        Column("model"),
        Column(
            "own slide",
            "Whether other patches of the same slide are neighbours. Left out: as for the robustness index. Counted: "
            "only the patch itself is left out.",
        ),
        *(Column(f"k = {k}") for k in RATIO_K),
    ]
    kinds = (("left out", False), ("counted", True))
    found = {(model.label, words): model.draws(kind, resamples) for words, kind in kinds for model in models}
    rows: list[list[Cell]] = [[*key, *map(interval_if_any, draws)] for key, draws in found.items()]
    less = _difference_rows(found, reference)
    note = (
        "Among the k nearest patches (cosine), those of the same class over those of the same centre, summed over all "
        "patches, as de Jong et al. (2025) define it: above 1 biology weighs more than the centre. A neighbour of the "
        "same class and centre counts for both, unlike in the robustness index. Whether de Jong et al. count the "
        "patch's own slide is not known; two slides of a case are neighbours in both lines. Intervals are over slides, "
        "neighbours held fixed. A dash: some patch has fewer neighbours."
    )
    tables = [Table("Same class over same centre", columns, rows, note)]
    if less:
        plain = [Column(column.name) for column in columns]
        title = f"Same class over same centre, difference from {reference}"
        tables.append(Table(title, plain, less, "Paired on the same resamples of slides."))
    return tables


def _difference_rows(found: Mapping[tuple[str, str], Sequence[Draws | None]], reference: str) -> list[list[Cell]]:
    """Each model less the reference, of draws by the model's label and the words for a kind; none without one."""
    return [
        [label, words, *map(_difference, draws, found[reference, words])]
        for (label, words), draws in found.items()
        if label != reference and (reference, words) in found
    ]


def _difference(first: Draws | None, second: Draws | None) -> Interval | None:
    """`None` where either does not exist."""
    return None if first is None or second is None else difference(first, second)
