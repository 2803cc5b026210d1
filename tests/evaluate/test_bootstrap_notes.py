"""Notes on resamples without a class and on AUROCs of few pairs: counted again by loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.bootstrap import GroupResamples, classification_draws
from pipeline.evaluate.bootstrap_notes import pairs_within_folds, resample_notes


def notes_of(labels: str, folds: str, per_group: int = 2, resamples: int = 200) -> tuple[list[str], GroupResamples]:
    """Notes on two classes in groups of `per_group` rows, a letter and a digit a group."""
    truth = np.repeat([int(label) for label in labels], per_group)
    groups = np.repeat([f"g{i:02d}" for i in range(len(labels))], per_group)
    parts = np.repeat([int(fold) for fold in folds], per_group)
    drawn = GroupResamples(groups, resamples, 0)
    scores = np.random.default_rng(0).random(len(truth))
    draws = classification_draws(truth, np.stack([1 - scores, scores], 1), drawn, parts)
    return resample_notes(draws, truth, groups, parts, ["stroma", "tumour"], "cases"), drawn


def test_no_fold_with_both_classes_is_no_lack_of_a_class() -> None:
    notes, _ = notes_of("0101010101010101", "0123456701234567")
    (note,) = notes
    assert note.startswith("There is no AUROC: it compares what the same fold scored")
    assert "no fold scores 'stroma' or 'tumour' beside another class" in note


def test_resamples_without_a_pair_are_told_from_those_without_a_class() -> None:
    labels, folds = "010101", "001234"
    notes, drawn = notes_of(labels, folds)
    classes, parts = np.array([int(c) for c in labels]), np.array([int(c) for c in folds])
    lacking = without = 0
    for counts in drawn.counts:
        there = counts > 0
        if len(set(classes[there])) < 2:
            lacking += 1
        elif not any(len(set(classes[there & (parts == part)])) == 2 for part in range(5)):
            without += 1
    assert 0 < lacking < without
    assert notes[0] == f"{lacking} of 200 resamples lack a class; no interval counts them."
    assert notes[1].startswith(f"{without} of 200 resamples have all classes, but a class never in a fold with another")
    assert "1 pair of cases of different classes" in notes[2]


def test_many_pairs_need_no_note() -> None:
    assert notes_of("01" * 20, "0" * 40)[0] == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=12))
def test_pairs_equal_those_counted_one_by_one(rows: list[tuple[int, int, int]]) -> None:
    truth, group, part = (np.array(column) for column in zip(*rows, strict=True))
    classes = np.unique(truth)
    expected = []
    for name in classes:
        pairs = {(a[1], b[1], a[2]) for a in rows for b in rows if a[0] == name != b[0] and a[2] == b[2]}
        expected.append(len(pairs))
    found = pairs_within_folds(truth, group.astype(str), part, classes)
    assert found.tolist() == expected
