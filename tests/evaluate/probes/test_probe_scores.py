"""Scores of what a probe predicted."""

import numpy as np
import pytest
from support.probes import make_embeddings, make_task

from pipeline.evaluate.bootstrap import METRICS, GroupResamples, classification_draws
from pipeline.evaluate.probes.linear_probe import Probed, knn_probe
from pipeline.evaluate.probes.probe_scores import probe_draws


def test_scores_are_those_of_the_rows_and_means_over_runs() -> None:
    task = make_task()
    rows = task.scored[::2]
    resamples = GroupResamples(np.arange(len(rows)).astype(str), 50, 0)
    runs = tuple(knn_probe(make_embeddings(task, 0.5, seed=seed), task, 5) for seed in range(3))
    expected = [
        classification_draws(task.truth[rows], run.probabilities[rows], resamples, task.parts[rows]) for run in runs
    ]
    one = probe_draws(task, runs[0], rows, resamples)
    assert {name: draws.value for name, draws in one.items()} == {n: d.value for n, d in expected[0].items()}
    found = probe_draws(task, Probed(runs[0].probabilities, runs=runs), rows, resamples)
    assert tuple(found) == METRICS
    for name in METRICS:
        assert found[name].value == pytest.approx(np.mean([each[name].value for each in expected]))
        np.testing.assert_allclose(found[name].draws, np.mean([each[name].draws for each in expected], axis=0))
