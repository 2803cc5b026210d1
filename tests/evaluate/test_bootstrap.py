"""Intervals against loops that repeat rows and ask scikit-learn, and known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate import bootstrap as intervals
from pipeline.evaluate.bootstrap import (
    METRICS,
    MIN_GROUPS,
    Draws,
    GroupResamples,
    auroc_of_resamples,
    bound_note,
    class_mean_draws,
    classification_draws,
    difference,
    few_groups_note,
    interval,
    mean_draws,
    ratio_draws,
    subtract,
)
from pipeline.report.content import Interval


def make_case(
    seed: int, num_rows: int = 60, num_classes: int = 3, num_groups: int = 12
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]:
    """Truth, probabilities with many ties that know a little of it, and groups."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=num_rows - num_classes)])
    likely = 0.4 * np.eye(num_classes)[truth] + 0.6 / num_classes
    votes = np.array([rng.multinomial(6, p / p.sum()) for p in likely])
    return truth, votes / 6, np.array([f"case {g}" for g in rng.integers(num_groups, size=num_rows)])


def of_scikit_learn(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    predicted, classes = probabilities.argmax(1), np.unique(truth)
    binary = probabilities.shape[1] == 2
    scores, how = (probabilities[:, 1], {}) if binary else (probabilities, {"multi_class": "ovr", "average": "macro"})
    values = (
        balanced_accuracy_score(truth, predicted),
        accuracy_score(truth, predicted),
        f1_score(truth, predicted, labels=classes, average="macro"),
        roc_auc_score(truth, scores, **how),
    )
    return dict(zip(METRICS, values, strict=True))


def repeated(resamples: GroupResamples, index: int) -> NDArray[np.int64]:
    """Rows of a resample, each as often as its group was drawn."""
    return np.repeat(np.arange(len(resamples.group_of_row)), resamples.counts[index][resamples.group_of_row])


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_are_scikit_learns(num_classes: int, seed: int) -> None:
    truth, probabilities, groups = make_case(seed, num_classes=num_classes)
    draws = classification_draws(truth, probabilities, GroupResamples(groups, 2, 0))
    expected = of_scikit_learn(truth, probabilities)
    assert {name: found.value for name, found in draws.items()} == pytest.approx(expected, abs=1e-12)
    assert 0.5 < expected["auroc"] < 0.95  # neither hopeless nor trivial


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("block", [1, 1 << 19])
def test_draws_are_those_of_repeated_rows(num_classes: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "BLOCK_WEIGHTS", block)
    truth, probabilities, groups = make_case(3, num_rows=40, num_classes=num_classes, num_groups=6)
    truth[truth == 1] = 0
    truth[groups == "case 1"] = 1  # so that some resamples lack a class
    resamples = GroupResamples(groups, 60, 5)
    draws = classification_draws(truth, probabilities, resamples)
    num_lacking = 0
    for b in range(60):
        rows = repeated(resamples, b)
        if len(np.unique(truth[rows])) < len(np.unique(truth)):
            num_lacking += 1
            assert all(np.isnan(found.draws[b]) for found in draws.values())
            continue
        expected = of_scikit_learn(truth[rows], probabilities[rows])
        assert {name: found.draws[b] for name, found in draws.items()} == pytest.approx(expected, abs=1e-12)
    assert 5 < num_lacking < 55
    assert [found.num_dropped for found in draws.values()] == [num_lacking] * 4


def test_auroc_within_parts_is_that_of_pairs_in_one_fold() -> None:
    truth, probabilities, groups = make_case(4, num_classes=2)
    parts = np.random.default_rng(0).integers(3, size=len(truth))
    resamples = GroupResamples(groups, 20, 1)
    found = classification_draws(truth, probabilities, resamples, parts)["auroc"]
    for rows, value in [(np.arange(len(truth)), found.value)] + [
        (repeated(resamples, b), found.draws[b]) for b in range(20)
    ]:
        won = pairs = 0.0
        for i in rows[truth[rows] == 1]:
            rivals = [j for j in rows[truth[rows] == 0] if parts[j] == parts[i]]
            gaps = probabilities[i, 1] - probabilities[rivals, 1]
            won += (gaps > 0).sum() + (gaps == 0).sum() / 2
            pairs += len(rivals)
        assert value == pytest.approx(won / pairs, abs=1e-12)


def test_pooling_folds_would_favour_the_class_that_training_lacked() -> None:
    """A classifier that says nothing but the training part's shares is useless, and only `parts` finds it so."""
    truth = np.array([0, 0, 0, 1] * 5 + [0, 1, 1, 1] * 5)
    parts = np.repeat([0, 1], 20)
    probabilities = np.where(parts[:, None] == 0, [0.25, 0.75], [0.75, 0.25])
    resamples = GroupResamples(np.arange(40).astype(str), 10, 0)
    assert classification_draws(truth, probabilities, resamples)["auroc"].value == 0.25
    within = classification_draws(truth, probabilities, resamples, parts)["auroc"]
    assert within.value == 0.5
    assert (within.draws == 0.5).all()


def test_classes_that_do_not_occur_are_left_out_of_the_means() -> None:
    truth, probabilities, groups = make_case(5, num_classes=3)
    wider = np.insert(probabilities, 1, 0.1, axis=1)  # class 1 never occurs, but is predicted now and then
    wider[:5, 1] = 2
    shifted = np.where(truth > 0, truth + 1, 0)
    draws = classification_draws(shifted, wider, GroupResamples(groups, 10, 0))
    predicted = wider.argmax(1)
    assert (predicted == 1).sum() == 5
    recalls = [(predicted[shifted == c] == c).mean() for c in (0, 2, 3)]
    assert draws["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    assert draws["macro_f1"].value == pytest.approx(f1_score(shifted, predicted, labels=[0, 2, 3], average="macro"))
    areas = [roc_auc_score(shifted == c, wider[:, c]) for c in (0, 2, 3)]
    assert draws["auroc"].value == pytest.approx(np.mean(areas))


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 6))
def test_area_is_scikit_learns_whatever_the_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive = np.concatenate([[True, False], rng.random(20) < 0.5])
    scores = rng.integers(levels, size=22).astype(np.float64)
    resamples = GroupResamples(np.arange(22).astype(str), 3, seed)
    found = auroc_of_resamples(positive, scores, resamples)
    assert found[0] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    for b in range(3):
        rows = repeated(resamples, b)
        if 0 < positive[rows].sum() < 22:
            assert found[1 + b] == pytest.approx(roc_auc_score(positive[rows], scores[rows]), abs=1e-12)
        else:
            assert np.isnan(found[1 + b])


def test_class_means_of_right_and_wrong_are_the_balanced_accuracy() -> None:
    truth, probabilities, groups = make_case(6)
    resamples = GroupResamples(groups, 50, 0)
    right = (probabilities.argmax(1) == truth).astype(np.float64)
    found = class_mean_draws(truth, right, resamples)
    expected = classification_draws(truth, probabilities, resamples)["balanced_accuracy"]
    assert found.value == expected.value
    assert np.array_equal(found.draws, expected.draws, equal_nan=True)


def test_ratio_is_that_of_sums() -> None:
    rng = np.random.default_rng(0)
    above, below = rng.integers(5, size=30).astype(float), rng.integers(5, size=30).astype(float)
    resamples = GroupResamples(rng.integers(8, size=30).astype(str), 25, 0)
    found = ratio_draws(above, below, resamples)
    assert found.value == above.sum() / below.sum()
    for b in range(25):
        rows = repeated(resamples, b)
        assert found.draws[b] == above[rows].sum() / below[rows].sum()
        assert mean_draws(above, resamples).draws[b] == pytest.approx(above[rows].mean(), abs=1e-12)


def test_a_ratio_of_nothing_is_none() -> None:
    below = np.array([0.0, 0, 0, 0, 1])
    resamples = GroupResamples(np.array(["a", "b", "c", "d", "e"]), 200, 0)
    found = ratio_draws(np.ones(5), below, resamples)
    assert found.value == 5
    lacking = resamples.counts[:, 4] == 0
    assert np.array_equal(np.isnan(found.draws), lacking)
    assert found.num_dropped == lacking.sum() > 0
    assert np.isfinite(interval(found).low)
    nothing = interval(ratio_draws(np.ones(5), np.zeros(5), resamples))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


def test_interval_is_of_percentiles() -> None:
    draws = np.random.default_rng(0).normal(size=999)
    found = interval(Draws(0.1, np.append(draws, np.nan)))
    assert found.value == 0.1
    assert [found.low, found.high] == pytest.approx(np.percentile(draws, [2.5, 97.5]))
    narrow = interval(Draws(0.1, draws), level=0.5)
    assert [narrow.low, narrow.high] == pytest.approx(np.percentile(draws, [25, 75]))


def test_no_interval_where_most_resamples_give_nothing() -> None:
    draws = np.arange(100.0)
    draws[:51] = np.nan
    assert np.isnan(interval(Draws(1, draws)).low)
    draws[50] = 50
    assert interval(Draws(1, draws)).low > 50


@pytest.mark.parametrize("num_groups", [1, 2, MIN_GROUPS - 1, MIN_GROUPS])
def test_fewer_than_five_groups_give_no_interval(num_groups: int) -> None:
    truth, probabilities, _ = make_case(7)
    resamples = GroupResamples((np.arange(len(truth)) % num_groups).astype(str), 100, 0)
    for draws in [*classification_draws(truth, probabilities, resamples).values(), mean_draws(truth * 1.0, resamples)]:
        found = interval(draws)
        assert np.isfinite(found.value)
        assert np.isfinite([found.low, found.high]).tolist() == [num_groups >= MIN_GROUPS] * 2


def test_few_groups_are_said() -> None:
    assert few_groups_note(1, "cases") == "Intervals need at least 5 cases; with 1 none is given."
    assert few_groups_note(4, "slides") == "Intervals need at least 5 slides; with 4 none is given."
    assert few_groups_note(5, "cases") == "Intervals rest on 5 cases only, and are rather too narrow."
    assert few_groups_note(19, "cases") == "Intervals rest on 19 cases only, and are rather too narrow."
    assert few_groups_note(20, "cases") == ""


def test_estimates_at_the_bound_are_said() -> None:
    inside, nothing = Interval(0.5, 0.4, 0.6), Interval(np.nan, np.nan, np.nan)
    assert bound_note({"a": [inside, nothing], "b": [Interval(1.0, np.nan, np.nan)]}) == ""
    found = bound_note({"a": [inside], "b": [inside, Interval(1 - 1e-16, 1, 1)], "c": [Interval(0.0, 0, 0)]})
    assert "(b; c)" in found
    assert "no certainty" in found
    assert bound_note({}) == ""


def test_models_that_are_equally_right_on_different_patches_differ_by_exactly_nothing() -> None:
    """Recalls of 0.1, 0.2, 0.3 and of 0.3, 0.2, 0.1 have the same mean, but not the same sum in float64."""
    truth = np.tile(np.repeat(np.arange(3), 10), 6)
    place = np.tile(np.arange(10), 18)
    resamples = GroupResamples(np.repeat(np.arange(6), 30).astype(str), 50, 0)
    rising, falling, better = (
        class_mean_draws(truth, (place < np.array(hits)[truth]).astype(np.float64), resamples)
        for hits in ([1, 2, 3], [3, 2, 1], [3, 2, 2])
    )
    assert rising.value != falling.value  # the noise that must not be shown
    found = difference(rising, falling)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert difference(better, falling).value == pytest.approx(0.1 / 3)


def test_a_difference_that_does_not_exist_stays_so() -> None:
    found = subtract(Draws(np.nan, np.array([np.nan, 1.0])), Draws(0.5, np.array([0.5, 1.0])))
    assert np.isnan(found.value)
    assert np.array_equal(found.draws, [np.nan, 0.0], equal_nan=True)


def test_identical_predictions_differ_by_nothing() -> None:
    truth, probabilities, groups = make_case(8)
    resamples = GroupResamples(groups, 200, 0)
    first, second = (classification_draws(truth, p, resamples) for p in (probabilities, probabilities.copy()))
    for name in METRICS:
        found = difference(first[name], second[name])
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_difference_is_paired() -> None:
    """Two models that are wrong on the same hard cases differ much less than their own intervals are wide."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 20)
    truth = rng.integers(2, size=600)
    easy = np.repeat(rng.random(30), 20)
    right = rng.random(600) < easy
    better = right | (rng.random(600) < 0.05)
    predictions = [np.where(r, truth, 1 - truth) for r in (right, better)]
    resamples = GroupResamples(groups.astype(str), 500, 0)
    one, two = (classification_draws(truth, np.eye(2)[p], resamples)["balanced_accuracy"] for p in predictions)
    paired, alone = difference(two, one), interval(one)
    assert 0 < paired.low < paired.value < paired.high
    assert paired.high - paired.low < (alone.high - alone.low) / 3


def test_random_labels_cover_one_half() -> None:
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, scores = rng.integers(2, size=200), rng.random((200, 2))
        resamples = GroupResamples(rng.integers(40, size=200).astype(str), 300, seed)
        found = interval(classification_draws(truth, scores, resamples)["auroc"])
        assert 0.3 < found.low < found.high < 0.7
        covered += found.low <= 0.5 <= found.high
    assert covered >= 17  # 19 of 20 are expected


def test_groups_that_go_together_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(20) < 0.7, 50).astype(np.float64)  # a case is all right or all wrong
    by_case = interval(mean_draws(right, GroupResamples(np.repeat(np.arange(20), 50).astype(str), 400, 0)))
    by_row = interval(mean_draws(right, GroupResamples(np.arange(1000).astype(str), 400, 0)))
    assert by_case.high - by_case.low > 4 * (by_row.high - by_row.low)
    assert by_case.high - by_case.low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 20), rel=0.3)


def test_draws_depend_on_names_and_seed_and_not_on_the_order_of_rows() -> None:
    truth, probabilities, groups = make_case(9)
    order = np.random.default_rng(0).permutation(len(truth))
    first = classification_draws(truth, probabilities, GroupResamples(groups, 100, 3))
    again = classification_draws(truth[order], probabilities[order], GroupResamples(groups[order], 100, 3))
    other = classification_draws(truth, probabilities, GroupResamples(groups, 100, 4))
    for name in METRICS:
        assert np.array_equal(first[name].draws, again[name].draws, equal_nan=True)
        assert not np.array_equal(first[name].draws, other[name].draws, equal_nan=True)
    resamples = GroupResamples(groups, 100, 3)
    assert (resamples.counts.sum(1) == resamples.num_groups).all()
    assert len(resamples) == 100


def test_what_cannot_be_scored_is_refused() -> None:
    truth, probabilities, groups = make_case(10)
    resamples = GroupResamples(groups, 5, 0)
    with pytest.raises(BenchmarkError, match="one class"):
        classification_draws(np.zeros_like(truth), probabilities, resamples)
    probabilities[[3, 7], 0] = np.nan
    with pytest.raises(BenchmarkError, match="2 of 60 rows"):
        classification_draws(truth, probabilities, resamples)
    with pytest.raises(ValueError, match="rows and resamples"):
        GroupResamples(groups[:0], 5, 0)
