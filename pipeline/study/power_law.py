"""Extrapolate a learning curve: what would twice the slides give? Pure.

A saturating power law, score(n) = ceiling - drop * n^-exponent, with drop and exponent above 0 (Cortes et al.,
"Learning curves: asymptotic values and rate of convergence", 1994; Hestness et al., "Deep learning scaling is
predictable, empirically", 2017). It is fitted by least squares: for each exponent of a grid the other two follow in
closed form.
The interval is a bootstrap's: held-out cases are drawn anew for all points together, and each point gets an error as
large as runs of several seeds differ by. Where the points do not support the law, nothing is extrapolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.study.compare import Scores, equal_cases

EXPONENTS = np.geomspace(0.05, 3.0, 200)
"""Exponents that are tried. Our choice: published ones lie between 0.07 and 1 (Hestness et al., 2017); a larger one is
a curve that is flat after its first points.
"""
MIN_POINTS = 4
"""Points of a law with three parameters that leave one to see whether it fits."""
TWICE = 2.0
"""How far to extrapolate, in times the largest number. Our choice: few points say nothing of what lies farther off."""
LACK_OF_FIT = 3.0
"""Largest root mean square of the residuals, in times the points' errors, that still counts as a fit. Our choice."""
SMALLEST_RISE = 1e-9
"""A law that rises less than this is flat but for rounding."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """A fitted law; arrays of B for B fits, (B,) each."""

    ceiling: Floats
    drop: Floats
    exponent: Floats

    def at(self, n: float) -> Floats:
        """The score at n, (B,)."""
        value: Floats = self.ceiling - self.drop * n**-self.exponent
        return value


@dataclass(frozen=True)
class Extrapolation:
    """What is said of a larger number.

    Attributes:
        at: the number.
        why_not: why it cannot be said; "" if it can be. The rest then holds.
        score, low, high: the score there and its 95 % interval.
        gain, gain_low, gain_high: the same less the law's score at the largest number that was measured.
        ceiling, drop, exponent: of the law.
    """

    at: float
    why_not: str
    score: float = np.nan
    low: float = np.nan
    high: float = np.nan
    gain: float = np.nan
    gain_low: float = np.nan
    gain_high: float = np.nan
    ceiling: float = np.nan
    drop: float = np.nan
    exponent: float = np.nan

    def law_at(self, numbers: Floats) -> Floats:
        """The fitted law at these numbers, (N,)."""
        scores: Floats = self.ceiling - self.drop * numbers**-self.exponent
        return scores

    def words(self, name: str, score: str) -> str:
        """What is said, in a sentence; `name` is that of the axis."""
        if self.why_not:
            return f"twice the {name}: cannot be said: {self.why_not}"
        return (
            f"twice the {name} ({self.at:g}) would give about {self.score:.3f} ({self.low:.3f} to {self.high:.3f}) in "
            f"{score}: {self.gain:+z.3f} ({self.gain_low:+z.3f} to {self.gain_high:+z.3f}) on what there is now"
        )


def fit_law(numbers: Sequence[float], scores: Floats) -> Law:
    """Fit the law to scores (B, P) at P numbers, for each of B.

    A curve that does not rise gets a drop of 0: it is flat at its mean.
    """
    sizes = np.asarray(numbers, np.float64)
    mean = scores.mean(1)
    centred = scores - mean[:, None]
    best = np.full(len(scores), np.inf)
    ceiling, drop, exponent = mean.copy(), np.zeros(len(scores)), np.full(len(scores), EXPONENTS[0])
    for each in EXPONENTS:
        fallen = (sizes / sizes.max()) ** -each
        x = fallen - fallen.mean()
        slope = np.maximum(-(centred @ x) / (x @ x), 0)
        error = np.square(centred + slope[:, None] * x).sum(1)
        better = error < best
        best = np.where(better, error, best)
        ceiling = np.where(better, mean + slope * fallen.mean(), ceiling)
        drop = np.where(better, slope * sizes.max() ** each, drop)
        exponent = np.where(better, each, exponent)
    return Law(ceiling, drop, exponent)


def extrapolate(points: Sequence[tuple[float, Scores]], *, resamples: int, seed: int) -> Extrapolation:
    """Say what twice the largest number would give, from the scores at each number.

    Args:
        points: by number; all of the same held-out cases and number of seeds.
        resamples: of the bootstrap.
        seed: of its draws.
    """
    points = sorted(points, key=lambda point: point[0])
    numbers, scores = [number for number, _ in points], [each for _, each in points]
    at = TWICE * numbers[-1]
    if why_not := _why_no_fit(scores):
        return Extrapolation(at, why_not)
    draws, noise = resampled(scores, resamples, seed)
    values = np.array([[float(each.by_seed.mean()) for each in scores]])
    law, laws = fit_law(numbers, values), fit_law(numbers, draws)
    first, last, after = ((float(law.at(n)[0]), laws.at(n)) for n in (numbers[0], numbers[-1], at))
    (low, high), (gain_low, gain_high) = (
        np.quantile(each, (0.025, 0.975)).tolist() for each in (after[1], after[1] - last[1])
    )
    rise, residuals = last[0] - first[0], values[0] - np.concatenate([law.at(number) for number in numbers])
    why_not = ""
    if rise <= SMALLEST_RISE or _is_flat(draws):
        why_not = f"no rise from {numbers[0]:g} to {numbers[-1]:g} is shown: the curve is flat, or runs differ too much"
    elif sqrt(float(np.square(residuals).sum()) / (len(numbers) - 3)) > LACK_OF_FIT * float(noise.max()):
        why_not = "the points do not follow a saturating power law"
    elif gain_high - gain_low > rise / 2:
        why_not = (
            f"the interval of the gain, {gain_low:+z.3f} to {gain_high:+z.3f}, is wider than half of the rise that was "
            f"measured, {rise:.3f}: give more seeds or points, or hold out more cases"
        )
    if why_not:
        return Extrapolation(at, why_not)
    parameters = (float(law.ceiling[0]), float(law.drop[0]), float(law.exponent[0]))
    return Extrapolation(at, "", after[0], low, high, after[0] - last[0], gain_low, gain_high, *parameters)


def _why_no_fit(scores: Sequence[Scores]) -> str:
    """Why these points say nothing of a law, whatever their scores; "" if they may."""
    if len(scores) < MIN_POINTS:
        return f"{counted(len(scores), 'point')}; the law needs at least {MIN_POINTS}"
    if len(scores[0].parts) < 2:
        return "one run a point does not say how much runs differ; give --seeds 2 or more"
    if equal_cases(scores[0].whole) < 2:
        return "the held-out patches are of one case, or nearly so"
    return ""


def _is_flat(draws: Floats) -> bool:
    """Whether the scores of the upper half of the points are not above those of the lower half in 97.5 % of draws."""
    half = draws.shape[1] // 2
    return float(np.quantile(draws[:, -half:].mean(1) - draws[:, :half].mean(1), 0.025)) <= 0


def resampled(points: Sequence[Scores], resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Bootstrap draws of the mean scores, float64 (B, P), and each point's error over seeds, (P,).

    Cases are drawn with replacement, the same for all points. The variance over seeds of a point is the mean of its own
    and of that of all points, as few seeds say little of one; its errors follow Student's t.
    """
    rng = np.random.default_rng(seed)
    whole, num_seeds = points[0].whole, len(points[0].parts)
    weights = rng.multinomial(len(whole), np.full(len(whole), 1 / len(whole)), size=resamples)
    totals = weights @ whole
    means = np.stack([scores.parts.mean(0) for scores in points])
    case_columns = (weights @ means.T) / totals[:, None]
    variances = np.array([scores.by_seed.var(ddof=1) for scores in points])
    noise = np.sqrt((variances + variances.mean()) / 2 / num_seeds)
    errors = rng.standard_t(len(points) * (num_seeds - 1), size=(resamples, len(points)))
    return case_columns + noise * errors, noise
