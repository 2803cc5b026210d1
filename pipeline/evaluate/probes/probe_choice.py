"""Choose how strongly a linear probe is regularised: by the reported score, on splits of groups of the training part.

The reported score counts every class the same (balanced accuracy, or AUROC as a mean over the classes). So the
regression weighs every class the same, and the strength C is the one with the largest score on the test rows of all
inner splits together; of equal scores, the stronger penalty. Inner splits keep groups (cases) together, as the folds
do, so that C is chosen for unseen cases. Log loss chooses otherwise: with few cases it punishes every confident
mistake, and ends at the penalty under which the probe predicts the classes' frequencies (docs/decisions/0033). Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.folds import Fold, Rows, group_folds
from pipeline.evaluate.probes.logistic import Floats, LogisticModel, balanced_weights, fit_logistic

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalties to choose from. Our choice: on standardised features 1e-5 is the direction of the classes' means,
and 1 next to no penalty.
"""
PATH_TOLERANCE = 1e-3
"""Of the gradient while choosing. Our choice: ten times that of the fit that counts; strengths are ten times apart."""
DEFAULT_STRENGTH = 1e-2
"""Where there is nothing to choose by. Our choice: the middle of `STRENGTHS`."""
INNER_FOLDS = (3, 2)
"""Numbers of inner folds, the first that the groups allow. Our choice: each fit sees two thirds of the examples."""
SCORE_DIGITS = 12
"""Scores that are equal to so many digits are equal; beyond it is the rounding of their means."""

ProtocolName = Literal["g2l", "plain", "eva", "pathorob"]
ScoreName = Literal["balanced_accuracy", "auroc", "log_loss"]
SCORE_WORDS = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "log_loss": "log likelihood"}
"""What the scores are called; of each a larger one is better."""


@dataclass(frozen=True)
class ProbeProtocol:
    """How classes weigh in probes, and how linear ones are regularised; `protocols.PROTOCOLS` has them by name.

    Attributes:
        strengths: inverse penalties to choose from; a single one is fixed and nothing is chosen; none for eva.
        score: what they are chosen by.
        is_balanced: every class weighs the same, in the votes of kNN and in G2L's own regression, else by its
            frequency. The regressions of others always weigh classes by their frequency.
        name: whose linear probe it is.
    """

    strengths: tuple[float, ...] = STRENGTHS
    score: ScoreName = "balanced_accuracy"
    is_balanced: bool = True
    name: ProtocolName = "g2l"

    @property
    def is_published(self) -> bool:
        """The linear probe is that of others, which needs validation rows beside those it is fitted on."""
        return self.name in ("eva", "pathorob")

    @property
    def regression_is_balanced(self) -> bool:
        """Classes weigh the same in the linear probe."""
        return self.is_balanced and not self.is_published

    @property
    def is_fixed(self) -> bool:
        """Nothing is chosen."""
        return len(self.strengths) == 1

    def weights(self, truth: Rows) -> Floats:
        """Weights of rows of the classes `truth` (n,), mean 1."""
        return balanced_weights(truth) if self.is_balanced else np.ones(len(truth))

    def record(self) -> dict[str, object]:
        """As JSON types."""
        chosen_by = "fixed" if self.is_fixed else SCORE_WORDS[self.score]
        if self.name == "eva":
            chosen_by = "accuracy on validation rows, of checkpoints"
        return {
            "strengths": list(self.strengths),
            "chosen_by": chosen_by,
            "classes_weigh": "the same" if self.regression_is_balanced else "by their frequency",
            "protocol": self.name,
        }


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Predictions of rows of a training part that the regression was not fitted on.

    Attributes:
        truth: class of each row, (n,).
        log_probabilities: (n, C).
    """

    truth: Rows
    log_probabilities: Floats


@dataclass(frozen=True, eq=False)
class Choice:
    """The strength of one fold.

    Attributes:
        strength: the chosen inverse penalty; of eva, which has none, the steps of the chosen checkpoint.
        curve: the score at each strength of the protocol, (S,); NaN where there was nothing to choose by.
        held_out: predictions at the strength of the rows that it was chosen by; `None` where nothing was chosen.
    """

    strength: float
    curve: Floats
    held_out: HeldOutRows | None = None

    @property
    def is_chosen(self) -> bool:
        """Whether there was something to choose by."""
        return bool(np.isfinite(self.curve).any())


def choose_strength(
    features: NDArray[np.float32],
    truth: Rows,
    num_classes: int,
    inner: Sequence[Fold],
    protocol: ProbeProtocol,
    moments: Floats,
) -> Choice:
    """The strength of the largest score on the inner splits' test rows; the stronger penalty of equal ones.

    Args:
        features: of all rows, (N, D), standardised by the training part.
        truth: class of each row, (N,).
        moments: about the second moments of the training part.
    """
    curve = np.full(len(protocol.strengths), np.nan)
    if protocol.is_fixed:
        return Choice(protocol.strengths[0], curve)
    if not inner:
        return Choice(DEFAULT_STRENGTH, curve)
    models: list[LogisticModel | None] = [None] * len(inner)
    parts = [(features[split.train], features[split.test]) for split in inner]
    weights = [protocol.weights(truth[split.train]) for split in inner]
    tested = np.concatenate([truth[split.test] for split in inner])
    split_of_row = np.repeat(np.arange(len(inner)), [len(split.test) for split in inner])
    by_strength = []
    for number, strength in enumerate(protocol.strengths):
        predicted = []
        for index, split in enumerate(inner):
            model = fit_logistic(
                parts[index][0],
                truth[split.train],
                num_classes,
                strength,
                moments,
                models[index],
                PATH_TOLERANCE,
                weights[index],
            )
            models[index] = model
            predicted.append(model.log_probabilities(parts[index][1]))
        by_strength.append(np.concatenate(predicted))
        curve[number] = score_of(protocol.score, tested, by_strength[-1], split_of_row)
    if not np.isfinite(curve).any():
        return Choice(DEFAULT_STRENGTH, curve)
    best = best_of(curve)
    return Choice(protocol.strengths[best], curve, HeldOutRows(tested, by_strength[best]))


def best_of(curve: Floats) -> int:
    """Place of the largest of the scores (S,); the first of those that are equal to `SCORE_DIGITS`. NaN is none."""
    return int(np.nanargmax(np.round(curve, SCORE_DIGITS)))


def score_of(name: ScoreName, truth: Rows, log_probabilities: Floats, parts: Rows) -> float:
    """A score of rows with classes `truth` (n,) and log probabilities (n, C), by the split `parts` (n,) of each; NaN
    where it does not exist.
    """
    rows = np.arange(len(truth))
    if name == "log_loss":
        return float(log_probabilities[rows, truth].mean())
    classes = np.unique(truth)
    if name == "balanced_accuracy":
        right = log_probabilities.argmax(1) == truth
        return float(np.mean([right[truth == one].mean() for one in classes]))
    scored = classes[1:] if len(classes) == 2 else classes
    return float(np.mean([_auroc(truth == one, log_probabilities[:, one], parts) for one in scored]))


def _auroc(positive: NDArray[np.bool_], scores: Floats, parts: Rows) -> float:
    """Share of the pairs within a part in which the positive row has the larger score, a tie counting half; NaN where
    there is no pair.
    """
    won = pairs = 0.0
    for part in np.unique(parts):
        here = parts == part
        own, ranks = positive[here], rankdata(scores[here])
        count = int(own.sum())
        won += float(ranks[own].sum()) - count * (count + 1) / 2
        pairs += count * (len(own) - count)
    return won / pairs if pairs else float("nan")


def inner_splits(labels: NDArray[np.str_], groups: NDArray[np.str_], fold: Fold, seed: int) -> list[Fold]:
    """The val rows of a given split, else folds within the training part; none where its groups allow none.

    A class of one group cannot be on both sides: its rows take no part in the choice.
    """
    if len(fold.val):
        return [Fold(fold.train, fold.val)]
    pairs = np.unique(np.stack([labels[fold.train], groups[fold.train]]), axis=1)
    names, num_groups = np.unique(pairs[0], return_counts=True)
    rows = fold.train[np.isin(labels[fold.train], names[num_groups > 1])]
    for num_folds in INNER_FOLDS:
        try:
            splits = group_folds(labels[rows], groups[rows], num_folds, seed, "inner folds")
        except BenchmarkError:  # too few groups for so many folds
            continue
        return [Fold(rows[split.train], rows[split.test]) for split in splits]
    return []


def choice_notes(
    classes: Sequence[str], truth: Rows, folds: Sequence[Fold], inner: Sequence[Sequence[Fold]]
) -> tuple[str, ...]:
    """What a reader must know of splits that cannot choose, or not by all classes."""
    notes = []
    if without := sum(not splits for splits in inner):
        notes.append(
            f"In {without} of {len(folds)} folds the training part has too few groups (cases) to choose the linear "
            f"probe's regularisation by: C = {DEFAULT_STRENGTH:g} is taken."
        )
    lacking: dict[str, int] = {}
    for fold, splits in zip(folds, inner, strict=True):
        if splits:
            tested = np.concatenate([truth[split.test] for split in splits])
            for missing in np.setdiff1d(truth[fold.train], tested).tolist():
                lacking[classes[missing]] = lacking.get(classes[missing], 0) + 1
    if lacking:
        listed = ", ".join(f"{name!r} in {count} of {len(folds)} folds" for name, count in lacking.items())
        notes.append(
            f"The linear probe's C is chosen without some classes, as the rows to choose by lack them or have them of "
            f"one group (case) only: {listed}."
        )
    return tuple(notes)


def edge_note(choices: Sequence[Choice], protocol: ProbeProtocol) -> str:
    """What a reader must know of choices at an end of the grid; "" where there are none. An end that is no better than
    the strength beside it is none: the curve is flat there.
    """
    curves = [np.round(choice.curve, SCORE_DIGITS) for choice in choices if choice.is_chosen]
    at_strongest = "goes by the means of the classes" if protocol.is_balanced else "says little but their frequencies"
    ends = [
        (0, 1, f"strongest penalty of the grid (C = {{end:g}}), where the probe {at_strongest}"),
        (-1, -2, "weakest penalty of the grid (C = {end:g}), and a weaker one may be better"),
    ]
    words = [
        f"in {count} of {len(choices)} folds at the {text.format(end=protocol.strengths[end])}"
        for end, beside, text in ends
        if (count := sum(curve[end] == np.nanmax(curve) and curve[end] > curve[beside] for curve in curves))
    ]
    return f"C was chosen {'; '.join(words)}." if words else ""
