"""How much of the classes an embedding holds: a linear probe and nearest neighbours, out of fold.

Linear probe: multinomial logistic regression on features standardised by the training part. The strength of its
regularisation is chosen within the training part alone: by the log loss on inner folds that keep groups together, or on
the val rows of a given split, along a path from strong to weak. kNN: the k training patches of the largest cosine, each
with one vote. Both are the usual protocols of pathology encoders (Chen et al., "Towards a general-purpose foundation
model for computational pathology", Nature Medicine 2024). Left out: class weights and test-time augmentation.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pipeline.cores import usable_cores
from pipeline.directions import grid_directions, nearest, row_blocks
from pipeline.errors import BenchmarkError
from pipeline.folds import Fold, Rows, group_folds, parts_of_rows
from pipeline.logistic import Floats, LogisticModel, fit_logistic, second_moments

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalties to choose from. Our choice: on standardised features 1e-5 is next to the classes' frequencies, and
1 next to no penalty.
"""
PATH_TOLERANCE = 1e-3
"""Of the gradient while choosing. Our choice: ten times that of the fit that counts; strengths are ten times apart."""
DEFAULT_STRENGTH = 1e-2
"""Where there is nothing to choose by. Our choice: the middle of `STRENGTHS`."""
PATIENCE = 2
"""The path ends when the loss has not improved at so many strengths in a row. Our choice."""
INNER_FOLDS = (3, 2)
"""Numbers of inner folds, the first that the groups allow. Our choice: each fit sees two thirds of the examples."""
MAX_FOLDS_AT_ONCE = 4
"""Our choice: a fold in work holds about three copies of the embeddings."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ProbeTask:
    """What all models are probed on, alike.

    Attributes:
        classes: their names, sorted; C of them.
        truth: class of each row, (N,).
        folds: training and test parts.
        inner: for each fold, the splits that its settings are chosen by; none where that is impossible.
        parts: the fold that scores a row, (N,); -1: none.
        notes: what a reader must know.
    """

    classes: tuple[str, ...]
    truth: Rows
    folds: Sequence[Fold]
    inner: Sequence[Sequence[Fold]]
    parts: Rows
    notes: tuple[str, ...]

    @property
    def scored(self) -> Rows:
        """Rows that are in a test part, ascending."""
        return np.flatnonzero(self.parts >= 0)


@dataclass(frozen=True, eq=False)
class Probed:
    """What a probe found.

    Attributes:
        probabilities: of the classes, (N, C); NaN for rows that no fold scores.
        strengths: the chosen inverse penalty of each fold; none for kNN.
        notes: what a reader must know.
    """

    probabilities: Floats
    strengths: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def probe_task(labels: NDArray[np.str_], groups: NDArray[np.str_], folds: Sequence[Fold], seed: int) -> ProbeTask:
    """The task of telling `labels` (N,) apart; `groups` (N,) stay together in the inner splits as well."""
    names, truth = np.unique(labels, return_inverse=True)
    inner = [_inner_splits(labels, groups, fold, seed) for fold in folds]
    notes = []
    if without := sum(not splits for splits in inner):
        notes.append(
            f"In {without} of {len(folds)} folds the training part has too few groups (cases) to choose the linear "
            f"probe's regularisation by: C = {DEFAULT_STRENGTH:g} is taken."
        )
    classes = tuple(str(name) for name in names)
    return ProbeTask(classes, truth, folds, inner, parts_of_rows(folds, len(labels)), tuple(notes))


def linear_probe(embeddings: NDArray[np.float32], task: ProbeTask) -> Probed:
    """Logistic regression on `embeddings` (N, D)."""
    num_classes = len(task.classes)

    def probe(fold: Fold, inner: Sequence[Fold]) -> tuple[Floats, float, bool]:
        features = np.asarray(StandardScaler().fit(embeddings[fold.train]).transform(embeddings), np.float32)
        train = features[fold.train]
        moments = second_moments(train)
        strength = choose_strength(features, task, inner, moments)
        model = fit_logistic(train, task.truth[fold.train], num_classes, strength, moments)
        return np.exp(model.log_probabilities(features[fold.test])), strength, model.converged

    probabilities = np.full((len(task.truth), num_classes), np.nan)
    found = _for_each_fold(probe, task)
    for fold, (of_test, _, _) in zip(task.folds, found, strict=True):
        probabilities[fold.test] = of_test
    unfinished = sum(not converged for _, _, converged in found)
    notes = (f"{unfinished} of {len(found)} regressions did not converge.",) if unfinished else ()
    return Probed(probabilities, tuple(strength for _, strength, _ in found), notes)


def choose_strength(features: NDArray[np.float32], task: ProbeTask, inner: Sequence[Fold], moments: Floats) -> float:
    """The strength of the smallest log loss on the inner splits' test rows; the stronger penalty of two equal ones."""
    if not inner:
        return DEFAULT_STRENGTH
    models: list[LogisticModel | None] = [None] * len(inner)
    best, best_loss, num_worse = STRENGTHS[0], np.inf, 0
    parts = [features[split.train] for split in inner]
    for strength in STRENGTHS:
        losses = []
        for index, split in enumerate(inner):
            model = fit_logistic(
                parts[index],
                task.truth[split.train],
                len(task.classes),
                strength,
                moments,
                models[index],
                PATH_TOLERANCE,
            )
            models[index] = model
            log_probabilities = model.log_probabilities(features[split.test])
            losses.append(-log_probabilities[np.arange(len(split.test)), task.truth[split.test]])
        loss = float(np.concatenate(losses).mean())
        num_worse = 0 if loss < best_loss else num_worse + 1
        if loss < best_loss:
            best, best_loss = strength, loss
        if num_worse == PATIENCE:
            break
    return best


def knn_probe(embeddings: NDArray[np.float32], task: ProbeTask, k: int) -> Probed:
    """Votes of the `k` training rows of the largest cosine, as shares; of equally near rows the first counts.

    Raises:
        BenchmarkError: an embedding is zero or no number.
    """
    directions = grid_directions(embeddings)
    probabilities = np.full((len(task.truth), len(task.classes)), np.nan)

    def probe(fold: Fold, _: Sequence[Fold]) -> None:
        train, classes = directions[fold.train], task.truth[fold.train]
        for block in row_blocks(len(fold.test), len(train)):
            rows = fold.test[block]
            near = nearest(directions[rows] @ train.T, min(k, len(train)))
            probabilities[rows] = (classes[near][:, :, None] == np.arange(len(task.classes))).mean(1)

    _for_each_fold(probe, task)
    fewest = min(len(fold.train) for fold in task.folds)
    notes = (f"kNN has {fewest} neighbours only: a training part has no more patches.",) if fewest < k else ()
    return Probed(probabilities, notes=notes)


def _for_each_fold(probe: Callable[[Fold, Sequence[Fold]], Result], task: ProbeTask) -> list[Result]:
    """What `probe` gives of each fold and its inner splits; several at once, each on one core.

    A product of matrices on one core has the same digits on every number of cores, and no core waits for another that
    somebody else uses.
    """
    workers = min(MAX_FOLDS_AT_ONCE, usable_cores())
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(probe, task.folds, task.inner))


def _inner_splits(labels: NDArray[np.str_], groups: NDArray[np.str_], fold: Fold, seed: int) -> list[Fold]:
    """The val rows of a given split, else folds within the training part; none where its groups allow none.

    A class of one group cannot be on both sides: its rows take no part in the choice.
    """
    if len(fold.val):
        return [Fold(fold.train, fold.val)]
    pairs = np.unique(np.stack([labels[fold.train], groups[fold.train]]), axis=1)
    names, num_groups = np.unique(pairs[0], return_counts=True)
    rows = fold.train[np.isin(labels[fold.train], names[num_groups > 1])]
    for num_folds in INNER_FOLDS:
        try:
            splits = group_folds(labels[rows], groups[rows], num_folds, seed, "inner folds")
        except BenchmarkError:  # too few groups for so many folds
            continue
        return [Fold(rows[split.train], rows[split.test]) for split in splits]
    return []
