"""The robustness index: whether a patch's nearest patches of other slides share its biology or its medical centre.

After Kömen et al., "Towards robust foundation models for digital pathology" (arXiv 2507.17845), as their public code
PathoROB computes it. Embeddings are brought to length 1; the neighbours of a patch are the nearest by Euclidean
distance, without those of its own slide. Among the first k neighbours of all patches, SO counts those of the same
biological class from another centre, OS those of another class from the same centre:

    index = SO / (SO + OS)

At 1 neighbours are found by biology, at 0 by centre; at 0.5 neither outweighs the other. k is the one of 1, 3, 5, 7, 9,
11, 21, 31, ... at which a majority vote of the neighbours tells the biological class best (balanced accuracy; the first
of several; a tied vote goes to the class first in order). For sets of subsets, neighbours are searched within each
subset, the accuracies are averaged over subsets to choose k, and SO and OS are summed over the patches of all subsets,
a patch as often as it occurs. docs/decisions/0016 says what was decided and why.

Exact and the same for any order of rows: see `directions`; among patches that are equally near, the one first by slide,
class, centre and embedding is the nearer. How far that decides is counted: see `ties`. Memory is a block of
rows at a time. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.directions import Floats, canonical_order, grid_directions, row_blocks
from pipeline.evaluate.neighbours import nearest_of_all
from pipeline.evaluate.robustness.ties import Ties, extremes_of

MAX_K = 1000
"""k stays below it. PathoROB has a limit for each of its sets, 600 to 1,200; this is the one of Tolkach ESCA."""
COMPARED_K = (1, 3, 5, 11, 21, 51, 101, 201, 501, 991)
"""Numbers of neighbours at which models are compared side by side. Our choice of those that are tried."""
UNSURE = 0.01
"""How far apart the lowest and highest index may be, by the order of equally near patches, for it to be compared. Our
choice.
"""
ACCURACY_DIGITS = 12
"""Balanced accuracies that are equal to so many digits are equal; beyond it is the rounding of their means."""

Ints = NDArray[np.int64]
Names = NDArray[np.str_]
Watch = Callable[[Ints, slice, Ints], None]
"""Is shown the rows of a subset in their canonical order (n,), a block of them, and the places in these rows of what is
nearest to each of the block, itself included, nearest first (B, width).
"""


@dataclass(frozen=True, eq=False)
class CountsAtK:
    """SO and OS of each patch at one number of neighbours, int64 (N,), rows as given; and the lowest and highest index
    that any order of equally near patches gives.
    """

    same_class: Ints
    same_center: Ints
    bounds: tuple[float, float]

    @property
    def value(self) -> float:
        """SO / (SO + OS) over all patches; NaN if there is neither, or if the order of names would decide it."""
        low, high = self.bounds
        return float("nan") if high - low > UNSURE else _ratio(int(self.same_class.sum()), int(self.same_center.sum()))


@dataclass(frozen=True, eq=False)
class RobustnessIndex:
    """The index of one model, with what it is made of.

    Attributes:
        k: number of neighbours that count.
        same_class: SO of each patch among its first k neighbours, int64 (N,), rows as given.
        same_center: OS, likewise.
        compared: what counts at each k of `COMPARED_K` that was looked at.
        curve: the index at each k that was looked at; NaN where SO + OS is 0.
        accuracy: balanced accuracy of the neighbours' majority vote for the class at each k, mean over subsets.
        by_subset: the index of each subset alone, at the same k; NaN where it does not exist. Sorted by name.
        ties: of each patch at `k`, which SO and OS another order of equally near patches could give; rows as given.
        notes: what a reader must know.
    """

    k: int
    same_class: Ints
    same_center: Ints
    compared: dict[int, CountsAtK]
    curve: dict[int, float]
    accuracy: dict[int, float]
    by_subset: dict[str, float]
    ties: Ties
    notes: tuple[str, ...]

    @property
    def value(self) -> float:
        """SO / (SO + OS) over all patches; NaN if there is neither, or if `is_undecided`."""
        return float("nan") if self.is_undecided else _ratio(int(self.same_class.sum()), int(self.same_center.sum()))

    @property
    def is_undecided(self) -> bool:
        """Whether for every patch the order among equally near ones decides between class and centre."""
        return bool(self.ties.undecided.all())

    @property
    def support(self) -> float:
        """Share of the patches with at least one neighbour that counts as SO or OS."""
        return float(np.mean(self.same_class + self.same_center > 0))

    @property
    def subset_mean(self) -> float:
        """Mean of the subsets' own indices, of those that exist; NaN if none does."""
        values = [value for value in self.by_subset.values() if not np.isnan(value)]
        return float(np.mean(values)) if values else float("nan")

    @property
    def num_queries(self) -> int:
        """Patches that were asked for their neighbours, each as often as it occurs."""
        return len(self.same_class)


@dataclass(frozen=True, eq=False)
class _Counts:
    """What the neighbours of one subset's n patches are, at each of C numbers of neighbours.

    `same_class`, `same_center` (n, C) int32; `hits` (n, C): the vote gives the patch's own class; `tied` (n, C): the
    k-th neighbour is no nearer than the next, of whatever kind. `reach`: as many neighbours has every patch.
    """

    same_class: NDArray[np.int32]
    same_center: NDArray[np.int32]
    hits: NDArray[np.bool_]
    tied: NDArray[np.bool_]
    reach: int


def robustness_index(
    embeddings: NDArray[np.floating],
    classes: Names,
    centers: Names,
    slides: Names,
    subsets: Names | None = None,
    k: int | None = None,
    watch: Watch | None = None,
    watched: int = 0,
) -> RobustnessIndex:
    """The robustness index of `embeddings` (N, D) of patches with a class, centre, slide and subset each, all (N,).

    `subsets`: names of the sets within which neighbours are searched; `None` is one set of all. `k`: number of
    neighbours; `None` chooses it as PathoROB does. `watch` is shown all neighbours that were found, at least `watched`
    of other slides where there are so many; it is called in threads, for every patch once, in no order.

    Raises:
        BenchmarkError: an embedding is not finite or zero; a subset is of a single slide; `k` is larger than the
            number of patches of other slides.
    """
    grid = grid_directions(embeddings)
    rows_of = _rows_of_subsets(grid, subsets, slides, classes, centers)
    tried = k_candidates(max(len(rows) for rows in rows_of.values())) if k is None else [k]
    codes = {name: _codes(classes[rows], centers[rows], slides[rows]) for name, rows in rows_of.items()}
    counts = {}
    for name, rows in rows_of.items():
        of_subset = None if watch is None else partial(watch, rows)
        counts[name] = _count_subset(name, grid[rows], codes[name], tried, k, of_subset, watched)
    notes = []
    if k is None and _reach(counts) == 0:
        notes.append("some patch has only patches of its own slide near it; k went as far as every patch has others")
        counts = {name: _widened(count, slides[rows_of[name]]) for name, count in counts.items()}
    usable = [count for count in tried if count <= _reach(counts)]
    if not usable:
        raise BenchmarkError(
            f"k = {k}: some patch has only {_reach(counts)} patches of other slides; take a smaller --ri-k"
        )
    accuracy = _mean_accuracy(counts, classes, rows_of, len(usable))
    best = int(np.argmax(accuracy))
    ties = _ties_at(best, usable[best], grid, codes, counts, rows_of)
    compared = _compared(usable, grid, codes, counts, rows_of)
    return _index_at(best, usable, accuracy, counts, rows_of, ties, compared, notes)


def _rows_of_subsets(
    grid: Floats, subsets: Names | None, slides: Names, classes: Names, centers: Names
) -> dict[str, Ints]:
    """The rows of each subset in their canonical order, by its name; `None` is one subset of all."""
    names = np.full(len(grid), "all") if subsets is None else subsets
    return {
        str(name): canonical_order(grid, np.flatnonzero(names == name), slides, classes, centers)
        for name in np.unique(names)
    }


_Codes = tuple[Ints, Ints, Ints]
"""Class, centre and slide of each row, as numbers."""


def _codes(classes: Names, centers: Names, slides: Names) -> _Codes:
    """Names numbered in their order."""
    label, center, slide = (np.unique(column, return_inverse=True)[1] for column in (classes, centers, slides))
    return label, center, slide


def _count_subset(
    name: str,
    grid: Floats,
    codes: _Codes,
    tried: Sequence[int],
    k: int | None,
    watch: Callable[[slice, Ints], None] | None,
    watched: int,
) -> _Counts:
    """Neighbours within one subset, at those of the numbers `tried` that it has patches for; at `k` if it is given.

    Raises:
        BenchmarkError: the subset is of a single slide.
    """
    if codes[2].max() == 0:
        raise BenchmarkError(f"subset {name!r} has patches of one slide only: no patch has a neighbour elsewhere")
    here = [count for count in tried if k is not None or count <= len(grid)]
    return _count(grid, codes, here, watch, watched, exhaust=k is not None)


def _ties_at(
    at: int, k: int, grid: Floats, codes: Mapping[str, _Codes], counts: dict[str, _Counts], rows_of: dict[str, Ints]
) -> Ties:
    """What another order of equally near patches could give at `k`, which stands at the place `at` of the counts."""
    ties = Ties.none(*_count_rows(at, counts, rows_of))
    for name, rows in rows_of.items():
        tied = np.flatnonzero(counts[name].tied[:, at])
        ties.put(rows[tied], extremes_of(grid[rows], *codes[name], tied, k))
    return ties


def _reach(counts: Mapping[str, _Counts]) -> int:
    """As many neighbours has every patch of every subset."""
    return min(count.reach for count in counts.values())


def _compared(
    usable: Sequence[int],
    grid: Floats,
    codes: Mapping[str, _Codes],
    counts: dict[str, _Counts],
    rows_of: dict[str, Ints],
) -> dict[int, CountsAtK]:
    """What counts at those of the numbers `usable` at which models are compared."""
    return {
        k: CountsAtK(*_count_rows(at, counts, rows_of), _ties_at(at, k, grid, codes, counts, rows_of).bounds)
        for at, k in enumerate(usable)
        if k in COMPARED_K
    }


def index_of_random_neighbours(classes: Names, centers: Names, slides: Names, subsets: Names | None = None) -> float:
    """The index if every patch of another slide were as likely a neighbour as any other; NaN if none could count.

    It is what a model that knows nothing gives, and seldom 0.5: classes and centres are not balanced, and a patch's own
    slide, which is of its centre, is no neighbour. Arguments as for `robustness_index`.
    """
    names = np.full(len(classes), "all") if subsets is None else subsets
    alike = [
        _num_sharing(names, *columns)
        for columns in (
            (slides,),
            (classes,),
            (centers,),
            (classes, centers),
            (slides, classes),
            (slides, centers),
            (slides, classes, centers),
        )
    ]
    slide, label, center, cell, of_slide_label, of_slide_center, of_slide_cell = alike
    others = _num_sharing(names) - slide
    same_class = label - cell - (of_slide_label - of_slide_cell)
    same_center = center - cell - (of_slide_center - of_slide_cell)
    expected = [float((counts / others).sum()) for counts in (same_class, same_center)]
    return expected[0] / sum(expected) if sum(expected) else float("nan")


def _num_sharing(*columns: Names) -> Ints:
    """How many rows have the same names as each in all `columns` (N,): (N,)."""
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in columns])
    _, inverse, counts = np.unique(codes, axis=1, return_inverse=True, return_counts=True)
    return counts[inverse].astype(np.int64)


def k_candidates(num_rows: int) -> list[int]:
    """Numbers of neighbours to choose from: 1, 3, 5, 7, 9, 11, 21, 31, ... up to `num_rows` and below `MAX_K`."""
    return [k for k in (1, 3, 5, 7, 9, *range(11, MAX_K, 10)) if k <= num_rows]


def _count(
    grid: Floats,
    codes: _Codes,
    tried: Sequence[int],
    watch: Callable[[slice, Ints], None] | None,
    watched: int,
    *,
    exhaust: bool,
) -> _Counts:
    """Neighbours of each row of `grid` (n, D) at the numbers `tried`, ascending.

    PathoROB looks at the max(tried) nearest patches, then drops those of the own slide; `reach` is what the patch with
    the fewest keeps. With `exhaust` it is what there is: the next nearest fill up.
    """
    classes, centers, slides = codes
    num_rows, most, at = len(grid), tried[-1], np.array(tried) - 1
    width = min(num_rows, max(most, watched) + int(np.bincount(slides).max()) + 1)
    same_class, same_center = np.zeros((2, num_rows, len(tried)), np.int32)
    hits, tied = np.zeros((2, num_rows, len(tried)), np.bool_)
    others = np.zeros(num_rows, np.int64)

    def count(block: slice, neighbours: Ints, similarity: Floats) -> None:
        if watch is not None:
            watch(block, neighbours)
        own = slides[neighbours] == slides[block, None]
        elsewhere = (~own).sum(1)
        others[block] = elsewhere if exhaust else (~own[:, :most]).sum(1)
        order = np.argsort(own, axis=1, kind="stable")
        near = np.take_along_axis(neighbours, order[:, :most], 1)
        for part in row_blocks(len(near), len(at) * 2 * (int(classes.max()) + 1)):
            rows = slice(block.start + part.start, block.start + part.stop)
            tally = _tally(classes[near[part]], centers[near[part]] == centers[rows, None], at, int(classes.max()) + 1)
            here = np.arange(len(tally)), slice(None), classes[rows]
            same_class[rows] = tally[..., 0][here]
            same_center[rows] = tally[..., 1].sum(2) - tally[..., 1][here]
            hits[rows] = tally.sum(3).argmax(2) == classes[rows, None]
        last, following = (np.take_along_axis(order, np.minimum(places, width - 1)[None], 1) for places in (at, at + 1))
        is_equal = np.take_along_axis(similarity, last, 1) == np.take_along_axis(similarity, following, 1)
        tied[block] = is_equal & (elsewhere[:, None] > at + 1)

    nearest_of_all(grid, width, count)
    return _Counts(same_class, same_center, hits, tied, min(int(others.min()), num_rows, most))


def _tally(classes: Ints, is_center: NDArray[np.bool_], at: Ints, num_classes: int) -> Ints:
    """How many neighbours up to each of the places `at` are of each class, and of another or the same centre.

    `classes`, `is_center` (B, K) of the neighbours, nearest first; gives (B, C, num_classes, 2).
    """
    shape = (len(classes), len(at), num_classes, 2)
    stretch = np.searchsorted(at, np.arange(classes.shape[1])) + len(at) * np.arange(len(classes))[:, None]
    kind = (stretch * num_classes + classes) * 2 + is_center
    counts = np.bincount(kind.ravel(), minlength=int(np.prod(shape))).reshape(shape)
    return np.cumsum(counts, axis=1, out=counts)


def _widened(count: _Counts, slides: Names) -> _Counts:
    """The same with the reach that the search had: as many patches of other slides as every patch has."""
    largest = int(np.unique(slides, return_counts=True)[1].max())
    return _Counts(count.same_class, count.same_center, count.hits, count.tied, len(slides) - largest)


def _mean_accuracy(counts: dict[str, _Counts], classes: Names, rows_of: dict[str, Ints], num_tried: int) -> Floats:
    """Balanced accuracy of the vote at the first `num_tried` numbers of neighbours, mean over subsets: (C,)."""
    accuracies = []
    for name, rows in rows_of.items():
        hits, truth = counts[name].hits[:, :num_tried], classes[rows]
        accuracies.append(np.mean([hits[truth == label].mean(0) for label in np.unique(truth)], axis=0))
    means: Floats = np.round(np.mean(accuracies, axis=0, dtype=np.float64), ACCURACY_DIGITS)
    return means


def _index_at(
    best: int,
    usable: Sequence[int],
    accuracy: Floats,
    counts: dict[str, _Counts],
    rows_of: dict[str, Ints],
    ties: Ties,
    compared: dict[int, CountsAtK],
    notes: Sequence[str],
) -> RobustnessIndex:
    """The index at the `best` of the numbers of neighbours `usable`."""
    same_class, same_center = _count_rows(best, counts, rows_of)
    sums = np.sum(
        [(c.same_class[:, : len(usable)].sum(0), c.same_center[:, : len(usable)].sum(0)) for c in counts.values()],
        axis=0,
    )
    return RobustnessIndex(
        k=usable[best],
        same_class=same_class,
        same_center=same_center,
        compared=compared,
        curve={k: _ratio(int(so), int(os)) for k, so, os in zip(usable, *sums, strict=True)},
        accuracy={k: float(value) for k, value in zip(usable, accuracy, strict=True)},
        by_subset={
            name: float("nan") if ties.undecided[rows].all() else _ratio(*(int(count.sum()) for count in row_counts))
            for name, rows in rows_of.items()
            for row_counts in [(same_class[rows], same_center[rows])]
        },
        ties=ties,
        notes=tuple(notes),
    )


def _count_rows(at: int, counts: dict[str, _Counts], rows_of: dict[str, Ints]) -> tuple[Ints, Ints]:
    """SO and OS at one of the numbers of neighbours, rows as given."""
    num_rows = sum(len(rows) for rows in rows_of.values())
    same_class, same_center = np.zeros((2, num_rows), np.int64)
    for name, rows in rows_of.items():
        same_class[rows], same_center[rows] = counts[name].same_class[:, at], counts[name].same_center[:, at]
    return same_class, same_center


def _ratio(same_class: int, same_center: int) -> float:
    """SO / (SO + OS); NaN if there is neither."""
    total = same_class + same_center
    return same_class / total if total else float("nan")
