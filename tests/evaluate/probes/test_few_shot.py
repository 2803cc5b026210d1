"""Few-shot prototypes against a loop, and known answers."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from support.probes import make_embeddings, make_task

from pipeline.evaluate.folds import given_split
from pipeline.evaluate.probes import few_shot as module
from pipeline.evaluate.probes.few_shot import SHOTS, Examples, centred_directions, draw_examples, few_shot
from pipeline.evaluate.probes.linear_probe import ProbeTask, probe_task


def by_hand(embeddings: NDArray[np.float32], task: ProbeTask, examples: Examples, shots: int) -> NDArray[np.int64]:
    """Predicted classes (draws, N), one patch at a time, in float64."""
    draws = len(examples.rows[0])
    predicted = np.full((draws, len(task.truth)), -1)
    for fold, rows in zip(task.folds, examples.rows, strict=True):
        values = embeddings.astype(np.float64) - embeddings[fold.train].astype(np.float64).mean(0)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        for draw in range(draws):
            prototypes = np.array([values[rows[draw, c, :shots]].mean(0) for c in range(len(task.classes))])
            for row in fold.test:
                predicted[draw, row] = np.linalg.norm(values[row] - prototypes, axis=1).argmin()
    return predicted


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_it_is_the_nearest_prototype(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_CELLS", block)
    task = make_task(0)
    embeddings = make_embeddings(task, 0.8)
    examples = draw_examples(task, 5, 0)
    for found in few_shot(embeddings, task, examples):
        predicted = by_hand(embeddings, task, examples, found.shots)
        assert found.right == pytest.approx((predicted == task.truth).mean(0))
        assert found.by_draw == pytest.approx([balanced_accuracy_score(task.truth, draw) for draw in predicted])


def test_examples_are_of_their_class_and_of_the_training_part() -> None:
    task = make_task(1)
    examples = draw_examples(task, 20, 3)
    assert examples.shots == SHOTS
    assert examples.notes == ()
    for fold, rows in zip(task.folds, examples.rows, strict=True):
        assert rows.shape == (20, 3, 16)
        assert set(rows.ravel().tolist()) <= set(fold.train.tolist())
        assert (task.truth[rows] == np.arange(3)[:, None]).all()
        assert all(len(set(own.tolist())) == 16 for draw in rows for own in draw)
        assert len({draw.tobytes() for draw in rows}) == 20
    again, other = draw_examples(task, 20, 3), draw_examples(task, 20, 4)
    assert all(np.array_equal(a, b) for a, b in zip(examples.rows, again.rows, strict=True))
    assert not np.array_equal(examples.rows[0], other.rows[0])


def test_counts_that_a_class_cannot_give_are_left_out_and_said() -> None:
    labels = np.array(["rare"] * 7 + ["common"] * 93)
    splits = np.where(np.arange(100) % 7 == 6, "test", "train")
    groups = np.arange(100).astype(str)
    task = probe_task(labels, groups, given_split(labels, groups, splits, "file.csv"), 0)
    examples = draw_examples(task, 3, 0)
    assert examples.shots == (1, 2, 4)
    assert examples.notes == (
        "Few-shot: 8, 16 examples a class are left out, as a training part has only 6 of 'rare'.",
    )
    found = few_shot(make_embeddings(task, 1.0), task, examples)
    assert [one.shots for one in found] == [1, 2, 4]
    assert np.array_equal(np.isnan(found[0].right), task.parts < 0)


def test_more_examples_are_better_and_separable_classes_need_one() -> None:
    task = make_task(2)
    examples = draw_examples(task, 30, 0)
    means = [found.by_draw.mean() for found in few_shot(make_embeddings(task, 0.8), task, examples)]
    assert means == sorted(means)
    assert 1 / 3 < means[0] < means[-1] - 0.1
    for found in few_shot(make_embeddings(task, 40.0), task, examples):
        assert (found.right == 1).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_constant_embeddings_are_at_chance(value: float) -> None:
    task = make_task(3)
    embeddings = np.full((len(task.truth), 300), value, np.float32)
    for found in few_shot(embeddings, task, draw_examples(task, 4, 0)):
        assert found.by_draw == pytest.approx(1 / 3)


def test_directions_have_length_one_or_none() -> None:
    embeddings = np.array([[3.0, 4], [1, 1], [5, 1]], np.float32)
    found = centred_directions(embeddings, np.array([1.0, 1]))
    assert found == pytest.approx(np.array([[2 / 13**0.5, 3 / 13**0.5], [0, 0], [1, 0]]))
    assert found.dtype == np.float32
