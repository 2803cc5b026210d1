"""Calibration errors by loops, temperatures that undo a known one, and rows that no temperature may see."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from support.probes import make_embeddings, make_task

from pipeline.evaluate.bootstrap import GroupResamples
from pipeline.evaluate.probes.calibration import (
    NUM_BINS,
    TEMPERATURES,
    at_temperature,
    calibration_draws,
    calibration_of,
    fit_temperature,
    fold_temperatures,
    temperatures_in_words,
)
from pipeline.evaluate.probes.linear_probe import Probed, knn_probe, linear_probe
from pipeline.evaluate.probes.probe_choice import ProbeProtocol


def by_loops(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    bins: dict[int, list[tuple[float, float]]] = {}
    for label, row in zip(truth, probabilities, strict=True):
        confidence = max(row)
        place = next(b for b in range(NUM_BINS) if confidence <= (b + 1) / NUM_BINS + 1e-15)
        bins.setdefault(place, []).append((float(int(np.argmax(row)) == label), confidence))
    total = 0.0
    for rows in bins.values():
        right, confidences = np.mean(rows, axis=0)
        total += len(rows) / len(truth) * abs(right - confidences)
    return total


def sharp(seed: int, num_rows: int = 300, temperature: float = 1.0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classes drawn with known probabilities, and these at an inverse temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, 4)) * 2
    truth = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=1)])
    return truth, softmax(logits / temperature, axis=1)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_error_and_its_resamples_are_those_of_loops(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    probabilities = rng.dirichlet(np.full(num_classes, 0.4), size=90)
    probabilities[:3] = np.eye(num_classes)[0]  # at the upper end of the last bin
    truth = rng.integers(num_classes, size=90)
    resamples = GroupResamples(np.array([f"case {g}" for g in rng.integers(8, size=90)]), 30, 0)
    found = calibration_draws(truth, probabilities, resamples)
    assert found.value == pytest.approx(by_loops(truth, probabilities), abs=1e-12)
    for b in range(30):
        rows = np.repeat(np.arange(90), resamples.counts[b][resamples.group_of_row])
        assert found.draws[b] == pytest.approx(by_loops(truth[rows], probabilities[rows]), abs=1e-12)


def test_a_known_temperature_is_found_and_calibrates() -> None:
    truth, too_sure = sharp(0, 4000, temperature=0.4)
    found = fit_temperature(np.log(too_sure), truth)
    assert found == pytest.approx(1 / 0.4, rel=0.1)
    resamples = GroupResamples(np.arange(4000).astype(str), 100, 0)
    before = calibration_draws(truth, too_sure, resamples).value
    after = calibration_draws(truth, at_temperature(too_sure, found), resamples).value
    assert before > 0.1 > 0.04 > after


def test_the_temperature_has_the_least_log_loss_of_a_fine_grid() -> None:
    truth, probabilities = sharp(1, temperature=3.0)
    grid = np.geomspace(0.05, 20, 2000)
    losses = [-np.log(at_temperature(probabilities, t)[np.arange(len(truth)), truth]).mean() for t in grid]
    assert fit_temperature(np.log(probabilities), truth) == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)


def test_probabilities_of_0_have_a_temperature_all_the_same() -> None:
    certain = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    with np.errstate(divide="ignore"):
        assert np.isfinite(fit_temperature(np.log(certain), np.array([0, 1, 2, 0, 1, 0])))
        assert fit_temperature(np.log(certain), np.array([1, 2, 0, 1, 2, 0])) == pytest.approx(TEMPERATURES[1])
    assert np.isfinite(at_temperature(certain, 2.0)).all()


def test_no_temperature_depends_on_the_rows_that_it_is_used_for() -> None:
    """Wrong classes for the rows of a fold's test part change its own temperature by nothing."""
    task = make_task(2)
    embeddings = make_embeddings(task, 0.6)
    found = fold_temperatures(linear_probe(embeddings, task), task)
    assert found is not None
    truth = task.truth.copy()
    truth[task.folds[0].test] = (truth[task.folds[0].test] + 1) % 3
    changed = fold_temperatures(linear_probe(embeddings, replace(task, truth=truth)), replace(task, truth=truth))
    assert changed is not None
    assert changed[0] == found[0]
    assert changed[1] != found[1]  # whose training part has these rows


def test_without_a_choice_the_other_folds_are_fitted_on() -> None:
    task = replace(make_task(3), protocol=ProbeProtocol((1.0,)))
    probed = linear_probe(make_embeddings(task, 0.6), task)
    found = fold_temperatures(probed, task)
    assert found is not None
    for number, temperature in enumerate(found):
        others = np.flatnonzero(task.parts != number)
        assert temperature == fit_temperature(np.log(probed.probabilities[others]), task.truth[others])
    alone = replace(task, folds=task.folds[:1], parts=np.where(task.parts == 0, 0, -1))
    assert fold_temperatures(replace(probed, choices=probed.choices[:1]), alone) is None


def test_votes_have_an_error_and_no_temperature() -> None:
    task = make_task(4)
    resamples = GroupResamples(np.arange(len(task.truth)).astype(str), 100, 0)
    found = calibration_of(knn_probe(make_embeddings(task, 0.6), task, 5), task, resamples, is_scaled=False)
    assert found.before.value > 0
    assert found.after is None
    assert temperatures_in_words(found.temperatures) is None


def test_the_error_of_several_runs_is_their_mean() -> None:
    task = make_task(5)
    resamples = GroupResamples(np.arange(len(task.truth)).astype(str), 100, 0)
    rng = np.random.default_rng(0)
    runs = tuple(Probed(rng.dirichlet(np.ones(3), size=len(task.truth))) for _ in range(2))
    found = calibration_of(Probed(runs[0].probabilities, runs=runs), task, resamples, is_scaled=True)
    alone = [calibration_of(run, task, resamples, is_scaled=True) for run in runs]
    assert found.before.value == pytest.approx(np.mean([one.before.value for one in alone]))
    assert found.after is not None
    assert found.after.value == pytest.approx(np.mean([one.after.value for one in alone if one.after is not None]))
    assert found.temperatures == alone[0].temperatures + alone[1].temperatures


def test_temperatures_in_words() -> None:
    assert temperatures_in_words([1.0, 2.25]) == "1, 2.2"
    assert temperatures_in_words([0.5, *[1.0] * 9, 3.0]) == "0.5 to 3"
    assert temperatures_in_words([1000.0, 120.0]) == "1000, 120"
