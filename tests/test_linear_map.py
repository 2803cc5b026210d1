"""The fitted linear map against its own definition, known answers and bad input."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from pipeline.linear_map import RELATIVE_STRENGTHS, fit_linear_map

RNG = np.random.default_rng(0)


def test_a_linear_function_is_found() -> None:
    x = RNG.normal(size=(200, 12)).astype(np.float32) * 3 + 5
    y = x.astype(np.float64) @ RNG.normal(size=(12, 7)) - 2
    fitted = fit_linear_map(x[:150], y[:150])
    np.testing.assert_allclose(fitted.predict(x[150:]), y[150:], atol=1e-5)
    assert fitted.strength == min(RELATIVE_STRENGTHS)


def test_it_is_ridge_at_the_chosen_strength() -> None:
    x = RNG.normal(size=(60, 20)).astype(np.float32)
    y = x @ RNG.normal(size=(20, 5)) + RNG.normal(size=(60, 5)) * 3
    fitted = fit_linear_map(x, y)
    standardised = (x.astype(np.float64) - x.astype(np.float64).mean(0)) / x.astype(np.float64).std(0)
    reference = Ridge(alpha=fitted.strength * 60).fit(standardised, y)
    np.testing.assert_allclose(fitted.predict(x), reference.predict(standardised), atol=1e-8)


def test_the_strength_has_the_smallest_leave_one_out_error() -> None:
    x = RNG.normal(size=(25, 10)).astype(np.float32)
    y = x @ RNG.normal(size=(10, 3)) + RNG.normal(size=(25, 3)) * 2
    values = x.astype(np.float64)
    standardised = (values - values.mean(0)) / values.std(0)

    def left_out_error(strength: float) -> float:
        total = 0.0
        for i in range(25):
            rest = np.arange(25) != i
            model = Ridge(alpha=strength * 25).fit(standardised[rest], y[rest])
            total += float(np.square(model.predict(standardised[[i]]) - y[i]).sum())
        return total

    best = min(RELATIVE_STRENGTHS, key=left_out_error)
    assert fit_linear_map(x, y).strength == pytest.approx(best)


def test_noise_is_mapped_to_the_mean() -> None:
    x = RNG.normal(size=(300, 40)).astype(np.float32)
    y = RNG.normal(size=(300, 6))
    predicted = fit_linear_map(x, y).predict(RNG.normal(size=(300, 40)).astype(np.float32))
    assert np.abs(predicted - y.mean(0)).max() < 0.5


def test_constant_columns_are_left_out() -> None:
    x = RNG.normal(size=(50, 4)).astype(np.float32)
    x[:, 2] = 7
    y = x[:, :1].astype(np.float64)
    np.testing.assert_allclose(fit_linear_map(x, y).predict(x), y, atol=1e-6)


def test_two_rows_are_too_few() -> None:
    with pytest.raises(ValueError, match="three rows"):
        fit_linear_map(np.zeros((2, 3), np.float32), np.zeros((2, 3)))
