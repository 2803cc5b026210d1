"""Compare settings of training by the held-out scores of their runs: which differences are shown? Pure.

A score is a ratio of sums over held-out cases: R2 is explained over total sum of squares, a mean is a sum over a
count. Two things vary: the seed of a run, and which cases are held out. A difference that holds for new seeds and new
cases must be large beside both. The runs of two settings are paired by seed and by case, and

    variance of the difference = variance over seeds / S + variance over cases (delete-one jackknife)

This is min F' of Clark ("The language-as-fixed-effect fallacy", 1973), a test with two crossed random factors; it
counts twice what seeds and cases share. The critical value is that of Cochran and Cox ("Experimental Designs", 1957),
the mean of Student's t of both degrees of freedom, weighted by the variances. It keeps its level from two seeds on,
where Satterthwaite's degrees of freedom do not. P-values are corrected by Holm (1979). Decision 0047 has the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isnan, log, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

ROUNDING = 1e-9
"""Differences and errors below this share of the scores are rounding. Our choice, as scores keep nine digits."""
SMALLEST_P = 1e-30
"""Smaller p-values are not told apart. Our choice."""
BISECTIONS = 50
"""Halvings of the interval of a p-value's logarithm: to a relative 1e-13."""
INTERVAL = 0.95
"""Level of the intervals of single scores and differences."""

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What the runs of one setting add up to.

    Attributes:
        parts: numerators by seed and held-out case, float64 (S, C).
        whole: denominators by case, the same for all settings, float64 (C,).
    """

    parts: Sums
    whole: Sums

    @property
    def by_seed(self) -> Sums:
        """The score of each run, (S,)."""
        scores: Sums = self.parts.sum(1) / self.whole.sum()
        return scores


@dataclass(frozen=True)
class Estimate:
    """A score or a difference of two, with what it varies by; errors that cannot be estimated are NaN.

    Attributes:
        value: mean over seeds.
        seed_error: standard error over seeds, NaN for one run.
        case_error: standard error over held-out cases, NaN for one case.
        seed_freedom, case_freedom: degrees of freedom of these.
        freedom_of_cases: those of the error over cases by itself, where `case_freedom` is but a bound for both;
            `None` where it is the same.
    """

    value: float
    seed_error: float
    case_error: float
    seed_freedom: float
    case_freedom: float
    freedom_of_cases: float | None = None

    @property
    def error(self) -> float:
        """Standard error over both, NaN if one of them is."""
        return sqrt(self.seed_error**2 + self.case_error**2)

    def critical(self, tail: float) -> float:
        """How many of `error` a value lies from 0 with the probability `tail` in each tail, by Cochran and Cox."""
        errors, freedoms = (self.seed_error, self.case_error), (self.seed_freedom, self.case_freedom)
        weights = [error**2 for error in errors] if self.error > 0 else [1.0, 1.0]
        terms = [w * -float(stdtrit(freedom, tail)) for w, freedom in zip(weights, freedoms, strict=True) if w > 0]
        return sum(terms) / sum(weights)

    def interval(self, over: str = "both") -> tuple[float, float]:
        """The 95 % interval over "seeds", "cases" or "both"; NaN where there is none."""
        tail = (1 - INTERVAL) / 2
        if over == "both":
            half = self.critical(tail) * self.error if not isnan(self.error) else nan
        else:
            of_cases = self.case_freedom if self.freedom_of_cases is None else self.freedom_of_cases
            error, freedom = (self.seed_error, self.seed_freedom) if over == "seeds" else (self.case_error, of_cases)
            half = -float(stdtrit(freedom, tail)) * error if not isnan(error) else nan
        return self.value - half, self.value + half

    def p_value(self, scale: float) -> float:
        """Two-sided p-value of no difference; 1 where there is none but for rounding, beside scores of size `scale`;
        NaN where it cannot be tested: a single run, or a single held-out case.
        """
        if isnan(self.error):
            return nan
        if abs(self.value) <= ROUNDING * scale:
            return 1.0
        distance = abs(self.value) / max(self.error, ROUNDING * scale)
        low, high = log(SMALLEST_P), 0.0  # of the logarithm of p: the critical value falls as p rises
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.critical(exp(middle) / 2) > distance else (low, middle)
        return exp(high)


def estimate_score(scores: Scores) -> Estimate:
    """The mean score of a setting over its seeds."""
    num_seeds, num_cases = scores.parts.shape
    by_seed = scores.by_seed
    seed_error = float(by_seed.std(ddof=1)) / sqrt(num_seeds) if num_seeds > 1 else nan
    whole = scores.whole.sum()
    case_error = nan
    if num_cases > 1:
        case_columns = scores.parts.mean(0)
        left = (case_columns.sum() - case_columns) / (whole - scores.whole)
        case_error = sqrt((num_cases - 1) / num_cases * float(np.square(left - left.mean()).sum()))
    return Estimate(
        float(by_seed.mean()), seed_error, case_error, max(num_seeds - 1, 0), max(equal_cases(scores.whole) - 1, 0)
    )


def equal_cases(whole: Sums) -> float:
    """Number of cases of equal weight that weigh as much as these (C,), by Kish (1965): fewer if some dominate."""
    return float(whole.sum() ** 2 / np.square(whole).sum())


@dataclass(frozen=True)
class Pair:
    """Two settings, compared.

    Attributes:
        first, second: names; the difference is the second less the first.
        difference: of the second and the first.
        p: p-value; NaN where it cannot be tested.
        p_holm: corrected for all pairs of the table.
        verdict: "higher" or "lower" where the second's difference is shown, "not shown", "the same" for equal scores,
            or "cannot be said".
    """

    first: str
    second: str
    difference: Estimate
    p: float
    p_holm: float
    verdict: str


def compare_settings(scores: Mapping[str, Scores], pairs: Sequence[tuple[str, str]], level: float) -> list[Pair]:
    """Compare the pairs of settings, paired by seed and case; see `judge`."""
    differences = {(first, second): estimate_score(_less(scores[second], scores[first])) for first, second in pairs}
    sizes = {name: float(np.abs(each.by_seed).max()) for name, each in scores.items()}
    return judge(differences, {pair: max(sizes[name] for name in pair) for pair in pairs}, level)


def judge(
    differences: Mapping[tuple[str, str], Estimate], scales: Mapping[tuple[str, str], float], level: float
) -> list[Pair]:
    """Say of each pair's difference whether it is shown: whether its corrected p-value is below `level`.

    `scales` are the sizes of the scores, for what is rounding.
    """
    ps = [difference.p_value(scales[pair] or 1.0) for pair, difference in differences.items()]
    return [
        Pair(*pair, difference, p, p_holm, pair_verdict(difference.value, p, p_holm, level))
        for (pair, difference), p, p_holm in zip(differences.items(), ps, holm(ps), strict=True)
    ]


def _less(scores: Scores, others: Scores) -> Scores:
    """The differences, paired by seed and case."""
    return Scores(scores.parts - others.parts, scores.whole)


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm ("A simple sequentially rejective multiple test procedure", 1979).

    Those that are NaN were not tested, stay NaN and do not count.
    """
    tested = sorted((p, i) for i, p in enumerate(ps) if not isnan(p))
    corrected, largest = [nan] * len(ps), 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[i] = largest
    return corrected


def pair_verdict(difference: float, p: float, p_holm: float, level: float) -> str:
    """What a comparison shows, in a word; see `Pair`."""
    if isnan(p):
        return "cannot be said"
    if p_holm < level:
        return "higher" if difference > 0 else "lower"
    return "the same" if p == 1.0 else "not shown"


def not_shown_lower(scores: Mapping[str, Scores], pairs: Sequence[Pair]) -> list[str]:
    """Settings of which none of the pairs shows that another one is higher, the highest first: the winner, or those
    that tie with it.
    """
    beaten = {pair.first for pair in pairs if pair.verdict == "higher"}
    beaten |= {pair.second for pair in pairs if pair.verdict == "lower"}
    left = [name for name in scores if name not in beaten]
    return sorted(left, key=lambda name: -float(scores[name].by_seed.mean()))
