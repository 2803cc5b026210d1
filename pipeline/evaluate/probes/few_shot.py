"""Few-shot classification: prototypes of 1, 2, 4, 8 and 16 examples a class, drawn many times.

As SimpleShot (Wang et al., "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning", 2019; its
CL2N): the mean of the training part, which needs no labels, is subtracted, and embeddings are scaled to length 1; a
class's prototype is the mean of its examples; a patch gets the class of the nearest prototype. Examples are drawn from
the training part, equally many of each class, and are the same for all models. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.draws import draw_seed
from pipeline.evaluate.folds import Fold
from pipeline.evaluate.probes.linear_probe import ProbeTask, for_each_fold
from pipeline.evaluate.probes.logistic import Floats

SHOTS = (1, 2, 4, 8, 16)
"""Examples a class."""
SMALLEST_LENGTH = 1e-6
"""A centred embedding that is shorter than this share of its plain length is the rounding of equal ones (float32
resolves 1e-7) and counts as zero.
"""
BLOCK_CELLS = 1 << 22
"""Scores in work at once. Our choice: 16 MB in float32."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Which rows are examples.

    Attributes:
        rows: for each fold, int64 (draws, C, S); the first s of the last axis are the examples of s a class, so that
            more examples include the fewer ones.
        shots: numbers of examples that every training part can give.
        notes: what a reader must know.
    """

    rows: Sequence[NDArray[np.int64]]
    shots: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FewShot:
    """How well patches are classified from so many examples a class.

    Attributes:
        shots: examples a class.
        right: share of the draws in which a row's class was found, (N,); NaN for rows that no fold scores.
        by_draw: balanced accuracy of each draw over all scored rows, (draws,).
    """

    shots: int
    right: Floats
    by_draw: Floats


def draw_examples(task: ProbeTask, draws: int, seed: int) -> Examples:
    """Draw rows for every fold; the draws depend on the task and the seed only."""
    counts = np.array([[np.sum(task.truth[fold.train] == c) for c in range(len(task.classes))] for fold in task.folds])
    fewest = int(counts.min())
    shots = tuple(count for count in SHOTS if count <= fewest)
    assert shots, "every training part has every class"
    notes = []
    if left_out := [str(count) for count in SHOTS if count > fewest]:
        name = task.classes[int(counts.min(0).argmin())]
        notes.append(
            f"Few-shot: {', '.join(left_out)} examples a class are left out, as a training part has only {fewest} "
            f"of {name!r}."
        )
    rows = []
    for index, fold in enumerate(task.folds):
        generator = np.random.default_rng(draw_seed("few-shot", seed, index))
        of_class = [fold.train[task.truth[fold.train] == c] for c in range(len(task.classes))]
        drawn = [[generator.choice(own, shots[-1], replace=False) for own in of_class] for _ in range(draws)]
        rows.append(np.array(drawn, dtype=np.int64))
    return Examples(rows, shots, tuple(notes))


def few_shot(embeddings: NDArray[np.float32], task: ProbeTask, examples: Examples) -> list[FewShot]:
    """Prototypes of `embeddings` (N, D), for each number of examples."""
    num_classes, draws = len(task.classes), len(examples.rows[0])
    rows_of_fold = {id(fold): rows for fold, rows in zip(task.folds, examples.rows, strict=True)}

    def count(fold: Fold, _: Sequence[Fold]) -> dict[int, tuple[Floats, Floats]]:
        """For each number of examples, how often a test row's class was found, and how many of each class in a draw."""
        rows = rows_of_fold[id(fold)]
        directions = centred_directions(embeddings, embeddings[fold.train].mean(0, dtype=np.float64))
        test, truth = directions[fold.test], task.truth[fold.test]
        own = (truth[:, None] == np.arange(num_classes)).astype(np.float64)
        size = max(1, BLOCK_CELLS // (num_classes * max(len(test), embeddings.shape[1] * examples.shots[-1])))
        counts = {}
        for shots in examples.shots:
            total, hits = np.zeros(len(test)), np.zeros((draws, num_classes))
            for start in range(0, draws, size):
                block = slice(start, start + size)
                is_right = _nearest_prototype(test, directions[rows[block, :, :shots]].mean(2)) == truth[:, None]
                total += is_right.sum(1)
                hits[block] = is_right.T @ own
            counts[shots] = total, hits
        return counts

    counts = for_each_fold(count, task)
    support = np.bincount(task.truth[task.scored], minlength=num_classes)
    present = support > 0
    results = []
    for shots in examples.shots:
        right, hits = np.full(len(task.truth), np.nan), np.zeros((draws, num_classes))
        for fold, of_fold in zip(task.folds, counts, strict=True):
            right[fold.test] = of_fold[shots][0] / draws
            hits += of_fold[shots][1]
        results.append(FewShot(shots, right, (hits[:, present] / support[present]).mean(1)))
    return results


def centred_directions(embeddings: NDArray[np.float32], centre: Floats) -> NDArray[np.float32]:
    """`embeddings` (N, D) less `centre` (D,), of length 1, or 0 where nothing is left."""
    plain = np.linalg.norm(embeddings, axis=1, keepdims=True)
    centred = embeddings - centre.astype(np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    empty = lengths <= SMALLEST_LENGTH * plain
    return np.where(empty, np.float32(0), centred / np.where(empty, np.float32(1), lengths))


def _nearest_prototype(queries: NDArray[np.float32], prototypes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Class of the nearest of `prototypes` (draws, C, D) to each of `queries` (n, D), in each draw: (n, draws)."""
    draws, num_classes, width = prototypes.shape
    flat = prototypes.reshape(-1, width)
    scores = queries @ flat.T
    scores -= np.square(flat).sum(1) / 2  # |q - p|**2 = |q|**2 - 2 (q p - |p|**2 / 2)
    return np.asarray(scores.reshape(len(queries), draws, num_classes).argmax(2))
