"""Paired robustness: whether a patch is recognised when the same tissue was scanned or stained anew.

After plismbench (Filiot et al., "Distilling foundation models for robust and efficient models in digital pathology",
arXiv 2501.16239), on sets like PLISM (Ochi et al., 2024). Two slides show the same n places of tissue. Their cosine is
the mean over places of the cosine of both patches. Their top-k accuracy: of all 2 n patches of both slides, is the
patch's counterpart on the other slide among its k nearest by cosine, itself not counted; the mean of both directions.
Pairs of slides are summarised by what differs: the scanner, the staining, both; "all" are all pairs, also those in
which neither does.

A tie counts against the model: the counterpart must be nearer than all but k - 1 others. Places that one of the slides
lacks are left out of the pair. Left out as well: the half of PLISM's tiles that plismbench takes for its own table; all
places of the file count here. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.directions import Floats, grid_directions, row_blocks

TOP = (1, 3, 5, 10)
"""Numbers of neighbours, plismbench's."""
KINDS = ("all", "cross-scanner", "cross-staining", "cross both")
"""Which pairs are summarised together: all; same staining, other scanner; same scanner, other staining; both other."""
SAME = "same"
"""Kind of a pair in which neither differs; it counts among all."""

Names = NDArray[np.str_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SlidePair:
    """Two slides of the same tissue.

    Attributes:
        kind: one of `KINDS` but "all", or `SAME`.
        num_places: places that both show, n.
        num_missing: places that one of them lacks.
        cosine: mean cosine of counterparts, -1 to 1.
        top: top-k accuracy for each k of `TOP`, 0 to 1.
    """

    first: str
    second: str
    kind: str
    num_places: int
    num_missing: int
    cosine: float
    top: tuple[float, ...]


@dataclass(frozen=True)
class PairSummary:
    """Mean and median over pairs of slides; `top` as in `SlidePair`."""

    num_pairs: int
    mean_cosine: float
    median_cosine: float
    mean_top: tuple[float, ...]
    median_top: tuple[float, ...]


@dataclass(frozen=True)
class PairedRobustness:
    """All pairs of slides that show a common place, by name; at least one."""

    pairs: tuple[SlidePair, ...]

    def summary(self, kind: str) -> PairSummary | None:
        """Over the pairs of a kind of `KINDS`; `None` if there are none."""
        pairs = [pair for pair in self.pairs if kind in ("all", pair.kind)]
        return _summary(pairs) if pairs else None

    @property
    def overall(self) -> PairSummary:
        """Over all pairs."""
        return _summary(self.pairs)

    @property
    def leaderboard(self) -> float | None:
        """plismbench's leaderboard metric, of medians over pairs; `None` unless there are pairs of all kinds."""
        tops = [part.median_top[-1] for kind in KINDS[1:] if (part := self.summary(kind)) is not None]
        return leaderboard_metric(self.overall.median_cosine, *tops) if len(tops) == 3 else None


def leaderboard_metric(cosine: float, cross_scanner: float, cross_staining: float, cross_both: float) -> float:
    """The mean of the cosine over all pairs and the top-10 accuracies of the three kinds."""
    return (cosine + cross_scanner + cross_staining + cross_both) / 4


def paired_robustness(
    embeddings: NDArray[np.floating],
    slides: Names,
    places: Names,
    scanners: Names,
    stainings: Names,
    step: Callable[[], None] | None = None,
) -> PairedRobustness:
    """Scores of all pairs of slides that have a place in common.

    `embeddings` (N, D) are of patches with a slide, place, scanner and staining each, all (N,); a slide has one scanner
    and one staining, and each of its places once. `step` is called after each pair. A pair costs 2 n**2 D operations.

    Raises:
        BenchmarkError: an embedding is not finite or zero; no two slides share a place.
    """
    grid = grid_directions(embeddings)
    rows_of = {}
    for name in np.unique(slides).tolist():
        rows = np.flatnonzero(slides == name)
        rows_of[name] = rows[np.argsort(places[rows])]
    whole = {name: _nearest_on_slide(grid[rows]) for name, rows in rows_of.items()}

    pairs = []
    for first, second in combinations(rows_of, 2):
        a, b = rows_of[first], rows_of[second]
        shared, in_a, in_b = np.intersect1d(places[a], places[b], assume_unique=True, return_indices=True)
        if len(shared):
            near = [
                whole[name] if len(shared) == len(rows) else _nearest_on_slide(grid[rows[some]])
                for name, rows, some in ((first, a, in_a), (second, b, in_b))
            ]
            kind = _kind(scanners[a[0]] != scanners[b[0]], stainings[a[0]] != stainings[b[0]])
            cosine, top = _score(grid[a[in_a]], grid[b[in_b]], *near)
            missing = len(a) + len(b) - 2 * len(shared)
            pairs.append(SlidePair(first, second, kind, len(shared), missing, cosine, top))
        if step is not None:
            step()
    if not pairs:
        raise BenchmarkError("no two slides share a patch_id: paired robustness needs the same tissue on several")
    return PairedRobustness(tuple(pairs))


def _summary(pairs: Sequence[SlidePair]) -> PairSummary:
    cosines, tops = np.array([pair.cosine for pair in pairs]), np.array([pair.top for pair in pairs])
    return PairSummary(
        num_pairs=len(pairs),
        mean_cosine=float(cosines.mean()),
        median_cosine=float(np.median(cosines)),
        mean_top=tuple(tops.mean(0).tolist()),
        median_top=tuple(np.median(tops, axis=0).tolist()),
    )


def _kind(other_scanner: bool, other_staining: bool) -> str:
    """What differs between two slides."""
    return {(False, False): SAME, (True, False): KINDS[1], (False, True): KINDS[2], (True, True): KINDS[3]}[
        bool(other_scanner), bool(other_staining)
    ]


def _nearest_on_slide(patches: Floats) -> Floats:
    """Similarities of each patch (n, D) to its nearest others of the slide, as many as a tie could need: (n, max TOP).

    In no order; -inf where there are no more.
    """
    count = min(max(TOP), len(patches) - 1)
    near = np.full((len(patches), max(TOP)), -np.inf)
    for block in row_blocks(len(patches), len(patches)):
        similarity = patches[block] @ patches.T
        similarity[np.arange(len(similarity)), np.arange(block.start, block.stop)] = -np.inf
        if count:
            near[block, :count] = np.partition(similarity, len(patches) - count, axis=1)[:, len(patches) - count :]
    return near


def _score(first: Floats, second: Floats, near_first: Floats, near_second: Floats) -> tuple[float, tuple[float, ...]]:
    """Mean cosine and top-k accuracies of patches (n, D) and their counterparts, row by row."""
    own = np.einsum("nd,nd->n", first, second)
    # Rivals are at least as near as the counterpart: of the own slide, as far as they matter, and of the other.
    of_first, of_second = ((near >= own[:, None]).sum(1) for near in (near_first, near_second))
    for block in row_blocks(len(first), len(second)):
        similarity = first[block] @ second.T
        of_first[block] += (similarity >= own[block, None]).sum(1) - 1  # the counterpart is no rival
        of_second += (similarity >= own).sum(0)
    of_second -= 1
    lengths = [np.sqrt(np.einsum("nd,nd->n", patches, patches)) for patches in (first, second)]
    cosine = float(np.mean(own / (lengths[0] * lengths[1])))
    return cosine, tuple((float((of_first < k).mean()) + float((of_second < k).mean())) / 2 for k in TOP)
