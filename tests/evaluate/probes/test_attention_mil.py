"""Attention MIL: the network against plain formulas, what it learns, and what its digits depend on."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.folds import Fold, group_folds
from pipeline.evaluate.probes import attention_mil as mil
from pipeline.evaluate.probes.attention_mil import GatedAttention, Moments, default_epochs, draw_patches, out_of_fold
from pipeline.evaluate.probes.linear_probe import linear_probe, probe_task

CPU = torch.device("cpu")
WIDTH = 16


def network(seed: int = 0, num_classes: int = 3) -> GatedAttention:
    torch.manual_seed(seed)
    return GatedAttention(WIDTH, num_classes)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


# --- the network ---


def test_the_network_is_the_papers_formula() -> None:
    model = network()
    x = normal(9, WIDTH).astype(np.float64)
    p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    h = np.maximum(x @ p["embed.weight"].T + p["embed.bias"], 0)
    numerators = []
    for patch in h:
        content = np.tanh(p["content.weight"] @ patch + p["content.bias"])
        gate = 1 / (1 + np.exp(-(p["gate.weight"] @ patch + p["gate.bias"])))
        numerators.append(np.exp(p["attend.weight"][0] @ (content * gate) + p["attend.bias"][0]))
    pooled = sum(a * patch for a, patch in zip(numerators, h, strict=True)) / sum(numerators)
    expected = p["classify.weight"] @ pooled + p["classify.bias"]
    found = model(model.hidden(torch.from_numpy(x).float()))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_neither_order_nor_repetition_of_patches_counts() -> None:
    model, x = network(), torch.from_numpy(normal(7, WIDTH))
    logits = model(model.hidden(x))
    torch.testing.assert_close(model(model.hidden(x.flip(0))), logits)
    torch.testing.assert_close(model(model.hidden(torch.cat([x, x]))), logits)


def test_gradients_reach_every_weight_and_are_right() -> None:
    model = network().double()
    hidden = model.hidden(torch.from_numpy(normal(5, WIDTH)).double())
    model(hidden).square().sum().backward()
    for name, parameter in model.named_parameters():
        # the bias of all scores alike cancels in the softmax
        assert bool(parameter.grad.abs().max() > 1e-12) == (name != "attend.bias"), name
    small = torch.rand(3, mil.HIDDEN, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (small,))


# --- moments and draws ---


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(2, 30), st.just(3)), elements=st.floats(-100, 100, width=32)),
    st.integers(1, 29),
)
def test_moments_are_those_of_all_rows(x: NDArray[np.float32], cut: int) -> None:
    cut = min(cut, len(x) - 1)
    merged = Moments.merge([Moments.of(x[:cut]), Moments.of(x[cut:])])
    assert merged.count == len(x)
    np.testing.assert_allclose(merged.mean, x.mean(0, dtype=np.float64), atol=1e-9)
    np.testing.assert_allclose(merged.squares / len(x), x.astype(np.float64).var(0), atol=1e-6)


def test_moments_of_blocks_and_of_constant_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(50, 3)
    x[:, 1] = 1000.1
    whole = Moments.of(x)
    monkeypatch.setattr(mil, "BLOCK_PATCHES", 7)
    blocks = Moments.of(x)
    np.testing.assert_allclose(blocks.scale, whole.scale)
    assert blocks.scale[1] == whole.scale[1] == 1
    np.testing.assert_allclose(whole.scale[[0, 2]], x[:, [0, 2]].std(0), rtol=1e-5)


def test_draws_are_seeded_and_without_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mil, "BAG_PATCHES", 10)
    x = np.arange(25, dtype=np.float32)[:, None]
    drawn = draw_patches(x, [0, 1, 2])
    assert len(np.unique(drawn)) == 10
    assert (np.diff(drawn[:, 0]) > 0).all()
    np.testing.assert_array_equal(drawn, draw_patches(x, [0, 1, 2]))
    assert not np.array_equal(drawn, draw_patches(x, [0, 2, 2]))
    assert draw_patches(x[:10], [0]) is not None
    np.testing.assert_array_equal(draw_patches(x[:10], [0]), x[:10])


# --- what it learns ---


def folds_of(truth: NDArray[np.int64], num_folds: int) -> list[Fold]:
    cases = np.array([f"case {i:03d}" for i in range(len(truth))])
    return group_folds(truth.astype(str), cases, num_folds, 0)


def predict(
    bags: Sequence[NDArray[np.float32]], truth: NDArray[np.int64], folds: Sequence[Fold], epochs: int, seed: int = 0
) -> NDArray[np.float64]:
    moments = [Moments.of(bag) for bag in bags]
    return out_of_fold(lambda i: bags[i], moments, truth, folds, epochs=epochs, seed=seed, device=CPU)


def needles(num_bags: int, num_patches: int, size: float) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Bags of noise; those of class 1 have one patch that is far off in one direction. Every bag has the mean 0, so
    that means say nothing.
    """
    truth = np.arange(num_bags) % 2
    bags = []
    for number, label in enumerate(truth):
        bag = normal(num_patches, WIDTH, seed=number)
        if label:
            bag[number % num_patches, :4] += size / 2
        bags.append(bag - bag.mean(0))
    return bags, truth


@pytest.mark.slow
def test_attention_finds_one_patch_in_many_and_the_mean_does_not() -> None:
    bags, truth = needles(num_bags=40, num_patches=60, size=8.0)
    folds = folds_of(truth, 2)
    attention = roc_auc_score(truth, predict(bags, truth, folds, epochs=20)[:, 1])
    means = np.stack([bag.mean(0) for bag in bags])
    cases = np.array([f"case {i:03d}" for i in range(len(truth))])
    pooled = linear_probe(means, probe_task(truth.astype(str), cases, folds, 0)).probabilities
    assert attention > 0.9
    assert roc_auc_score(truth, pooled[:, 1]) < 0.7


@pytest.mark.slow
def test_a_shift_of_all_patches_is_learnt_for_three_classes_of_unequal_size() -> None:
    truth = np.array([0] * 16 + [1] * 6 + [2] * 6)
    bags = [normal(20, WIDTH, seed=i) + np.eye(3, WIDTH, dtype=np.float32)[y] for i, y in enumerate(truth)]
    probabilities = predict(bags, truth, folds_of(truth, 2), epochs=20)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert roc_auc_score(truth, probabilities, multi_class="ovr") > 0.95


def test_few_bags_have_as_many_steps_as_learning_takes() -> None:
    def fold(count: int) -> Fold:
        return Fold(np.arange(count), np.arange(count, count + 2))

    assert default_epochs([fold(500)]) == mil.EPOCHS
    assert default_epochs([fold(500), fold(8)]) * 8 == mil.MIN_STEPS


def test_classes_weigh_alike_whatever_their_size() -> None:
    truth = np.array([0] * 9 + [1] * 3)
    fold = Fold(np.arange(12), np.arange(0))
    learner = mil._Learner(fold, truth, [Moments.of(normal(3, WIDTH))] * 12, 1, (0, 0), CPU)
    np.testing.assert_allclose(learner.class_weights * [9, 3], 6)


# --- what it may not depend on ---


@pytest.mark.slow
def test_the_number_of_threads_changes_no_digit() -> None:
    bags, truth = needles(num_bags=12, num_patches=300, size=8.0)
    folds = folds_of(truth, 3)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(predict(bags, truth, folds, epochs=2))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*found)
    assert not np.array_equal(found[0], predict(bags, truth, folds, epochs=2, seed=1))


def test_torchs_own_random_numbers_are_neither_used_nor_moved() -> None:
    bags, truth = needles(num_bags=8, num_patches=5, size=8.0)
    folds = folds_of(truth, 2)
    torch.manual_seed(1)
    first, after = predict(bags, truth, folds, epochs=1), torch.rand(1)
    torch.manual_seed(2)
    np.testing.assert_array_equal(predict(bags, truth, folds, epochs=1), first)
    torch.manual_seed(1)
    assert torch.rand(1) == after


def test_folds_do_not_touch_each_other_and_test_bags_are_not_learnt_from() -> None:
    bags, truth = needles(num_bags=12, num_patches=6, size=8.0)
    folds = folds_of(truth, 3)
    together = predict(bags, truth, folds, epochs=2)
    tested = folds[0].test
    alone = predict(bags, truth, folds[:1], epochs=2)
    np.testing.assert_array_equal(alone[tested], together[tested])
    assert np.isnan(alone[np.setdiff1d(np.arange(12), tested)]).all()
    changed = list(bags)
    changed[tested[0]] = bags[tested[0]] * 50
    after = predict(changed, truth, folds[:1], epochs=2)
    np.testing.assert_array_equal(after[tested[1:]], alone[tested[1:]])
    assert not np.array_equal(after[tested[0]], alone[tested[0]])


def test_prediction_in_blocks_is_prediction_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, truth = needles(num_bags=8, num_patches=50, size=8.0)
    folds = folds_of(truth, 2)
    whole = predict(bags, truth, folds, epochs=1)
    monkeypatch.setattr(mil, "BLOCK_PATCHES", 16)
    np.testing.assert_allclose(predict(bags, truth, folds, epochs=1), whole, rtol=1e-5)


def test_what_is_no_number_is_an_error() -> None:
    bags, truth = needles(num_bags=8, num_patches=5, size=8.0)
    moments = [Moments.of(bag) for bag in bags]
    bags[3][2, 1] = np.inf
    with pytest.raises(BenchmarkError, match="diverged"):
        out_of_fold(lambda i: bags[i], moments, truth, folds_of(truth, 2), epochs=1, seed=0, device=CPU)
