"""The logistic regression against scikit-learn's."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pipeline.evaluate.probes import logistic
from pipeline.evaluate.probes.logistic import LogisticModel, balanced_weights, fit_logistic, second_moments


def correlated(seed: int, num_rows: int, width: int, num_classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Standardised features with a few strong directions, and classes that overlap."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=num_rows - num_classes)])
    means = rng.normal(size=(num_classes, width)) * 0.4
    hidden = (rng.normal(size=(num_rows, width)) + means[truth]) * np.arange(1, width + 1) ** -0.7
    features = hidden @ rng.normal(size=(width, width))
    return ((features - features.mean(0)) / features.std(0)).astype(np.float32), truth


def gradient(model: LogisticModel, features: NDArray[np.float32], truth: NDArray[np.int64], strength: float) -> float:
    """Largest component of the gradient of the loss in the plain coordinates, in float64."""
    residual = np.exp(model.log_probabilities(features))
    residual[np.arange(len(truth)), truth] -= 1
    by_weight = features.astype(np.float64).T @ residual / len(truth) + model.weights / (strength * len(truth))
    return float(max(np.abs(by_weight).max(), np.abs(residual.mean(0)).max()))


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize(("num_rows", "width"), [(400, 30), (60, 100)])
def test_it_is_scikit_learns(num_rows: int, width: int, strength: float) -> None:
    features, truth = correlated(0, num_rows, width, 4)
    found = fit_logistic(features, truth, 4, strength, second_moments(features), tolerance=1e-5)
    expected = LogisticRegression(C=strength, tol=1e-7, max_iter=5000).fit(features.astype(np.float64), truth)
    assert found.converged
    probabilities = expected.predict_proba(features.astype(np.float64))
    assert np.exp(found.log_probabilities(features)) == pytest.approx(probabilities, abs=2e-3)
    assert pytest.approx(expected.coef_, abs=0.02 * np.abs(expected.coef_).max()) == found.weights.T
    assert gradient(found, features, truth, strength) < 1e-3
    assert found.weights.sum(1) == pytest.approx(0, abs=1e-5)  # as of a softmax with a penalty


def test_two_classes_are_scikit_learns_at_twice_the_strength() -> None:
    features, truth = correlated(1, 300, 20, 2)
    found = fit_logistic(features, truth, 2, 0.05, second_moments(features), tolerance=1e-5)
    expected = LogisticRegression(C=0.1, tol=1e-7, max_iter=5000).fit(features.astype(np.float64), truth)
    assert found.weights[:, 1] - found.weights[:, 0] == pytest.approx(expected.coef_[0], abs=2e-3)
    assert found.bias[1] - found.bias[0] == pytest.approx(expected.intercept_[0], abs=2e-3)


def test_a_start_changes_the_way_and_not_the_end() -> None:
    features, truth = correlated(2, 300, 40, 3)
    moments = second_moments(features)
    cold = fit_logistic(features, truth, 3, 0.1, moments, tolerance=1e-5)
    warm = fit_logistic(
        features, truth, 3, 0.1, 3 * moments, fit_logistic(features, truth, 3, 10.0, moments), tolerance=1e-5
    )
    assert warm.log_probabilities(features) == pytest.approx(cold.log_probabilities(features), abs=5e-3)


def test_separable_classes_converge_without_a_warning() -> None:
    truth = np.arange(90) % 3
    features = np.eye(3, 50, dtype=np.float32)[truth] * 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_logistic(features, truth, 3, 1.0, second_moments(features))
    assert found.converged
    assert (found.log_probabilities(features).argmax(1) == truth).all()


def test_features_that_say_nothing_give_the_classes_frequencies() -> None:
    truth = np.array([0] * 60 + [1] * 30 + [2] * 10)
    features = np.zeros((100, 5), np.float32)
    found = fit_logistic(features, truth, 3, 1.0, second_moments(features))
    assert np.exp(found.log_probabilities(features[:1]))[0] == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)
    assert (found.weights == 0).all()


def test_a_fit_that_was_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = correlated(3, 300, 40, 4)
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 1)
    assert not fit_logistic(features, truth, 4, 1.0, second_moments(features)).converged


def test_second_moments_are_summed_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = correlated(4, 50, 8, 2)
    monkeypatch.setattr(logistic, "BLOCK_ROWS", 7)
    assert second_moments(features) == pytest.approx(features.astype(np.float64).T @ features / 50, abs=1e-6)


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_weights_of_classes_are_scikit_learns(strength: float) -> None:
    features, truth = correlated(5, 300, 20, 3)
    truth = np.where((truth == 2) & (np.arange(300) > 60), 0, truth)  # few are left of one class
    weights = balanced_weights(truth)
    assert weights.mean() == pytest.approx(1)
    found = fit_logistic(
        features, truth, 3, strength, second_moments(features, weights), tolerance=1e-5, weights=weights
    )
    expected = LogisticRegression(C=strength, tol=1e-7, max_iter=5000, class_weight="balanced").fit(features, truth)
    assert found.converged
    assert np.exp(found.log_probabilities(features)) == pytest.approx(expected.predict_proba(features), abs=2e-3)


def test_a_strong_penalty_on_few_rows_does_not_end_before_it_has_begun() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(12) % 2
    features = (rng.normal(size=(12, 4)) + 0.3 * truth[:, None]).astype(np.float32)
    found = fit_logistic(features, truth, 2, 1e-6, second_moments(features))
    towards = features[truth == 1].mean(0) - features[truth == 0].mean(0)
    direction = found.weights[:, 1] - found.weights[:, 0]
    assert direction @ towards / np.linalg.norm(direction) / np.linalg.norm(towards) > 0.99
