"""A planted law is recovered within its interval; where there is none, nothing is said."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.study.compare import Scores
from pipeline.study.power_law import extrapolate, fit_law, resampled

NUMBERS = (2, 4, 8, 16, 32)
Points = list[tuple[float, Scores]]


def points(
    law: Callable[[float], float], seed: int, *, noise: float = 0.004, seeds: int = 3, cases: int = 12,
    numbers: tuple[int, ...] = NUMBERS,
) -> Points:  # fmt: skip
    """Scores of a law, with cases that differ alike at all numbers, and runs that differ by `noise`."""
    rng = np.random.default_rng(seed)
    whole, of_case = rng.uniform(50, 150, cases), rng.normal(size=(1, cases)) * 0.05
    made = []
    for number in numbers:
        errors = noise * (rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, cases)))
        made.append((float(number), Scores((law(number) + of_case + errors) * whole, whole)))
    return made


def test_a_law_without_noise_is_fitted() -> None:
    scores = np.array([[0.8 - 0.5 * n**-0.5 for n in NUMBERS], [0.9 - 0.4 / n for n in NUMBERS], [0.7] * 5])
    law = fit_law(NUMBERS, scores)
    assert law.at(64.0) == pytest.approx([0.8 - 0.5 / 8, 0.9 - 0.4 / 64, 0.7], abs=5e-4)
    assert law.exponent[:2] == pytest.approx([0.5, 1.0], rel=0.03)
    assert law.drop[2] == 0


@pytest.mark.parametrize(("ceiling", "drop", "exponent"), [(0.8, 0.5, 0.5), (0.8, 0.8, 1.0), (0.9, 0.6, 0.2)])
def test_a_planted_law_lies_within_the_interval(ceiling: float, drop: float, exponent: float) -> None:
    def law(n: float) -> float:
        return ceiling - drop * n**-exponent

    said, inside = 0, 0
    for seed in range(20):
        found = extrapolate(points(law, seed), resamples=200, seed=0)
        said += not found.why_not
        inside += found.gain_low <= law(64) - law(32) <= found.gain_high
    assert said >= 18
    assert inside >= said - 3


@pytest.mark.parametrize(
    ("law", "noise"),
    [(lambda n: 0.7, 0.004), (lambda n: 0.7, 0.03), (lambda n: 0.7 - 0.002 * n, 0.004)],
    ids=["flat", "noise", "falling"],
)
def test_of_noise_nothing_is_said(law: Callable[[float], float], noise: float) -> None:
    said = [not extrapolate(points(law, seed, noise=noise), resamples=200, seed=0).why_not for seed in range(20)]
    assert sum(said) <= 2


def test_why_it_cannot_be_said_is_named() -> None:
    def law(n: float) -> float:
        return 0.8 - 0.5 * n**-0.5

    few = extrapolate(points(law, 0, numbers=(4, 8, 16)), resamples=100, seed=0)
    assert few.why_not == "3 points; the law needs at least 4"
    assert "cannot be said: 3 points" in few.words("slides", "R2")
    one = extrapolate(points(law, 0, numbers=(4,)), resamples=100, seed=0)
    assert one.why_not == "1 point; the law needs at least 4"
    assert "one run a point" in extrapolate(points(law, 0, seeds=1), resamples=100, seed=0).why_not
    assert "one case" in extrapolate(points(law, 0, cases=1), resamples=100, seed=0).why_not
    steps = extrapolate(points(lambda n: 0.5 + 0.3 * (n > 20), 0), resamples=100, seed=0)
    assert steps.why_not == "the points do not follow a saturating power law"


def test_what_is_said_names_score_and_gain() -> None:
    found = extrapolate(points(lambda n: 0.8 - 0.5 * n**-0.5, 0), resamples=200, seed=0)
    words = found.words("slides", "R2")
    assert words.startswith(f"twice the slides (64) would give about {found.score:.3f}")
    assert f"{found.gain:+.3f}" in words
    assert found.law_at(np.array([64.0])) == pytest.approx([found.score])
    assert found == extrapolate(points(lambda n: 0.8 - 0.5 * n**-0.5, 0), resamples=200, seed=0)


def test_draws_spread_as_seeds_and_cases_do() -> None:
    made = [scores for _, scores in points(lambda n: 0.7, 4, noise=0.01, seeds=40, cases=200)]
    draws, noise = resampled(made, 4000, 0)
    assert noise == pytest.approx(0.01 / np.sqrt(40), rel=0.4)
    spread = draws.std(0, ddof=1)
    assert spread == pytest.approx(np.hypot(0.05 / np.sqrt(200) * 1.04, 0.01 / np.sqrt(40)), rel=0.25)
