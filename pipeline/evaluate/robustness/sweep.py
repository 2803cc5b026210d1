"""Run a sweep: what centre and class that go together in training cost a probe, by the package croma.

At each step of a plan PathoROB's logistic regression is trained to tell the class, on embeddings as they are; the test
cases are the same at all steps, and balanced. This is repeated on other draws of the cases. croma cuts training,
validation and test out of the drawn cases, trains and scores (`probe_sweep_over_test_sets`), and reduces the balanced
accuracies:

- APD, PathoROB's average performance drop: the mean over steps of the accuracy over that of the balanced step, less
  one; then over repetitions. 0: nothing lost.
- nIPD, croma's: the change of the accuracy as a share of what the balanced step has above chance, integrated over
  Cramer's V. 0: nothing lost; -1 would be everything at all V.

Cases are drawn here, not by croma, which shuffles each cell on its own: a case with patches of two classes could be
trained and tested on. What is drawn depends on names and seed only, and is the same for all models. A case (by
PathoROB's schedules, a slide) is never in training and test; validation, which chooses C, may share one with training
in another class, as in PathoROB's experiment. Where a set is PathoROB's, the experiment is its own, with other draws.
"""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from croma.downstream import IN_DOMAIN, apd, nipd, probe_sweep_over_test_sets
from croma.downstream.probe import SlideCells
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from pipeline.base.devices import one_thread
from pipeline.base.draws import draw_seed
from pipeline.evaluate.bootstrap import Draws, Floats, GroupResamples, mean_draws, statistic_draws
from pipeline.evaluate.robustness.sweep_plan import SweepPlan

CANDIDATES = 15
"""Values of C that PathoROB's probe tries; the one that is best on validation rows is fitted once more."""
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SweptModel:
    """What a sweep found of one model.

    Attributes:
        accuracies: balanced accuracy on the test cases, (steps, repetitions).
        apd, nipd: over repetitions; `None` where they do not exist, and `notes` say why.
    """

    label: str
    accuracies: Floats
    apd: Draws | None
    nipd: Draws | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """Patches of one repetition in the order that croma cuts: by centre, class and case; columns are (N,)."""

    images: Ints
    centers: Ints
    labels: Ints


def draw_rows(plan: SweepPlan, seed: int, repetition: int) -> DrawnRows:
    """Draw the cases of a repetition: those that can train and validate first, then those that are tested on."""
    generator = random.Random(draw_seed("robustness sweep", seed, repetition))
    images: list[int] = []
    centers: list[int] = []
    labels: list[int] = []
    for center, (of_center, draw) in enumerate(zip(plan.cells, plan.draws, strict=True)):
        tested = draw.draw(generator)
        for label, cell in enumerate(of_center):
            others = [case for case in cell if case not in tested]
            generator.shuffle(others)
            cases = [*others[: plan.num_trained + 1], *(case for case in cell if case in tested)]
            chosen = [image for case in cases for image in sorted(generator.sample(cell[case], plan.patches))]
            images += chosen
            centers += [center] * len(chosen)
            labels += [label] * len(chosen)
    return DrawnRows(*(np.array(column, dtype=np.int64) for column in (images, centers, labels)))


def sweep_model(
    label: str,
    embeddings: NDArray[np.floating],
    plan: SweepPlan,
    resamples: GroupResamples,
    seed: int,
    step: Callable[[], object],
) -> SweptModel:
    """Train and score all probes of a model; takes minutes to hours.

    Args:
        embeddings: of the set's images, (images, D).
        resamples: of the repetitions, one group each.
        step: called after each repetition.
    """
    columns: list[Floats] = []
    with one_thread(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for repetition in range(resamples.num_groups):
            columns.append(sweep_once(embeddings, plan, draw_rows(plan, seed, repetition)))
            step()
    return reduced(label, np.stack(columns, axis=1), plan, resamples, _in_words(caught, plan, resamples.num_groups))


def sweep_once(embeddings: NDArray[np.floating], plan: SweepPlan, rows: DrawnRows) -> Floats:
    """Balanced accuracy at each step of one repetition, (steps,)."""
    accuracies = probe_sweep_over_test_sets(
        embeddings[rows.images].astype(np.float64),
        rows.centers,
        rows.labels,
        schedule=plan.splits,
        rows_per_slide=plan.patches,
        iterations=1,
        arrange_slides=_as_they_are,
    )[IN_DOMAIN]
    return np.asarray(accuracies[:, 0], dtype=np.float64)


def reduced(
    label: str, accuracies: Floats, plan: SweepPlan, resamples: GroupResamples, notes: tuple[str, ...] = ()
) -> SweptModel:
    """APD and nIPD of accuracies (steps, repetitions), each with its resamples of repetitions."""
    chance = 1 / len(plan.classes)
    drop = degradation = None
    try:
        each = [apd(accuracies[:, [column]]) for column in range(accuracies.shape[1])]
        drop = mean_draws(np.array(each), resamples)
    except ValueError as error:
        notes = (*notes, f"no APD: {error}")
    try:
        value = nipd(accuracies, plan.strengths, chance)
        means = resamples.sums(np.ascontiguousarray(accuracies.T)) / accuracies.shape[1]
        draws = [_nipd_or_nan(mean, plan.strengths, chance) for mean in means]
        degradation = statistic_draws(np.array([value, *draws]), resamples)
    except ValueError as error:
        notes = (*notes, f"no nIPD: {error}")
    return SweptModel(label, accuracies, drop, degradation, notes)


def _nipd_or_nan(mean_accuracies: Floats, strengths: tuple[float, ...], chance: float) -> float:
    """nIPD of accuracies (steps,) that are means already; NaN where the balanced one is not above chance."""
    try:
        return float(nipd(mean_accuracies[:, None], strengths, chance))
    except ValueError:
        return float("nan")


def _as_they_are(cells: SlideCells, _generator: random.Random) -> SlideCells:
    """The cases in the order in which they were drawn."""
    return cells


def _in_words(caught: list[warnings.WarningMessage], plan: SweepPlan, repetitions: int) -> tuple[str, ...]:
    """Warnings of the probes: how many stopped early, and each other one once."""
    stopped = sum(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    others = dict.fromkeys(
        f"croma: {warning.message}" for warning in caught if not issubclass(warning.category, ConvergenceWarning)
    )
    total = len(plan.splits) * repetitions * (CANDIDATES + 1)
    limit = f"{stopped:,} of {total:,} fits stopped at scikit-learn's limit of 100 iterations, as PathoROB's do"
    return (*((limit,) if stopped else ()), *others)
