"""How much of the classes an embedding holds: a linear probe and nearest neighbours, out of fold.

Linear probe: multinomial logistic regression on features standardised by the training part. `probe_choice` says how its
regularisation is chosen, within the training part alone, and how classes weigh. kNN: votes of the k training patches of
the largest cosine; k is fixed. Where classes count the same, so do the votes that a class could give: a vote weighs the
less the more frequent its class is, or rare classes would never win (docs/decisions/0034). Both are the usual protocols
of pathology encoders (Chen et al., "Towards a general-purpose foundation model for computational pathology", Nature
Medicine 2024), but for the weights of classes. Under another protocol (`protocols`) the linear probe is that of others.
Left out: test-time augmentation.
"""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pipeline.base.cores import usable_cores
from pipeline.base.devices import one_thread
from pipeline.base.draws import draw_seed
from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.directions import grid_directions
from pipeline.evaluate.folds import Fold, Rows, parts_of_rows
from pipeline.evaluate.neighbours import float32_directions, nearest_among
from pipeline.evaluate.probes import eva_probe
from pipeline.evaluate.probes.logistic import Floats, fit_logistic, second_moments
from pipeline.evaluate.probes.probe_choice import (
    Choice,
    HeldOutRows,
    ProbeProtocol,
    choice_notes,
    choose_strength,
    edge_note,
    inner_splits,
    score_of,
)

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
        protocol: how linear probes are regularised.
        seed: of the probes that draw something, which only others' do.
    """

    classes: tuple[str, ...]
    truth: Rows
    folds: Sequence[Fold]
    inner: Sequence[Sequence[Fold]]
    parts: Rows
    notes: tuple[str, ...]
    protocol: ProbeProtocol = field(default_factory=ProbeProtocol)
    seed: int = 0

    @property
    def scored(self) -> Rows:
        """Rows that are in a test part, ascending."""
        return np.flatnonzero(self.parts >= 0)


@dataclass(frozen=True, eq=False)
class Probed:
    """What a probe found.

    Attributes:
        probabilities: of the classes, (N, C); NaN for rows that no fold scores.
        choices: the linear probe's regularisation in each fold; none for other probes.
        notes: what a reader must know.
        runs: of a probe that is trained several times, each run; `probabilities` are then their mean, and `choices`
            those of all runs, one after another. Scores are means over runs.
    """

    probabilities: Floats
    choices: tuple[Choice, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple["Probed", ...] = ()

    def each_run(self) -> tuple["Probed", ...]:
        """The runs; of a probe that is trained once, itself."""
        return self.runs or (self,)

    @property
    def strengths(self) -> tuple[float, ...]:
        """The inverse penalty of each fold."""
        return tuple(choice.strength for choice in self.choices)


def probe_task(
    labels: NDArray[np.str_],
    groups: NDArray[np.str_],
    folds: Sequence[Fold],
    seed: int,
    protocol: ProbeProtocol | None = None,
) -> ProbeTask:
    """The task of telling `labels` (N,) apart; `groups` (N,) stay together in the inner splits as well.

    Raises:
        BenchmarkError: the protocol needs validation rows, and a training part has too few groups to give some.
    """
    protocol = protocol or ProbeProtocol()
    names, truth = np.unique(labels, return_inverse=True)
    classes = tuple(str(name) for name in names)
    inner = [[] if protocol.is_fixed else inner_splits(labels, groups, fold, seed) for fold in folds]
    if protocol.is_published and not all(inner):
        raise BenchmarkError(
            f"the protocol {protocol.name} chooses by validation rows, and a training part has too few groups (cases) "
            "to give some: name them by a split of train, val and test, or take --protocol g2l"
        )
    notes = () if protocol.is_fixed or protocol.is_published else choice_notes(classes, truth, folds, inner)
    return ProbeTask(classes, truth, folds, inner, parts_of_rows(folds, len(labels)), notes, protocol, seed)


def linear_probe(embeddings: NDArray[np.float32], task: ProbeTask) -> Probed:
    """The linear probe of the task's protocol on `embeddings` (N, D)."""
    if task.protocol.name == "eva":
        return _eva_probe(embeddings, task)
    if task.protocol.name == "pathorob":
        return _pathorob_probe(embeddings, task)
    num_classes, protocol = len(task.classes), task.protocol

    def probe(fold: Fold, inner: Sequence[Fold]) -> tuple[Floats, Choice, bool]:
        features = np.asarray(StandardScaler().fit(embeddings[fold.train]).transform(embeddings), np.float32)
        train, truth = features[fold.train], task.truth[fold.train]
        weights = protocol.weights(truth)
        moments = second_moments(train, weights)
        choice = choose_strength(features, task.truth, num_classes, inner, protocol, moments)
        model = fit_logistic(train, truth, num_classes, choice.strength, moments, weights=weights)
        return np.exp(model.log_probabilities(features[fold.test])), choice, model.converged

    probabilities = np.full((len(task.truth), num_classes), np.nan)
    of_folds = for_each_fold(probe, task)
    for fold, (of_test, _, _) in zip(task.folds, of_folds, strict=True):
        probabilities[fold.test] = of_test
    choices = tuple(choice for _, choice, _ in of_folds)
    unfinished = sum(not converged for _, _, converged in of_folds)
    notes = (
        f"{unfinished} of {len(of_folds)} regressions did not converge." if unfinished else "",
        edge_note(choices, protocol),
    )
    return Probed(probabilities, choices, tuple(note for note in notes if note))


def validation_split(fold: Fold, inner: Sequence[Fold]) -> Fold:
    """What the probes of others are fitted on and choose by: the val rows of a given split, else the test rows of the
    first inner split, so that the training part's other rows are fitted on.
    """
    return Fold(np.setdiff1d(fold.train, inner[0].test), inner[0].test)


def _eva_probe(embeddings: NDArray[np.float32], task: ProbeTask) -> Probed:
    """eva's probe, `eva_probe.RUNS` times; see `protocols`."""
    number_of = {id(fold): number for number, fold in enumerate(task.folds)}

    def probe(fold: Fold, inner: Sequence[Fold]) -> list[tuple[Floats, Choice]]:
        split, found = validation_split(fold, inner), []
        train, val = ((embeddings[rows], task.truth[rows]) for rows in (split.train, split.test))
        for run in range(eva_probe.RUNS):
            seed = draw_seed("fold of eva", task.seed, number_of[id(fold)], run)
            layer = eva_probe.train_layer(train, val, len(task.classes), seed)
            held_out = HeldOutRows(val[1], layer.log_probabilities(val[0]))
            found.append((np.exp(layer.log_probabilities(embeddings[fold.test])), _chosen(layer.steps, held_out)))
        return found

    with one_thread():
        of_folds = for_each_fold(probe, task)
    runs = []
    for run in range(eva_probe.RUNS):
        probabilities = np.full((len(task.truth), len(task.classes)), np.nan)
        for fold, found in zip(task.folds, of_folds, strict=True):
            probabilities[fold.test] = found[run][0]
        runs.append(Probed(probabilities, tuple(found[run][1] for found in of_folds)))
    choices = tuple(choice for run in runs for choice in run.choices)
    return Probed(np.mean([run.probabilities for run in runs], axis=0), choices, runs=tuple(runs))


def _chosen(strength: float, held_out: HeldOutRows) -> Choice:
    """A choice of which there is no curve."""
    return Choice(strength, np.empty(0), held_out)


def _pathorob_probe(embeddings: NDArray[np.float32], task: ProbeTask) -> Probed:
    """PathoROB's probe; see `protocols`."""
    num_classes, strengths = len(task.classes), task.protocol.strengths
    embeddings = np.asarray(embeddings, np.float32)

    def probe(fold: Fold, inner: Sequence[Fold]) -> tuple[Floats, Choice, bool]:
        split = validation_split(fold, inner)
        truth = task.truth[split.test]
        models, curve, predicted = [], np.full(len(strengths), np.nan), []
        for number, strength in enumerate(strengths):
            models.append(LogisticRegression(C=strength).fit(embeddings[split.train], task.truth[split.train]))
            assert len(models[-1].classes_) == num_classes, "every class has rows to train on"
            predicted.append(_log_probabilities(models[-1], embeddings[split.test]))
            curve[number] = score_of("balanced_accuracy", truth, predicted[-1], np.zeros(len(truth), np.int64))
        best = int(np.argmax(curve))  # the first of equal ones, as Python's `max` takes in PathoROB
        choice = Choice(strengths[best], curve, HeldOutRows(truth, predicted[best]))
        converged = bool(models[best].n_iter_.max() < models[best].max_iter)
        return np.exp(_log_probabilities(models[best], embeddings[fold.test])), choice, converged

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted, and said below
        of_folds = for_each_fold(probe, task)
    probabilities = np.full((len(task.truth), num_classes), np.nan)
    for fold, (of_test, _, _) in zip(task.folds, of_folds, strict=True):
        probabilities[fold.test] = of_test
    unfinished = sum(not converged for _, _, converged in of_folds)
    note = f"{unfinished} of {len(of_folds)} regressions were ended after 100 iterations, as PathoROB's are."
    return Probed(probabilities, tuple(choice for _, choice, _ in of_folds), (note,) if unfinished else ())


def _log_probabilities(model: LogisticRegression, features: NDArray[np.float32]) -> Floats:
    """Of the classes (N, C), in float64: scikit-learn's float32 makes all equal under a strong penalty."""
    logits = features.astype(np.float64) @ model.coef_.T.astype(np.float64) + model.intercept_.astype(np.float64)
    if logits.shape[1] == 1:  # of two classes, the logit of the second
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return np.asarray(log_softmax(logits, axis=1))


def knn_probe(embeddings: NDArray[np.float32], task: ProbeTask, k: int) -> Probed:
    """Votes of the `k` training rows of the largest cosine, as shares; of equally near rows the first counts.

    The task's protocol says how votes weigh.

    Raises:
        BenchmarkError: an embedding is zero or no number.
    """
    directions = grid_directions(embeddings)
    unit = float32_directions(directions)
    probabilities = np.full((len(task.truth), len(task.classes)), np.nan)

    def probe(fold: Fold, _: Sequence[Fold]) -> None:
        classes = task.truth[fold.train]
        weights = task.protocol.weights(classes)
        for block, near in nearest_among(directions, unit, fold.test, fold.train, min(k, len(classes))):
            votes = np.stack([(weights[near] * (classes[near] == c)).sum(1) for c in range(len(task.classes))], axis=1)
            probabilities[fold.test[block]] = votes / votes.sum(1, keepdims=True)

    for_each_fold(probe, task)
    fewest = min(len(fold.train) for fold in task.folds)
    notes = (f"kNN has {fewest} neighbours only: a training part has no more rows.",) if fewest < k else ()
    return Probed(probabilities, notes=notes)


def for_each_fold(probe: Callable[[Fold, Sequence[Fold]], Result], task: ProbeTask) -> list[Result]:
    """What `probe` gives of each fold and its inner splits; several at once, each on one core.

    A product of matrices on one core has the same digits on every number of cores, and no core waits for another that
    somebody else uses.
    """
    workers = min(MAX_FOLDS_AT_ONCE, usable_cores())
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(probe, task.folds, task.inner))
