"""How the linear probe's C is chosen: by the reported score, by groups, and what is said of the choice."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from pipeline.evaluate.folds import Fold, given_split, group_folds
from pipeline.evaluate.probes.linear_probe import linear_probe, probe_task
from pipeline.evaluate.probes.probe_choice import (
    DEFAULT_STRENGTH,
    STRENGTHS,
    Choice,
    ProbeProtocol,
    best_of,
    edge_note,
    inner_splits,
    score_of,
)
from pipeline.evaluate.probes.protocols import probe_protocol

PLAIN = probe_protocol("plain", "balanced_accuracy", None)


def few_cases(
    seed: int, num_cases: int = 44, num_classes: int = 10, width: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.str_], NDArray[np.str_]]:
    """Embeddings, labels and cases of 16 patches a case, most of them of one class, that differ by case as well; the
    first class is about ten times as frequent as the last.
    """
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, num_classes + 1)
    case = np.repeat(np.arange(num_cases), 16)
    first, second = (rng.choice(num_classes, num_cases, p=shares / shares.sum()) for _ in range(2))
    first[: 2 * num_classes] = np.tile(np.arange(num_classes), 2)
    truth = np.where(rng.random(len(case)) < 0.7, first[case], second[case])
    hidden = rng.normal(size=(len(case), width)) + 0.5 * rng.normal(size=(num_cases, width))[case]
    hidden += 0.25 * rng.normal(size=(num_classes, width))[truth]
    mixed = (hidden * np.arange(1, width + 1) ** -0.75) @ rng.normal(size=(width, width))
    return mixed.astype(np.float32), np.char.add("class ", truth.astype(str)), np.char.add("case ", case.astype(str))


def probed_accuracy(seed: int, protocol: ProbeProtocol | None = None) -> float:
    """Balanced accuracy out of fold; without a protocol, as the report has it."""
    embeddings, labels, cases = few_cases(seed)
    task = probe_task(labels, cases, group_folds(labels, cases, 3, seed), seed, *([protocol] if protocol else []))
    return float(balanced_accuracy_score(task.truth, linear_probe(embeddings, task).probabilities.argmax(1)))


@pytest.mark.slow
def test_a_probe_of_few_cases_sees_what_a_fixed_one_sees() -> None:
    # chance is 0.1; of the plain protocol the probe stays near it, so that encoders cannot be told apart
    found = np.array([probed_accuracy(seed) for seed in range(2)])
    by_plain = np.array([probed_accuracy(seed, PLAIN) for seed in range(2)])
    fixed = np.array([probed_accuracy(seed, ProbeProtocol((0.1,))) for seed in range(2)])
    assert found.mean() > by_plain.mean() + 0.05
    assert found.mean() > fixed.mean() - 0.02


@pytest.mark.slow
def test_the_strength_has_the_largest_balanced_accuracy_of_the_inner_splits() -> None:
    embeddings, labels, cases = few_cases(1, num_classes=3, width=16)
    task = probe_task(labels, cases, group_folds(labels, cases, 4, 0), 0)
    found = linear_probe(embeddings, task)
    for fold, inner, choice in zip(task.folds, task.inner, found.choices, strict=True):
        features = StandardScaler().fit(embeddings[fold.train]).transform(embeddings)
        curve = []
        for candidate in STRENGTHS:
            predicted = np.full(len(labels), -1)
            for split in inner:
                fitted = LogisticRegression(C=candidate, max_iter=5000, tol=1e-6, class_weight="balanced")
                predicted[split.test] = fitted.fit(features[split.train], task.truth[split.train]).predict(
                    features[split.test]
                )
            rows = np.concatenate([split.test for split in inner])
            curve.append(balanced_accuracy_score(task.truth[rows], predicted[rows]))
        assert choice.curve == pytest.approx(curve, abs=0.03)  # rows on the boundary, by float32
        assert choice.strength == STRENGTHS[best_of(choice.curve)]


def test_of_equal_scores_the_stronger_penalty_counts() -> None:
    assert best_of(np.array([np.nan, 0.5, 0.7, 0.7 + 1e-15, 0.6])) == 2


def test_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, parts = rng.integers(3, size=90), np.zeros(90, np.int64)
    shares = rng.dirichlet([1, 1, 1], 90)
    logs = np.log(shares)
    assert score_of("balanced_accuracy", truth, logs, parts) == pytest.approx(
        balanced_accuracy_score(truth, shares.argmax(1))
    )
    assert score_of("auroc", truth, logs, parts) == pytest.approx(
        np.mean([roc_auc_score(truth == c, shares[:, c]) for c in range(3)])
    )
    two = truth > 0
    assert score_of("auroc", two.astype(int), logs[:, :2], parts) == pytest.approx(roc_auc_score(two, shares[:, 1]))
    assert score_of("log_loss", truth, logs, parts) == pytest.approx(np.log(shares[np.arange(90), truth]).mean())


def test_auroc_compares_rows_of_one_split_only() -> None:
    truth, parts = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    logs = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]]))  # right in each, not over both
    assert score_of("auroc", truth, logs, parts) == 1
    assert score_of("auroc", truth, logs, np.zeros(4, np.int64)) == 0.75
    assert np.isnan(score_of("auroc", truth, logs, np.arange(4)))


def test_the_inner_splits_keep_groups_together_and_out_of_the_test_part() -> None:
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(15, size=200).astype(str), rng.integers(2, size=200).astype(str)
    for fold in group_folds(labels, groups, 5, 0):
        inner = inner_splits(labels, groups, fold, 0)
        assert len(inner) == 3
        assert np.array_equal(np.sort(np.concatenate([split.test for split in inner])), fold.train)
        for split in inner:
            assert not set(split.train) & set(fold.test)
            assert not set(groups[split.train]) & set(groups[split.test])


def test_a_fixed_strength_is_taken_and_nothing_is_chosen() -> None:
    embeddings, labels, cases = few_cases(2, num_classes=3, width=8)
    folds = group_folds(labels, cases, 3, 0)
    task = probe_task(labels, cases, folds, 0, probe_protocol("g2l", "auroc", 0.3))
    assert not any(task.inner)
    assert task.notes == ()
    found = linear_probe(embeddings, task)
    assert found.strengths == (0.3, 0.3, 0.3)
    assert found.notes == ()
    assert not any(choice.is_chosen for choice in found.choices)


def test_the_plain_protocol_is_what_earlier_reports_had() -> None:
    assert ProbeProtocol(STRENGTHS, "log_loss", is_balanced=False, name="plain") == PLAIN
    assert PLAIN.record() == {
        "strengths": list(STRENGTHS),
        "chosen_by": "log likelihood",
        "classes_weigh": "by their frequency",
        "protocol": "plain",
    }


def test_classes_that_the_inner_splits_lack_are_told() -> None:
    labels = np.array(["a", "b"] * 30 + ["rare"] * 8)
    groups = np.array([f"case {i // 6}" for i in range(60)] + ["case 10"] * 4 + ["case 11"] * 4)
    task = probe_task(labels, groups, group_folds(labels, groups, 4, 0), 0)
    assert any("'rare' in 2 of 4 folds" in note for note in task.notes)


def test_val_that_lacks_a_class_is_told() -> None:
    labels, groups = np.array(["a", "b", "c"] * 10), np.arange(30).astype(str)
    splits = np.where(np.arange(30) < 15, "train", "test")
    splits[:2] = "val"
    task = probe_task(labels, groups, given_split(labels, groups, splits, "file.csv"), 0)
    assert "'c' in 1 of 1 folds" in task.notes[0]


def test_training_parts_that_cannot_choose_are_told() -> None:
    labels, groups = np.array(["a", "b"] * 20), np.repeat(["1", "2"], 20)
    task = probe_task(labels, groups, [Fold(np.arange(20), np.arange(20, 40))], 0)
    assert "In 1 of 1 folds" in task.notes[0]
    found = linear_probe(np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), task)
    assert found.strengths == (DEFAULT_STRENGTH,)
    assert np.isnan(found.choices[0].curve).all()


def chosen(*curve: float) -> Choice:
    return Choice(STRENGTHS[best_of(np.array(curve))], np.array(curve))


def test_choices_at_the_ends_of_the_grid_are_told() -> None:
    first, middle, last = chosen(6, 5, 4, 3, 2, 1), chosen(1, 2, 4, 3, 2, 1), chosen(1, 2, 3, 4, 5, 6)
    assert edge_note([middle, middle], ProbeProtocol()) == ""
    assert "in 2 of 3 folds at the strongest penalty of the grid (C = 1e-05), where the probe goes by" in edge_note(
        [first, first, middle], ProbeProtocol()
    )
    both = edge_note([first, last, middle], PLAIN)
    assert "strongest penalty of the grid (C = 1e-05), where the probe says little" in both
    assert "in 1 of 3 folds at the weakest penalty of the grid (C = 1), and a weaker" in both


def test_a_probe_says_where_its_choices_lie_at_an_end_of_the_grid() -> None:
    embeddings, labels, cases = few_cases(0, num_classes=3, width=16)
    protocol = ProbeProtocol((1e-7, 1e-1))
    task = probe_task(labels, cases, group_folds(labels, cases, 3, 0), 0, protocol)
    found = linear_probe(embeddings, task)
    assert edge_note(found.choices, protocol)
    assert edge_note(found.choices, protocol) in found.notes


def test_an_end_of_a_flat_curve_is_no_end() -> None:
    assert edge_note([chosen(1, 1, 1, 1, 1, 1)], ProbeProtocol()) == ""
    assert edge_note([Choice(0.1, np.full(1, np.nan))], ProbeProtocol((0.1,))) == ""
