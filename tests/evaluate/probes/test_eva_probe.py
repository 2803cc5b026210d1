"""eva's linear probe, against a plain one by torch's modules, and its choice of a checkpoint."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from pipeline.base.draws import draw_seed
from pipeline.evaluate.probes import eva_probe
from pipeline.evaluate.probes.eva_probe import monitored_accuracy, train_layer

Part = tuple[NDArray[np.float32], NDArray[np.int64]]


def parts(num_classes: int, signal: float = 1.0) -> tuple[Part, Part]:
    rng = np.random.default_rng(1)
    means = rng.normal(size=(num_classes, 6)) * signal
    truth = rng.integers(num_classes, size=120)
    features = (rng.normal(size=(120, 6)) + means[truth]).astype(np.float32)
    return (features[:80], truth[:80]), (features[80:], truth[80:])


def by_modules(train: Part, val: Part, num_classes: int, seed: int) -> tuple[NDArray[np.float64], int]:
    """Log probabilities of the validation rows, and steps, with a module, a loss and batches as eva's are."""
    generator = torch.Generator().manual_seed(draw_seed("eva probe", seed) % (1 << 62))
    binary = num_classes == 2
    model = torch.nn.Linear(6, 1 if binary else num_classes)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -(6**-0.5), 6**-0.5, generator=generator)
    loss_of = torch.nn.BCEWithLogitsLoss() if binary else torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0003)
    x, y, xv = torch.tensor(train[0]), torch.tensor(train[1]), torch.tensor(val[0])
    best, best_score, best_step, step = None, -1.0, 0, 0
    while step < eva_probe.MAX_STEPS:
        order = torch.randperm(80, generator=generator)
        for start in range(0, 80, eva_probe.BATCH_SIZE):
            rows = order[start : start + eva_probe.BATCH_SIZE]
            out = model(x[rows])
            loss = loss_of(out[:, 0], y[rows].float()) if binary else loss_of(out, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        with torch.no_grad():
            out = model(xv).double()
        predicted = (out[:, 0] > 0).long() if binary else out.argmax(1)
        truth = val[1]
        score = (predicted.numpy() == truth).mean() if binary else balanced_accuracy_score(truth, predicted)
        if score > best_score:
            both = torch.cat([torch.zeros_like(out), out], 1) if binary else out
            best, best_score, best_step = both.log_softmax(1).numpy(), score, step
    assert best is not None
    return best, best_step


@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_is_a_plain_training_loop(num_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eva_probe, "BATCH_SIZE", 32)
    monkeypatch.setattr(eva_probe, "MAX_STEPS", 90)
    monkeypatch.setattr(eva_probe, "PATIENCE", 2.0)
    train, val = parts(num_classes)
    found = train_layer(train, val, num_classes, 3)
    expected, steps = by_modules(train, val, num_classes, 3)
    assert found.steps == steps
    np.testing.assert_allclose(found.log_probabilities(val[0]), expected, atol=1e-5)
    other = train_layer(train, val, num_classes, 4)
    assert not np.allclose(other.log_probabilities(val[0]), expected, atol=1e-3)


def test_it_stops_after_a_fifth_of_its_epochs_without_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eva_probe, "MAX_STEPS", 200)
    seen = []

    def constant(*_: object) -> float:
        seen.append(1)
        return 0.5

    monkeypatch.setattr(eva_probe, "monitored_accuracy", constant)
    train, val = parts(3)
    assert train_layer(train, val, 3, 0).steps == 1  # the first of equal checkpoints
    assert len(seen) == 1 + 40  # a step an epoch


def test_the_accuracy_is_plain_for_two_classes_and_macro_for_more() -> None:
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    assert monitored_accuracy(truth, predicted, 2) == 0.75
    assert monitored_accuracy(truth, predicted, 3) == 0.5  # class 2 neither occurs nor is predicted
    assert monitored_accuracy(truth, np.array([0, 0, 2, 1]), 3) == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.slow
def test_it_learns_what_can_be_learnt() -> None:
    train, val = parts(3, signal=3.0)
    found = train_layer(train, val, 3, 0)
    assert (found.log_probabilities(val[0]).argmax(1) == val[1]).mean() > 0.9
