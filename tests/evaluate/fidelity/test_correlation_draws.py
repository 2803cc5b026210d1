"""Correlations with intervals: the figures of training, and a bootstrap that copies rows."""

import numpy as np
import pytest
import torch

from pipeline.evaluate.bootstrap import GroupResamples
from pipeline.evaluate.fidelity.correlation_draws import BLOCK_DIMENSIONS, correlation_draws
from pipeline.training.similarity import correlations, scaled_r2

GROUPS = np.repeat([f"case {i}" for i in range(7)], [3, 9, 4, 12, 5, 8, 6])


def pair(width: int = BLOCK_DIMENSIONS + 5) -> tuple[np.ndarray, np.ndarray]:
    """A target, and a projection that resembles it the more the later the dimension."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(len(GROUPS), width)) * np.linspace(0.5, 2, width) + 3
    return target * np.linspace(0, 1, width) + rng.normal(size=target.shape), target


def figures(projected: np.ndarray, target: np.ndarray) -> list[float]:
    sides = torch.from_numpy(projected), torch.from_numpy(target)
    found = correlations(*sides)
    return [float(found.mean()), float(found.quantile(0.5)), scaled_r2(*sides)]


def test_figures_and_draws_are_those_of_copied_rows() -> None:
    projected, target = pair()
    resamples = GroupResamples(GROUPS, 20, 3)
    found = correlation_draws(projected, target, resamples)
    assert list(found) == ["correlation_mean", "correlation_median", "r2_scaled"]
    assert [draws.value for draws in found.values()] == figures(projected, target)
    for i, counts in enumerate(resamples.counts):
        rows = np.repeat(np.arange(len(GROUPS)), counts[resamples.group_of_row])
        expected = figures(projected[rows], target[rows])
        assert [draws.draws[i] for draws in found.values()] == pytest.approx(expected, abs=1e-9)


def test_scale_and_offset_of_the_projection_change_nothing() -> None:
    projected, target = pair()
    resamples = GroupResamples(GROUPS, 20, 3)
    first = correlation_draws(projected, target, resamples)
    second = correlation_draws(projected * np.linspace(0.1, 9, projected.shape[1]) - 40, target, resamples)
    for name, draws in first.items():
        assert second[name].value == pytest.approx(draws.value)
        assert second[name].draws == pytest.approx(draws.draws)


def test_what_does_not_vary_has_no_correlation() -> None:
    projected, target = pair(4)
    projected[:, 1] = 0.1
    target[:, 2] = 1 / 3
    found = correlation_draws(projected, target, GroupResamples(GROUPS, 20, 3))
    of = [correlation_draws(projected[:, [i]], target[:, [i]], GroupResamples(GROUPS, 20, 3)) for i in (0, 3)]
    mean = sum(one["correlation_mean"].draws for one in of) / 4
    assert found["correlation_mean"].draws == pytest.approx(mean)
    flat = correlation_draws(projected, np.ones_like(target), GroupResamples(GROUPS, 20, 3))
    assert (flat["correlation_mean"].draws == 0).all()
    assert flat["r2_scaled"].value == 0
    assert np.isnan(flat["r2_scaled"].draws).all()


def test_few_groups_have_figures_and_no_draws() -> None:
    projected, target = pair(3)
    found = correlation_draws(projected, target, GroupResamples(np.repeat(["a", "b"], [20, 27]), 10, 0))
    assert [draws.value for draws in found.values()] == figures(projected, target)
    assert all(np.isnan(draws.draws).all() for draws in found.values())
