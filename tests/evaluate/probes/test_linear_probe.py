"""The linear probe and kNN: against scikit-learn, known answers, and what they must not see."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from support.probes import make_embeddings, make_task

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate import directions
from pipeline.evaluate.bootstrap import GroupResamples, classification_draws, interval
from pipeline.evaluate.folds import Fold, given_split, group_folds
from pipeline.evaluate.probes import linear_probe as probes
from pipeline.evaluate.probes.linear_probe import ProbeTask, for_each_fold, knn_probe, linear_probe, probe_task
from pipeline.evaluate.probes.probe_choice import DEFAULT_STRENGTH, ProbeProtocol

Embeddings = NDArray[np.float32]


def test_the_linear_probe_is_scikit_learns() -> None:
    task = make_task()
    embeddings = make_embeddings(task, 0.5)
    found = linear_probe(embeddings, task)
    assert len(found.strengths) == len(task.folds)
    assert not any("converge" in note for note in found.notes)
    for fold, strength in zip(task.folds, found.strengths, strict=True):
        scaler = StandardScaler().fit(embeddings[fold.train].astype(np.float64))
        fitted = LogisticRegression(C=strength, tol=1e-7, max_iter=5000, class_weight="balanced")
        fitted.fit(scaler.transform(embeddings[fold.train]), task.truth[fold.train])
        expected = fitted.predict_proba(scaler.transform(embeddings[fold.test]))
        assert found.probabilities[fold.test] == pytest.approx(expected, abs=2e-3)


def test_the_choice_and_the_fit_never_see_the_test_part() -> None:
    task = make_task(2)
    task = ProbeTask(task.classes, task.truth, task.folds[:1], task.inner[:1], task.parts, ())
    fold = task.folds[0]
    embeddings = make_embeddings(task, 0.4)
    changed = embeddings.copy()
    changed[fold.test] = np.random.default_rng(1).normal(size=changed[fold.test].shape) * 50
    changed[fold.test[0]] = embeddings[fold.test[0]]  # one row stays, so that the classifier shows in what it gives
    labels = task.truth.copy()
    labels[fold.test] = (labels[fold.test] + 1) % 3
    relabelled = ProbeTask(task.classes, labels, task.folds, task.inner, task.parts, ())
    first = linear_probe(embeddings, task)
    for found in (linear_probe(changed, task), linear_probe(embeddings, relabelled)):
        assert found.strengths == first.strengths
        assert np.array_equal(found.probabilities[fold.test[0]], first.probabilities[fold.test[0]])
    near = knn_probe(embeddings, task, 7).probabilities[fold.test[0]]
    assert np.array_equal(knn_probe(changed, task, 7).probabilities[fold.test[0]], near)


@pytest.mark.parametrize("block", [100, 1 << 23])
def test_knn_is_scikit_learns(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "BLOCK_CELLS", block)
    task = replace(make_task(3), protocol=ProbeProtocol(is_balanced=False))
    embeddings = make_embeddings(task, 0.5)
    found = knn_probe(embeddings, task, 7)
    for fold in task.folds:
        fitted = KNeighborsClassifier(7, metric="cosine").fit(embeddings[fold.train], task.truth[fold.train])
        expected = fitted.predict_proba(embeddings[fold.test])
        assert found.probabilities[fold.test] == pytest.approx(expected, abs=1e-12)
    assert found.notes == ()


def test_votes_of_rare_classes_weigh_more() -> None:
    rng = np.random.default_rng(0)
    labels = np.array(["common"] * 190 + ["rare"] * 10)
    groups = np.arange(200).astype(str)
    task = probe_task(labels, groups, group_folds(labels, groups, 2, 0), 0)
    embeddings = rng.normal(size=(200, 6))
    embeddings[:, 0] += np.where(labels == "rare", 6.0, -6.0)
    embeddings = embeddings.astype(np.float32)
    plain = replace(task, protocol=ProbeProtocol(is_balanced=False))
    rare = task.truth == 1
    assert not knn_probe(embeddings, plain, 20).probabilities[rare].argmax(1).any()  # 5 of 20 neighbours at most
    found = knn_probe(embeddings, task, 20).probabilities
    assert found.sum(1) == pytest.approx(1)
    assert (found.argmax(1) == task.truth)[rare].mean() > 0.8
    assert (found.argmax(1) == task.truth)[~rare].mean() > 0.8
    for fold in task.folds:
        shares = knn_probe(embeddings, plain, 20).probabilities[fold.test]
        shares = shares / np.bincount(task.truth[fold.train])
        assert found[fold.test] == pytest.approx(shares / shares.sum(1, keepdims=True))


def test_knn_takes_what_there_is() -> None:
    task = replace(make_task(4, num_rows=30, num_groups=10), protocol=ProbeProtocol(is_balanced=False))
    found = knn_probe(make_embeddings(task, 1.0), task, 50)
    fewest = min(len(fold.train) for fold in task.folds)
    assert found.notes == (f"kNN has {fewest} neighbours only: a training part has no more rows.",)
    for fold in task.folds:
        shares = np.bincount(task.truth[fold.train], minlength=3) / len(fold.train)
        assert found.probabilities[fold.test] == pytest.approx(np.tile(shares, (len(fold.test), 1)))


def test_separable_classes_are_all_found() -> None:
    task = make_task(5)
    embeddings = make_embeddings(task, 30.0)
    for found in (linear_probe(embeddings, task), knn_probe(embeddings, task, 5)):
        assert (found.probabilities.argmax(1) == task.truth).all()
        assert found.probabilities.sum(1) == pytest.approx(1)


@pytest.mark.slow
def test_random_labels_are_told_apart_by_nobody() -> None:
    covered = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        labels, groups = rng.integers(2, size=200).astype(str), rng.integers(40, size=200).astype(str)
        task = probe_task(labels, groups, group_folds(labels, groups, 5, seed), seed)
        embeddings = rng.normal(size=(200, 8)).astype(np.float32)
        resamples = GroupResamples(groups, 300, seed)
        for found in (linear_probe(embeddings, task), knn_probe(embeddings, task, 20)):
            area = interval(classification_draws(task.truth, found.probabilities, resamples, task.parts)["auroc"])
            covered += area.low <= 0.5 <= area.high
    assert covered >= 10  # of 12


@pytest.mark.parametrize("value", [0.1, -7.3])
def test_constant_embeddings_are_at_chance(value: float) -> None:
    task = make_task(6)
    embeddings = np.full((len(task.truth), 12), value, np.float32)
    resamples = GroupResamples(np.arange(len(task.truth)).astype(str), 50, 0)
    for found in (linear_probe(embeddings, task), knn_probe(embeddings, task, 20)):
        draws = classification_draws(task.truth, found.probabilities, resamples, task.parts)
        assert draws["auroc"].value == 0.5
        assert draws["balanced_accuracy"].value == pytest.approx(1 / 3, abs=0.05)


def test_what_is_no_direction_is_refused() -> None:
    task = make_task(7)
    embeddings = make_embeddings(task, 1.0)
    embeddings[[2, 9]] = 0
    with pytest.raises(BenchmarkError, match="2 of 240 embeddings are zero"):
        knn_probe(embeddings, task, 5)
    embeddings[2, 1] = np.nan
    with pytest.raises(BenchmarkError, match="NaN or infinity, the first is number 3"):
        knn_probe(embeddings, task, 5)


def test_a_given_split_chooses_by_val() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(3, size=300).astype(str), np.arange(300).astype(str)
    splits = np.array(["train", "val", "test"])[rng.integers(3, size=300)]
    folds = given_split(labels, groups, splits, "file.csv")
    task = probe_task(labels, groups, folds, 0)
    assert np.array_equal(task.inner[0][0].test, folds[0].val)
    assert np.array_equal(task.scored, folds[0].test)
    embeddings = make_embeddings(task, 0.5)
    found = linear_probe(embeddings, task)
    assert np.array_equal(np.isnan(found.probabilities).all(1), task.parts < 0)
    # val decides: where it contradicts what training shows, less of it is wanted
    misled = task.truth.copy()
    misled[folds[0].val] = (misled[folds[0].val] + 1) % 3
    contrary = ProbeTask(task.classes, misled, task.folds, task.inner, task.parts, ())
    assert linear_probe(embeddings, contrary).choices[0].curve.max() < 1 / 3 < found.choices[0].curve.max()


def test_where_nothing_can_choose_the_default_is_taken_and_said() -> None:
    labels = np.array(["a", "b"] * 20)
    groups = np.repeat(["1", "2"], 20)
    task = probe_task(labels, groups, group_folds(labels, groups, 2, 0), 0)
    assert "In 2 of 2 folds" in task.notes[0]
    found = linear_probe(make_embeddings(task, 1.0), task)
    assert found.strengths == (DEFAULT_STRENGTH, DEFAULT_STRENGTH)


def test_a_class_of_one_training_group_takes_no_part_in_the_choice() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(12, size=120).astype(str)
    labels = rng.integers(2, size=120).astype(str)
    labels[(groups == "3") | (groups == "4")] = "rare"
    task = probe_task(labels, groups, group_folds(labels, groups, 4, 0), 0)
    rare = task.classes.index("rare")
    chosen_by = [{int(c) for split in inner for c in task.truth[split.test]} for inner in task.inner if inner]
    assert len(chosen_by) == 4
    assert any(rare not in classes for classes in chosen_by)
    assert np.isfinite(linear_probe(make_embeddings(task, 1.0), task).probabilities).all()


def test_regressions_that_do_not_converge_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluate.probes.logistic.MAX_ITERATIONS", 1)
    task = replace(make_task(8), protocol=ProbeProtocol((1.0,)))
    assert linear_probe(make_embeddings(task, 0.6), task).notes == ("4 of 4 regressions did not converge.",)


def test_the_same_digits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(9)
    embeddings = make_embeddings(task, 0.5, width=70)
    first = linear_probe(embeddings, task), knn_probe(embeddings, task, 20)
    monkeypatch.setattr(probes, "MAX_FOLDS_AT_ONCE", 1)
    for found, again in zip(first, (linear_probe(embeddings, task), knn_probe(embeddings, task, 20)), strict=True):
        assert np.array_equal(found.probabilities, again.probabilities)
        assert found.strengths == again.strengths


def test_folds_by_hand_are_probed_too() -> None:
    labels = np.array(["a", "b"] * 10)
    fold = Fold(np.arange(12), np.arange(12, 20))
    task = probe_task(labels, np.arange(20).astype(str), [fold], 0)
    found = knn_probe(make_embeddings(task, 30.0), task, 3)
    assert np.isnan(found.probabilities[:12]).all()
    assert (found.probabilities[12:].argmax(1) == task.truth[12:]).all()


def test_folds_go_side_by_side_on_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on all that the machine has."""
    pools: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            pools.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(probes, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(probes, "usable_cores", lambda: 1)
    labels, groups = np.repeat(["a", "b"], 20), np.arange(40).astype(str)
    task = probe_task(labels, groups, group_folds(labels, groups, 4, 0), 0)
    assert for_each_fold(lambda fold, _: len(fold.test), task) == [10] * 4
    assert pools == [1]
