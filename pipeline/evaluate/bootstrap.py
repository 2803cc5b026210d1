"""Confidence intervals: percentiles of a bootstrap that draws whole groups (cases), paired between models.

Patches of one case resemble each other, so a resample draws cases with replacement, and a drawn case brings all of its
rows (the cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, chapter 3.8). All
models are scored on the same resamples; a difference between two of them is taken resample by resample.

A metric of a resample is computed from the rows' weights (how often their group was drawn), never by copying rows. The
sums are of integers and halves, exact in float64, so that no digit depends on the number of threads. Left out:
bias-corrected intervals, and the spread that training again would add: predictions are fixed. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.draws import draw_seed
from pipeline.base.errors import BenchmarkError
from pipeline.report.content import Interval

LEVEL = 0.95
"""Share of the resamples that an interval spans: 95 %, as is usual."""
MIN_DEFINED = 0.5
"""Our choice: where fewer than this share of the resamples give the metric, those that do say little, and none is given
for an interval.
"""
MIN_GROUPS = 5
"""Groups below which there is no interval. Our choice: of G groups there are (2 G - 1 choose G) different resamples, 35
of four, less than one for each end of 2.5 %; five have 126, the first with a few beyond either end.
"""
FEW_GROUPS = 20
"""Groups below which a note says that intervals are too narrow: what counts as few clusters begins between 20 and 50
(Cameron and Miller, "A practitioner's guide to cluster-robust inference", Journal of Human Resources 2015).
"""
ROUNDING = 1e-9
"""A difference smaller than this is none. Means over classes are float64 sums, whose last digits depend on which class
is added first, so that two models that are right equally often seem to differ by 1e-16. Real differences are larger:
one patch of a million is 1e-6.
"""
READ_DIFFERENCES = (
    "Where the interval of a difference covers 0, it does not show a difference, and does not show that the two are "
    "equal either: its lower end says how much worse the model could still be."
)
"""What stands below every table of differences."""
METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "auroc")
"""Keys of what `classification_draws` gives."""
BLOCK_WEIGHTS = 1 << 19
"""Weights of rows in work at once. Our choice: 4 MB in float64, which stays in a core's cache."""

Floats = NDArray[np.float64]


class GroupResamples:
    """Draws of groups with replacement, as many as there are groups.

    The draws depend on the names of the groups and the seed, never on the order of the rows.

    Attributes:
        counts: how often each resample drew each group, int32 (B, G); groups in the order of their names.
        group_of_row: index of each row's group, int64 (N,).
        num_groups: G.
    """

    def __init__(self, groups: NDArray[np.str_], resamples: int, seed: int) -> None:
        """Draw for rows of the given `groups` (N,).

        Raises:
            ValueError: no rows, or no resamples.
        """
        if len(groups) == 0 or resamples < 1:
            raise ValueError(f"a bootstrap needs rows and resamples, not {len(groups)} and {resamples}")
        names, self.group_of_row = np.unique(groups, return_inverse=True)
        self.num_groups = len(names)
        generator = np.random.default_rng(draw_seed("bootstrap", seed))
        self.counts: NDArray[np.int32] = np.empty((resamples, self.num_groups), np.int32)
        for row in self.counts:
            row[:] = np.bincount(generator.integers(self.num_groups, size=self.num_groups), minlength=self.num_groups)

    def __len__(self) -> int:
        return len(self.counts)

    def sums(self, values: Floats) -> Floats:
        """Sums of `values` (N, M) over the rows of each resample, a row as often as its group was drawn: (B, M)."""
        by_group = np.zeros((self.num_groups, values.shape[1]))
        np.add.at(by_group, self.group_of_row, values)
        blocks = _blocks(len(self), self.num_groups)
        return np.concatenate([self.counts[block].astype(np.float64) @ by_group for block in blocks])


@dataclass(frozen=True)
class Draws:
    """A statistic of the data, and of each resample.

    Attributes:
        value: of the data as they are.
        draws: of the resamples, (B,); NaN where the statistic does not exist.
    """

    value: float
    draws: Floats

    @property
    def num_dropped(self) -> int:
        """Resamples for which the statistic does not exist; no interval counts them."""
        return int(np.isnan(self.draws).sum())


def interval(draws: Draws, level: float = LEVEL) -> Interval:
    """The percentile interval over the resamples for which the statistic exists.

    NaN for both ends where there are fewer than `MIN_GROUPS` groups, or too few such resamples (`MIN_DEFINED`).
    """
    defined = draws.draws[~np.isnan(draws.draws)]
    if len(defined) == 0 or len(defined) < MIN_DEFINED * len(draws.draws):
        return Interval(draws.value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(draws.value, float(low), float(high))


def subtract(first: Draws, second: Draws) -> Draws:
    """`first` - `second`, resample by resample; both must come from the same `GroupResamples`.

    What is smaller than `ROUNDING` is exactly 0.
    """
    value, draws = first.value - second.value, first.draws - second.draws
    return Draws(0.0 if abs(value) < ROUNDING else value, np.where(np.abs(draws) < ROUNDING, 0.0, draws))


def difference(first: Draws, second: Draws, level: float = LEVEL) -> Interval:
    """`first` - `second` with its paired interval; both must come from the same `GroupResamples`."""
    return interval(subtract(first, second), level)


def few_groups_note(num_groups: int, what: str) -> str:
    """What a reader must know of intervals from so few groups; `what` they are, in the plural; "" if they suffice."""
    if num_groups < MIN_GROUPS:
        return f"Intervals need at least {MIN_GROUPS} {what}; with {num_groups} none is given."
    if num_groups < FEW_GROUPS:
        return f"Intervals rest on {num_groups} {what} only, and are rather too narrow."
    return ""


def bound_note(estimates: Mapping[str, Sequence[Interval]]) -> str:
    """What a reader must know of estimates, by their names, that are as low (0) or as high (1) as can be; else ""."""
    at_bound = [
        name
        for name, intervals in estimates.items()
        if any(min(one.value, 1 - one.value) < ROUNDING and np.isfinite(one.low) for one in intervals)
    ]
    if not at_bound:
        return ""
    return (
        f"An estimate of 0 or 1 sits at the bound of its scale ({'; '.join(at_bound)}). Its interval has no width, "
        "which is no certainty: resampling cannot see what did not occur."
    )


def ratio_draws(numerators: Floats, denominators: Floats, resamples: GroupResamples) -> Draws:
    """A ratio of sums over rows, such as sum SO / (sum SO + sum OS); `numerators` and `denominators` are (N,).

    A resample whose denominators sum to 0 has none, and neither have the data.
    """
    both = np.stack([numerators, denominators], axis=1).astype(np.float64)
    sums = np.concatenate([both.sum(0)[None], resamples.sums(both)])
    return statistic_draws(_divide(sums[:, 0], sums[:, 1]), resamples)


def mean_draws(values: Floats, resamples: GroupResamples) -> Draws:
    """The mean of `values` (N,) over rows."""
    return ratio_draws(values, np.ones(len(values)), resamples)


def class_mean_draws(truth: NDArray[np.int64], values: Floats, resamples: GroupResamples) -> Draws:
    """The mean of `values` (N,) of each class of `truth` (N,), averaged over the classes: each class counts the same.

    Of 0 and 1 for wrong and right it is the balanced accuracy. A resample that lacks a class has none (NaN).
    """
    is_class = truth[:, None] == np.unique(truth)
    both = np.concatenate([is_class * values[:, None], is_class], axis=1)
    sums, support = np.split(np.concatenate([both.sum(0)[None], resamples.sums(both)]), 2, axis=1)
    return statistic_draws(_divide(sums, support).mean(1), resamples)


def classification_draws(
    truth: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    resamples: GroupResamples,
    parts: NDArray[np.int64] | None = None,
) -> dict[str, Draws]:
    """Accuracies, macro F1 and AUROC of `probabilities` (N, C) for the classes `truth` (N,), by `METRICS`.

    The predicted class is the most probable one (the first of several). Accuracy is the share of the rows that are
    right, scikit-learn's `accuracy_score`: frequent classes count more. The others are unweighted means over the
    classes that occur in `truth`, as scikit-learn's `balanced_accuracy_score`, `f1_score(average="macro",
    labels=those)` and `roc_auc_score(average="macro", multi_class="ovr")`; with two classes the AUROC is that of class
    1. A resample that lacks one of these classes would be another question with fewer answers: it has none of the
    four (NaN), and `Draws.num_dropped` counts it.

    `parts` (N,) says which fold a row was predicted in. The AUROC then compares rows of the same fold only: scores of
    different classifiers have no common scale, and compared they favour the class that their training part lacked, so
    that even useless scores come out below 0.5 (Forman and Scholz, "Apples-to-apples in cross-validation studies",
    SIGKDD Explorations 2010).

    Raises:
        BenchmarkError: `truth` has a single class, or a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities).all(1)).sum())
        raise BenchmarkError(f"{bad} of {len(truth)} rows have probabilities that are no finite numbers")
    classes = np.unique(truth)
    if len(classes) < 2:
        raise BenchmarkError(f"all {len(truth)} scored rows are of one class: there is nothing to tell apart")
    is_class = truth[:, None] == classes
    is_predicted = probabilities.argmax(1)[:, None] == classes
    counted = np.concatenate([is_class, is_predicted, is_class & is_predicted], axis=1).astype(np.float64)
    sums = np.concatenate([counted.sum(0)[None], resamples.sums(counted)])
    support, predicted, hits = np.split(sums, 3, axis=1)
    complete = (support > 0).all(1)
    recall, f1 = _divide(hits, support), _divide(2 * hits, support + predicted)
    scored = classes[1:] if len(classes) == 2 and probabilities.shape[1] == 2 else classes
    auroc = np.mean([auroc_of_resamples(truth == c, probabilities[:, c], resamples, parts) for c in scored], axis=0)
    accuracy = _divide(hits.sum(1), support.sum(1))
    metrics = zip(METRICS, (recall.mean(1), accuracy, f1.mean(1), auroc), strict=True)
    return {name: statistic_draws(np.where(complete, values, np.nan), resamples) for name, values in metrics}


def auroc_of_resamples(
    positive: NDArray[np.bool_],
    scores: NDArray[np.floating],
    resamples: GroupResamples,
    parts: NDArray[np.int64] | None = None,
) -> Floats:
    """Area under the ROC curve of `scores` (N,), of the data and then of each resample: (1 + B,).

    It is the share of pairs of a positive and a negative row in which the positive one has the larger score, a tie
    counting half; with `parts` (N,), of pairs within a part. NaN where there is no pair.
    """
    won, pairs = np.zeros(1 + len(resamples)), np.zeros(1 + len(resamples))
    parts = np.zeros(len(scores), np.int64) if parts is None else parts
    for part in np.unique(parts):
        rows = parts == part
        part_won, part_pairs = _pairs_won(positive[rows], scores[rows], resamples.group_of_row[rows], resamples)
        won += part_won
        pairs += part_pairs
    return _divide(won, pairs)


def _pairs_won(
    positive: NDArray[np.bool_],
    scores: NDArray[np.floating],
    group_of_row: NDArray[np.int64],
    resamples: GroupResamples,
) -> tuple[Floats, Floats]:
    """Weights of pairs that the positive row wins, and of all pairs: of the data and of each resample, (1 + B,)."""
    negative_scores = scores[~positive]
    order = np.argsort(negative_scores, kind="stable")
    ordered = negative_scores[order]
    below, up_to = (np.searchsorted(ordered, scores[positive], side=side) for side in ("left", "right"))
    positives, negatives = group_of_row[positive], group_of_row[~positive][order]

    def in_block(counts: NDArray[np.int32]) -> tuple[Floats, Floats]:
        weights, others = counts.take(positives, axis=1), counts.take(negatives, axis=1)
        before = np.zeros((len(others), len(ordered) + 1), np.int32)  # weight of negatives before each place
        np.cumsum(others, axis=1, dtype=np.int32, out=before[:, 1:])
        beaten = before.take(below, axis=1).astype(np.float64)
        beaten += before.take(up_to, axis=1)
        return np.einsum("bn,bn->b", beaten, weights) / 2, weights.sum(1, dtype=np.float64) * before[:, -1]

    as_they_are = np.ones((1, resamples.num_groups), np.int32)
    blocks = _blocks(len(resamples), len(scores))
    counted = [in_block(as_they_are), *(in_block(resamples.counts[block]) for block in blocks)]
    return np.concatenate([won for won, _ in counted]), np.concatenate([pairs for _, pairs in counted])


def mean_of_draws(several: Sequence[Draws]) -> Draws:
    """The mean of a statistic of several predictions of the same rows, resample by resample."""
    return Draws(float(np.mean([each.value for each in several])), np.mean([each.draws for each in several], axis=0))


def statistic_draws(values: Floats, resamples: GroupResamples) -> Draws:
    """Draws of a statistic (1 + B,): of the data first; fewer than `MIN_GROUPS` groups give no draws."""
    draws = values[1:] if resamples.num_groups >= MIN_GROUPS else np.full(len(resamples), np.nan)
    return Draws(float(values[0]), draws)


def _divide(above: Floats, below: Floats) -> Floats:
    """A quotient; NaN where the divisor is 0."""
    quotient = np.full(below.shape, np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient


def _blocks(num_resamples: int, width: int) -> list[slice]:
    """Slices of the resamples that hold about `BLOCK_WEIGHTS` weights each."""
    size = max(1, BLOCK_WEIGHTS // width)
    return [slice(start, start + size) for start in range(0, num_resamples, size)]
