"""Calibration: how far a probe's confidence in its answers is from the share of them that is right.

Top-label calibration error, ECE (Guo et al., "On calibration of modern neural networks", ICML 2017): the confidence of
a row is the probability of its predicted class; rows are put into bins of equal width by it, and

    ECE = sum over bins of |rows that are right - sum of their confidences| / all rows

before and after temperature scaling, which divides the logarithms of the probabilities by one number T, chosen by the
log loss. A temperature is never fitted on rows that it is used for. A fold's is fitted on what its settings were chosen
by: predictions on the inner splits of its training part, or on the val rows of a given split. Where there are none (C
is fixed, or the predictor chooses nothing), it is fitted on what the other folds predicted; with a single fold there is
no temperature then. Left out: class-wise errors, and other numbers of bins. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from pipeline.evaluate.bootstrap import Draws, GroupResamples, mean_of_draws, statistic_draws
from pipeline.evaluate.folds import Rows
from pipeline.evaluate.probes.linear_probe import Probed, ProbeTask
from pipeline.evaluate.probes.logistic import Floats
from pipeline.evaluate.probes.probe_choice import HeldOutRows

NUM_BINS = 15
"""Of equal width, as in Guo et al. (2017)."""
TEMPERATURES = (1e-4, 1e3)
"""Temperatures to choose from. Our choice: under the strongest penalty a probe's logits are a hundredth of what its
answers are worth or less, and low temperatures are needed.
"""
LEAST_PROBABILITY = float(np.finfo(np.float64).tiny)
"""That a logarithm is taken of."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The calibration error of one probe's predictions.

    Attributes:
        before: of the probabilities as they are.
        after: with temperatures; `None` where there are none.
        temperatures: of each fold, of each run one after another; empty where there are none.
    """

    before: Draws
    after: Draws | None = None
    temperatures: tuple[float, ...] = ()


def calibration_of(probed: Probed, task: ProbeTask, resamples: GroupResamples, *, is_scaled: bool) -> Calibration:
    """The error over the scored rows, which `resamples` draw from; of several runs the mean of theirs.

    Args:
        is_scaled: also with temperatures; false for votes of kNN, whose zeros no temperature changes.
    """
    truth, scored = task.truth[task.scored], task.scored
    before = mean_of_draws(
        [calibration_draws(truth, run.probabilities[scored], resamples) for run in probed.each_run()]
    )
    of_runs = [fold_temperatures(run, task) for run in probed.each_run()] if is_scaled else [None]
    found = [temperatures for temperatures in of_runs if temperatures is not None]
    if len(found) < len(of_runs):
        return Calibration(before)
    after = []
    for run, temperatures in zip(probed.each_run(), found, strict=True):
        by_row = np.array(temperatures)[task.parts[scored], None]
        after.append(calibration_draws(truth, at_temperature(run.probabilities[scored], by_row), resamples))
    return Calibration(before, mean_of_draws(after), tuple(one for temperatures in found for one in temperatures))


def calibration_draws(truth: Rows, probabilities: Floats, resamples: GroupResamples) -> Draws:
    """ECE of `probabilities` (N, C) for the classes `truth` (N,), of the data and of each resample.

    Bins are open below and closed above, the first closed at both ends.
    """
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == truth).astype(np.float64)
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    gaps = np.zeros((len(truth), NUM_BINS + 1))
    gaps[np.arange(len(truth)), bins] = right - confidence
    gaps[:, -1] = 1
    sums = np.concatenate([gaps.sum(0)[None], resamples.sums(gaps)])
    return statistic_draws(np.abs(sums[:, :-1]).sum(1) / sums[:, -1], resamples)


def fold_temperatures(probed: Probed, task: ProbeTask) -> tuple[float, ...] | None:
    """The temperature of each fold; `None` where a fold has nothing to fit one on."""
    temperatures = []
    for number in range(len(task.folds)):
        held_out = probed.choices[number].held_out if probed.choices else None
        if held_out is None:
            others = np.flatnonzero((task.parts >= 0) & (task.parts != number))
            if not len(others):
                return None
            log_probabilities = np.log(np.maximum(probed.probabilities[others], LEAST_PROBABILITY))
            held_out = HeldOutRows(task.truth[others], log_probabilities)
        temperatures.append(fit_temperature(held_out.log_probabilities, held_out.truth))
    return tuple(temperatures)


def fit_temperature(log_probabilities: Floats, truth: Rows) -> float:
    """The temperature of the least log loss of `log_probabilities` (n, C) for the classes `truth` (n,).

    The loss is convex in 1 / T, so that there is one minimum; it may lie at an end of `TEMPERATURES`. It is searched by
    the logarithm of 1 / T.
    """
    finite = np.maximum(log_probabilities, np.log(LEAST_PROBABILITY))
    rows = np.arange(len(truth))

    def loss(logarithm: float) -> float:
        return -float(log_softmax(np.exp(logarithm) * finite, axis=1)[rows, truth].mean())

    ends = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    best = min((*ends, float(found.x)), key=loss)
    return float(np.exp(-best))


def at_temperature(probabilities: Floats, temperatures: NDArray[np.float64] | float) -> Floats:
    """`probabilities` (N, C) with their logarithms divided by `temperatures`, one or (N, 1)."""
    logits = np.log(np.maximum(probabilities, LEAST_PROBABILITY)) / temperatures
    return np.asarray(np.exp(log_softmax(logits, axis=1)))


def temperatures_in_words(temperatures: Sequence[float]) -> str | None:
    """The temperature of each fold; of several runs the least and the largest; `None` without any."""
    words = [f"{one:.2g}" if one < 99.5 else f"{one:.0f}" for one in temperatures]
    if not words:
        return None
    least, largest = (temperatures.index(of(temperatures)) for of in (min, max))
    return ", ".join(words) if len(words) <= 10 else f"{words[least]} to {words[largest]}"
