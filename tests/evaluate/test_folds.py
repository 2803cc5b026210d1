"""Folds: no group on both sides, whatever the data; and what cannot be folded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.folds import Fold, given_split, group_folds, parts_of_rows

Names = NDArray[np.str_]


def names(*values: str) -> Names:
    return np.array(values)


def cohort(seed: int, num_groups: int = 20, num_rows: int = 200, num_classes: int = 3) -> tuple[Names, Names]:
    """Labels and groups; a group has one or more classes."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(num_groups, size=num_rows)
    labels = np.where(rng.random(num_rows) < 0.7, groups % num_classes, rng.integers(num_classes, size=num_rows))
    return np.array([f"class {c}" for c in labels]), np.array([f"case {g}" for g in groups])


def check(folds: list[Fold], labels: Names, groups: Names) -> None:
    tested = np.concatenate([fold.test for fold in folds])
    assert np.array_equal(np.sort(tested), np.arange(len(labels)))
    for fold in folds:
        assert len(fold.test) > 0
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert np.array_equal(np.sort(np.concatenate([fold.train, fold.test])), np.arange(len(labels)))
        assert set(labels[fold.train]) == set(labels)
        assert (np.diff(fold.train) > 0).all()
        assert (np.diff(fold.test) > 0).all()
        assert fold.train.dtype == fold.test.dtype == np.int64
        assert len(fold.val) == 0


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 7)), min_size=1, max_size=40),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 50),
)
def test_no_group_is_on_both_sides(rows: list[tuple[str, int]], num_folds: int, seed: int) -> None:
    labels, groups = names(*(label for label, _ in rows)), names(*(str(group) for _, group in rows))
    try:
        folds = group_folds(labels, groups, num_folds, seed)
    except BenchmarkError as error:
        held_by = [len(np.unique(groups[labels == label])) for label in np.unique(labels)]
        possible = len(held_by) > 1 and min(held_by) > 1 and len(np.unique(groups)) >= num_folds
        assert not possible or "need a class of as many" in str(error) or "no assignment" in str(error)  # noqa: PT017
        return
    assert len(folds) == num_folds
    check(folds, labels, groups)


@pytest.mark.parametrize("alone", [True, False])
def test_folds_do_not_depend_on_the_order_of_rows(alone: bool) -> None:
    labels, groups = cohort(0)
    groups = np.array([f"{i:03d}" for i in range(len(labels))]) if alone else groups
    folds = group_folds(labels, groups, 5, 1)
    check(folds, labels, groups)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = group_folds(labels[order], groups[order], 5, 1)
    for fold, other in zip(folds, shuffled, strict=True):
        assert np.array_equal(fold.test, np.sort(order[other.test]))
    others = [group_folds(labels, groups, 5, seed) for seed in range(2, 7)]  # of few groups two seeds may agree
    assert not all(np.array_equal(a.test, b.test) for other in others for a, b in zip(folds, other, strict=True))


def test_classes_are_spread_evenly() -> None:
    labels = np.array(["rare"] * 20 + ["common"] * 80)
    alone = group_folds(labels, np.arange(100).astype(str), 5, 0)
    assert [int((labels[fold.test] == "rare").sum()) for fold in alone] == [4] * 5
    labels, groups = cohort(2, num_groups=60, num_rows=1200)
    for fold in group_folds(labels, groups, 5, 0):
        for name in np.unique(labels):
            assert (labels[fold.test] == name).mean() == pytest.approx((labels == name).mean(), abs=0.08)


def test_a_rare_class_may_lack_in_a_test_part_but_in_no_training_part() -> None:
    labels, groups = cohort(3)
    labels[groups == "case 4"] = "rare"
    labels[groups == "case 5"] = "rare"
    for seed in range(5):
        folds = group_folds(labels, groups, 5, seed)
        check(folds, labels, groups)
        assert sum("rare" in labels[fold.test] for fold in folds) == 2


def test_a_class_of_one_group_is_refused_by_name() -> None:
    labels, groups = cohort(4)
    labels[groups == "case 3"] = "lonely"
    with pytest.raises(BenchmarkError, match=r"at least 2 groups.*of 1 group only: 'lonely'"):
        group_folds(labels, groups, 5, 0)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (names(), names(), "no examples"),
        (names("a", "a"), names("1", "2"), "one class, 'a'"),
        (names("a", "b", "a", "b"), names("1", "1", "2", "2"), "3 folds need as many groups.*there are 2: '1', '2'"),
        (names("a", "b", "a", "b"), names("1", "2", "3", "4"), "a class of as many examples, and the largest has 2"),
    ],
)
def test_what_cannot_be_folded(labels: Names, groups: Names, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        group_folds(labels, groups, 3, 0)


def test_a_given_split_is_taken_as_it_is() -> None:
    labels = names("a", "b", "a", "b", "b", "a")
    groups = names("1", "2", "3", "4", "5", "6")
    splits = names("test", "train", "train", "val", "test", "train")
    (fold,) = given_split(labels, groups, splits, "file.csv")
    assert [fold.train.tolist(), fold.val.tolist(), fold.test.tolist()] == [[1, 2, 5], [3], [0, 4]]
    assert parts_of_rows([fold], 6).tolist() == [0, -1, -1, -1, 0, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": names("train", "train", "Test", "test")}, r"of 1 of 4.*'Test' \(example 3\)"),
        ({"splits": names("train", "train", "val", "val")}, "no example is of the split 'test'"),
        ({"splits": names("test", "test", "test", "test")}, "no example is of the split 'train'"),
        ({"groups": names("1", "2", "1", "3")}, "1 groups .cases. are both in train and in test: '1'"),
        ({"labels": names("a", "b", "a", "c")}, "test has classes that train lacks: 'c'"),
        ({"labels": names("a", "b", "a", "a")}, "test: all 2 examples are of one class, 'a'"),
    ],
)
def test_a_split_that_cannot_be_used(change: dict[str, Names], message: str) -> None:
    sound = {
        "labels": names("a", "b", "a", "b"),
        "groups": names("1", "2", "3", "4"),
        "splits": names("train", "train", "test", "test"),
    }
    given_split(**sound, source="file.csv")
    with pytest.raises(BenchmarkError, match=f"file.csv: .*{message}"):
        given_split(**(sound | change), source="file.csv")


def test_val_must_not_share_groups_either() -> None:
    labels, splits = names("a", "b", "a", "b", "a"), names("train", "train", "test", "test", "val")
    for shared, where in (("1", "both in train and in val"), ("3", "both in val and in test")):
        with pytest.raises(BenchmarkError, match=where):
            given_split(labels, names("1", "2", "3", "4", shared), splits, "file.csv")
