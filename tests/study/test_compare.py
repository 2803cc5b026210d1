"""Which differences are shown: against plain implementations, planted winners and planted equals."""

import itertools
from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from pipeline.study.compare import (
    Estimate,
    Scores,
    compare_settings,
    equal_cases,
    estimate_score,
    holm,
    not_shown_lower,
)

Rng = np.random.Generator


def grid(
    rng: Rng, gains: list[float], *, seeds: int = 5, cases: int = 10, noise: tuple[float, float, float] = (0.02,) * 3
) -> dict[str, Scores]:
    """Settings with a true gain each; `noise` of seeds, cases, and of both together, drawn for each setting."""
    whole = rng.uniform(20, 100, cases)
    shared = rng.normal(size=(seeds, 1)) * 0.05 + rng.normal(size=(1, cases)) * 0.1
    scores = {}
    for number, gain in enumerate(gains):
        drawn = [rng.normal(size=shape) for shape in ((seeds, 1), (1, cases), (seeds, cases))]
        own = sum(size * values for size, values in zip(noise, drawn, strict=True))
        scores[f"s{number}"] = Scores((0.5 + gain + shared + own) * whole, whole)
    return scores


def all_pairs(scores: dict[str, Scores]) -> list[tuple[str, str]]:
    return list(itertools.combinations(scores, 2))


def wrongly_shown(draw: object, num_grids: int, **options: object) -> float:
    """Share of simulated grids of equal settings in which any difference is shown."""
    wrong = 0
    for _ in range(num_grids):
        scores = grid(draw, [0.0] * 4, **options)  # type: ignore[arg-type]
        wrong += any(pair.verdict in ("higher", "lower") for pair in compare_settings(scores, all_pairs(scores), 0.05))
    return wrong / num_grids


def test_an_estimate_is_that_of_a_plain_implementation() -> None:
    rng = np.random.default_rng(3)
    scores = grid(rng, [0.0], seeds=4, cases=7)["s0"]
    of_runs = [sum(run) / sum(scores.whole) for run in scores.parts]
    left_out = []
    for case in range(7):
        kept = [i for i in range(7) if i != case]
        left_out.append(np.mean([sum(run[kept]) / sum(scores.whole[kept]) for run in scores.parts]))
    each = estimate_score(scores)
    assert each.value == pytest.approx(np.mean(of_runs))
    assert each.seed_error == pytest.approx(stats.sem(of_runs))
    assert each.case_error == pytest.approx(sqrt(6 / 7 * sum((x - np.mean(left_out)) ** 2 for x in left_out)))


def test_with_one_source_of_variation_it_is_students_test() -> None:
    rng, whole = np.random.default_rng(0), np.full(8, 30.0)
    of_seeds = rng.normal(0.01, 0.02, (5, 1)) * np.ones(8) * whole
    case_columns = np.ones((5, 1)) * rng.normal(0.01, 0.02, 8) * whole
    nothing = Scores(np.zeros((5, 8)), whole)
    for parts, sample in ((of_seeds, of_seeds[:, 0] / 30), (case_columns, case_columns[0] / 30)):
        (pair,) = compare_settings({"a": nothing, "b": Scores(parts, whole)}, [("a", "b")], 0.05)
        expected = stats.ttest_1samp(sample, 0.0)
        assert pair.p == pytest.approx(expected.pvalue, rel=1e-6)
        interval = expected.confidence_interval(0.95)
        assert pair.difference.interval() == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_the_critical_value_lies_between_those_of_both_sources() -> None:
    each = Estimate(0.1, 0.03, 0.02, 4, 19)
    low, high = stats.t.ppf(0.975, 19), stats.t.ppf(0.975, 4)
    expected = (0.03**2 * high + 0.02**2 * low) / (0.03**2 + 0.02**2)
    assert each.critical(0.025) == pytest.approx(expected)
    at_the_border = Estimate(expected * each.error, 0.03, 0.02, 4, 19)
    assert at_the_border.p_value(1.0) == pytest.approx(0.05, rel=1e-6)


def test_holm_is_that_of_its_definition() -> None:
    ps = [0.01, 0.04, 0.03, float("nan"), 0.5, 0.01]
    corrected = holm(ps)
    tested = [p for p in ps if not isnan(p)]
    for p, found in zip(ps, corrected, strict=True):
        if isnan(p):
            assert isnan(found)
            continue
        ranked = sorted(tested)
        steps = [min(1, (len(ranked) - i) * q) for i, q in enumerate(ranked) if q <= p]
        assert found == pytest.approx(max(steps[: ranked.index(p) + 1] if p in ranked else steps))


@pytest.mark.parametrize("noise", [(0.02, 0.02, 0.02), (0.02, 0.0, 0.0), (0.0, 0.02, 0.0), (0.02, 0.02, 0.05)])
@pytest.mark.parametrize("seeds", [2, 5])
def test_among_equals_no_winner_is_declared(noise: tuple[float, float, float], seeds: int) -> None:
    """At most 5 % of grids; of 150 grids at that rate, 14 or more wrong ones have a chance of 2 %."""
    rng = np.random.default_rng(11)
    assert wrongly_shown(rng, 150, seeds=seeds, cases=12, noise=noise) <= 13 / 150


def test_among_equals_with_ties_and_few_values_none_is_declared() -> None:
    """Scores that take few values, such as retrieval of few patches, tie within seeds and cases."""
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(150):
        whole = np.full(6, 8.0)
        scores = {f"s{i}": Scores(rng.binomial(8, 0.7, (3, 6)).astype(float), whole) for i in range(3)}
        scores["again"] = scores["s0"]
        pairs = compare_settings(scores, all_pairs(scores), 0.05)
        assert next(pair for pair in pairs if (pair.first, pair.second) == ("s0", "again")).verdict == "the same"
        wrong += any(pair.verdict in ("higher", "lower") for pair in pairs)
    assert wrong <= 13


def test_a_planted_winner_is_found() -> None:
    rng, found, wrong = np.random.default_rng(1), 0, 0
    for _ in range(20):
        scores = grid(rng, [0.0, 0.0, 0.15, 0.0])
        pairs = compare_settings(scores, all_pairs(scores), 0.05)
        shown = {(pair.first, pair.second): pair.verdict for pair in pairs if pair.verdict != "not shown"}
        found += not_shown_lower(scores, pairs)[0] == "s2" and len(not_shown_lower(scores, pairs)) == 1
        assert [shown.pop(("s0", "s2"), "higher"), shown.pop(("s1", "s2"), "higher")] == ["higher"] * 2
        assert shown.pop(("s2", "s3"), "lower") == "lower"
        wrong += bool(shown)
    assert found >= 18
    assert wrong <= 3


def test_what_cannot_be_tested_is_said() -> None:
    rng = np.random.default_rng(1)
    for one in (grid(rng, [0.0, 0.5], seeds=1), grid(rng, [0.0, 0.5], cases=1)):
        (pair,) = compare_settings(one, all_pairs(one), 0.05)
        assert (pair.verdict, isnan(pair.p), isnan(pair.difference.interval()[0])) == ("cannot be said", True, True)
        assert not_shown_lower(one, [pair]) == ["s1", "s0"]


def test_rounding_is_no_difference() -> None:
    scores = grid(np.random.default_rng(1), [0.0])
    nearly = Scores(scores["s0"].parts * (1 + 1e-13), scores["s0"].whole)
    (pair,) = compare_settings(scores | {"again": nearly}, [("s0", "again")], 0.05)
    assert (pair.verdict, pair.p_holm) == ("the same", 1.0)


def test_one_case_that_dominates_counts_as_few() -> None:
    assert equal_cases(np.full(7, 3.0)) == pytest.approx(7)
    assert 1 < equal_cases(np.array([1000.0, 1, 1, 1, 1])) < 1.01
