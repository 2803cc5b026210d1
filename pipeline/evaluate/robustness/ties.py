"""How much the order among equally near patches could change the robustness index.

Among the first k neighbours of a patch, all that are nearer than the k-th count in any order. The rest of the k places
is filled from the tied set, those as near as the k-th. If that set is larger than the places and holds patches of
several kinds (SO: same class from another centre; OS: another class from the same centre; neither), the order decides
what counts. Embeddings that hold nothing but the class are an example: all patches of the class are tied, but whichever
are taken, OS is 0 and the index 1. Where all patches are the same, any index is possible. Pure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.directions import Floats, row_blocks

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ties:
    """For each of N patches, the least and the most SO and OS that any order of equally near patches gives; int64 (N,).

    The least SO and the most OS are had by one and the same order, and so are the most SO and the least OS.
    """

    least_class: Ints
    most_class: Ints
    least_center: Ints
    most_center: Ints

    @classmethod
    def none(cls, same_class: Ints, same_center: Ints) -> "Ties":
        """Of patches whose SO and OS (N,) no order changes."""
        return cls(same_class.copy(), same_class.copy(), same_center.copy(), same_center.copy())

    def put(self, rows: Ints, ties: "Ties") -> None:
        """Set the patches `rows` (M,) to their `ties` (M,)."""
        self.least_class[rows], self.most_class[rows] = ties.least_class, ties.most_class
        self.least_center[rows], self.most_center[rows] = ties.least_center, ties.most_center

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Patches whose SO or OS depends on the order: (N,)."""
        return (self.least_class < self.most_class) | (self.least_center < self.most_center)

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Patches whose own SO / (SO + OS) depends on the order: (N,). With no SO in reach it is 0, with no OS 1."""
        return self.tied & (self.most_class > 0) & (self.most_center > 0)

    @property
    def num_tied(self) -> int:
        """Number of `tied` patches."""
        return int(self.tied.sum())

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest index over all patches that any order gives; NaN if none gives one."""
        ends = []
        for same_class, same_center in ((self.least_class, self.most_center), (self.most_class, self.least_center)):
            so, os = int(same_class.sum()), int(same_center.sum())
            ends.append(so / (so + os) if so + os else float("nan"))
        low, high = ends  # without SO and OS at one end, all that is defined is the value at the other
        return (high if np.isnan(low) else low), (low if np.isnan(high) else high)


def extremes_of(grid: Floats, classes: Ints, centers: Ints, slides: Ints, rows: Ints, k: int) -> Ties:
    """The extremes of the patches `rows` (M,) among the patches `grid` (n, D), at k neighbours of other slides.

    `grid` are directions as of `grid_directions`; each patch has a class, centre and slide, (n,), and at least k
    patches of other slides.
    """
    ties = Ties.none(*np.zeros((2, len(rows)), np.int64))
    for block in row_blocks(len(rows), len(grid)):
        asked = rows[block]
        other = slides != slides[asked, None]
        similarity = np.where(other, grid[asked] @ grid.T, -np.inf)
        at_k = -np.partition(-similarity, k - 1, axis=1)[:, k - 1, None]
        nearer, tied = similarity > at_k, (similarity == at_k) & other
        is_class, is_center = classes == classes[asked, None], centers == centers[asked, None]
        kinds = (is_class & ~is_center, ~is_class & is_center)
        places, size = k - nearer.sum(1), tied.sum(1)
        for (least, most), kind in zip(
            ((ties.least_class, ties.most_class), (ties.least_center, ties.most_center)), kinds, strict=True
        ):
            sure, of_kind = (nearer & kind).sum(1), (tied & kind).sum(1)
            least[block] = sure + np.maximum(places - (size - of_kind), 0)
            most[block] = sure + np.minimum(places, of_kind)
    return ties
