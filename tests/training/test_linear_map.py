"""The fitted linear map against its own definition, known answers and bad input."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from pipeline.training.linear_map import (
    CASES,
    MAX_FOLDS,
    RELATIVE_STRENGTHS,
    ROWS,
    fit_linear_map,
    left_out_errors,
    parts_of_cases,
)

RNG = np.random.default_rng(0)


def one_case(count: int) -> NDArray[np.str_]:
    return np.full(count, "case")


def test_a_linear_function_is_found() -> None:
    x = RNG.normal(size=(200, 12)).astype(np.float32) * 3 + 5
    y = x.astype(np.float64) @ RNG.normal(size=(12, 7)) - 2
    fitted = fit_linear_map(x[:150], y[:150], one_case(150))
    np.testing.assert_allclose(fitted.predict(x[150:]), y[150:], atol=1e-5)
    assert fitted.strength == min(RELATIVE_STRENGTHS)


def test_it_is_ridge_at_the_chosen_strength() -> None:
    x = RNG.normal(size=(60, 20)).astype(np.float32)
    y = x @ RNG.normal(size=(20, 5)) + RNG.normal(size=(60, 5)) * 3
    fitted = fit_linear_map(x, y, one_case(len(x)))
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
    assert fit_linear_map(x, y, one_case(len(x))).strength == pytest.approx(best)


def test_noise_is_mapped_to_the_mean() -> None:
    x = RNG.normal(size=(300, 40)).astype(np.float32)
    y = RNG.normal(size=(300, 6))
    predicted = fit_linear_map(x, y, one_case(len(x))).predict(RNG.normal(size=(300, 40)).astype(np.float32))
    assert np.abs(predicted - y.mean(0)).max() < 0.5


def test_constant_columns_are_left_out() -> None:
    x = RNG.normal(size=(50, 4)).astype(np.float32)
    x[:, 2] = 7
    y = x[:, :1].astype(np.float64)
    np.testing.assert_allclose(fit_linear_map(x, y, one_case(len(x))).predict(x), y, atol=1e-6)


def test_two_rows_are_too_few() -> None:
    with pytest.raises(ValueError, match="three rows"):
        fit_linear_map(np.zeros((2, 3), np.float32), np.zeros((2, 3)), one_case(2))


def test_cases_are_left_out_whole_in_parts_of_about_the_same_size() -> None:
    cases = np.array(["a"] * 50 + ["b"] * 30 + ["c"] * 20 + ["d"] * 18 + ["e"] * 10 + ["f"] * 9)
    parts = parts_of_cases(cases)
    assert all(len(set(parts[cases == name])) == 1 for name in "abcdef")
    assert np.bincount(parts).tolist() == [50, 30, 20, 18, 19]
    assert len(set(parts_of_cases(np.arange(100).astype(str)))) == MAX_FOLDS
    order = RNG.permutation(len(cases))
    assert np.array_equal(parts_of_cases(cases[order]), parts[order])


@pytest.mark.parametrize("width", [6, 40])
def test_the_errors_are_those_of_ridge_on_the_other_cases(width: int) -> None:
    x, y = RNG.normal(size=(45, width)), RNG.normal(size=(45, 3)) + 1
    y += x[:, :3]
    parts = np.repeat([0, 1, 2], [20, 15, 10])
    found = left_out_errors(x, y, parts)
    for strength, error in zip(RELATIVE_STRENGTHS, found, strict=True):
        expected = 0.0
        for part in range(3):
            rest = parts != part
            model = Ridge(alpha=strength * rest.sum(), solver="svd").fit(x[rest], y[rest])
            expected += float(np.square(model.predict(x[~rest]) - y[~rest]).sum())
        assert error == pytest.approx(expected, rel=1e-5)


def test_the_map_is_chosen_for_cases_that_are_not_known() -> None:
    """Rows of a case share what no other case has: leaving out rows, that looks like something to learn."""
    rng = np.random.default_rng(1)
    cases = np.repeat(np.arange(140), 20)
    x = (rng.normal(size=(140, 60))[cases] * 2 + rng.normal(size=(len(cases), 60))).astype(np.float32)
    y = rng.normal(size=(140, 5))[cases] * 2 + x[:, :5] * 0.5 + rng.normal(size=(len(cases), 5)) * 0.5
    names, known = cases.astype(str), cases < 40
    by_case = fit_linear_map(x[known], y[known], names[known])
    by_row = fit_linear_map(x[known], y[known], one_case(int(known.sum())))
    errors = [float(np.square(m.predict(x[~known]) - y[~known]).mean()) for m in (by_case, by_row)]
    assert (by_case.left_out, by_row.left_out) == (CASES, ROWS)
    assert by_case.strength > by_row.strength
    assert errors[0] < 0.9 * errors[1]
