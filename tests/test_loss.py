"""The Log-Sum loss against the formula in float64, its edges, and the two losses for ablation."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.config.losses import LOSSES
from pipeline.distillation import build_loss
from pipeline.loss import SMALLEST_DIFFERENCE, cosine_loss, log_sum_loss, mse_loss
from pipeline.projector import Projector

ALPHAS = (1.0, 2.0, 3.5, 4.0, 8.0)


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def reference(projected: Tensor, teacher: Tensor, alpha: float) -> tuple[float, Tensor]:
    """Value and gradient of the plain formula in float64, by numpy and by hand."""
    d = projected.detach().numpy().astype(np.float64) - teacher.detach().numpy().astype(np.float64)
    total = (np.abs(d) ** alpha).sum()
    return float(np.log(total)), torch.from_numpy(alpha * np.abs(d) ** (alpha - 1) * np.sign(d) / total)


def value_and_gradient(projected: Tensor, teacher: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    projected = projected.detach().clone().requires_grad_()
    loss = log_sum_loss(projected, teacher, alpha)
    (gradient,) = torch.autograd.grad(loss, projected)
    return loss.detach(), gradient


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_value_and_gradient_are_the_formulas(alpha: float, scale: float) -> None:
    projected, teacher = draw(0, 32, 24, scale=scale), draw(1, 32, 24, scale=scale)
    expected, expected_gradient = reference(projected, teacher, alpha)
    loss, gradient = value_and_gradient(projected, teacher, alpha)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=1e-6, abs=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-6 / scale)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_whole_formula_with_projector_and_normalisation(alpha: float) -> None:
    """Loss and gradients of log sum |BN(W z_s + b) - BN(z_t)|^alpha, against torch's modules in float64."""
    projector = Projector(6, 10).train()
    student, teacher = draw(2, 16, 6).requires_grad_(), draw(3, 16, 10, scale=7) + 3
    loss = log_sum_loss(*projector(student, teacher), alpha)
    weight, bias = projector.linear.weight, projector.linear.bias
    gradients = torch.autograd.grad(loss, [student, weight, bias])

    norms = [nn.BatchNorm1d(10, affine=False).double().train() for _ in range(2)]
    leaves = [tensor.detach().double().requires_grad_() for tensor in (student, weight, bias)]
    plain = (norms[0](leaves[0] @ leaves[1].T + leaves[2]) - norms[1](teacher.double())).abs().pow(alpha).sum().log()
    expected = torch.autograd.grad(plain, leaves)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for gradient, value in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient.double(), value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_exact_equality_has_a_finite_loss_and_no_gradient(alpha: float) -> None:
    teacher = draw(4, 8, 5)
    loss, gradient = value_and_gradient(teacher, teacher, alpha)
    assert float(loss) == pytest.approx(alpha * math.log(SMALLEST_DIFFERENCE))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_single_difference_has_the_formulas_gradient(alpha: float) -> None:
    """The sum of scaled powers is exactly 1 here: its lower bound must not cut the gradient."""
    teacher = torch.zeros(4, 3)
    projected = teacher.clone()
    projected[2, 1] = -0.25
    loss, gradient = value_and_gradient(projected, teacher, alpha)
    assert float(loss) == pytest.approx(alpha * math.log(0.25), rel=1e-6)
    assert float(gradient[2, 1]) == pytest.approx(alpha / -0.25)
    assert int(gradient.count_nonzero()) == 1


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("difference", [1e4, 1e10, 1e-5])
def test_large_and_small_differences_are_finite(alpha: float, difference: float) -> None:
    """1e10 to the power of 4 is beyond float32, and 1e-5 to the power of 8 below it."""
    loss, gradient = value_and_gradient(torch.full((4, 4), difference), torch.zeros(4, 4), alpha)
    assert float(loss) == pytest.approx(alpha * math.log(difference) + math.log(16), rel=1e-5)
    torch.testing.assert_close(gradient, torch.full((4, 4), alpha / difference / 16), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_bf16_autocast_changes_nothing(name: str) -> None:
    loss_of = build_loss(name, 4.0)
    projector, student, teacher = Projector(6, 10).train(), draw(5, 16, 6), draw(6, 16, 10)
    results = []
    for enabled in (False, True):
        z = student.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = loss_of(*projector(z, teacher))
        assert loss.dtype == torch.float32
        results += [loss.detach(), *torch.autograd.grad(loss, [z, projector.linear.weight])]
    for plain, cast in zip(results[:3], results[3:], strict=True):
        assert torch.equal(plain, cast)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("difference", [0.0, 1e4])
@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_inputs_give_finite_gradients(name: str, difference: float, autocast: bool) -> None:
    teacher = draw(7, 8, 6).bfloat16()
    projected = (teacher + difference).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = build_loss(name, 4.0)(projected, teacher)
    (gradient,) = torch.autograd.grad(loss, projected)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("difference", [0.0, 1e4])
def test_under_bf16_autocast_value_and_gradient_are_the_formulas(
    alpha: float, dtype: torch.dtype, difference: float
) -> None:
    """At equality the floor and no gradient; elsewhere the formula of the given inputs, without a further rounding."""
    teacher = draw(10, 8, 6).to(dtype)
    projected = teacher + torch.linspace(0.5, 1, 48).view(8, 6).to(dtype) * difference
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = value_and_gradient(projected, teacher, alpha)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    if difference == 0:
        assert float(loss) == pytest.approx(alpha * math.log(SMALLEST_DIFFERENCE))
        assert not gradient.any()
        return
    expected, expected_gradient = reference(projected.float(), teacher.float(), alpha)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    rounding = 2.0**-8 if dtype == torch.bfloat16 else 1e-5  # a gradient has its input's type
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=rounding, atol=0)


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(1, 8), factor=st.floats(1e-2, 1e3), seed=st.integers(0, 1000))
def test_scaling_differences_adds_alpha_log_factor(alpha: float, factor: float, seed: int) -> None:
    difference, zero = draw(seed, 6, 4), torch.zeros(6, 4)
    loss, scaled = log_sum_loss(difference, zero, alpha), log_sum_loss(difference * factor, zero, alpha)
    assert float(scaled - loss) == pytest.approx(alpha * math.log(factor), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(alpha=st.floats(1, 8), seed=st.integers(0, 1000))
def test_symmetries_of_the_loss(alpha: float, seed: int) -> None:
    """Neither the order of rows and dimensions nor the side matters; its gradient is the differences' softmax-like
    share: it sums, weighted by the differences, to alpha."""
    projected, teacher = draw(seed, 6, 4), draw(seed + 1, 6, 4)
    loss, gradient = value_and_gradient(projected, teacher, alpha)
    turned = log_sum_loss(teacher.flip(0).T, projected.flip(0).T, alpha)
    assert float(turned) == pytest.approx(float(loss), abs=1e-5)
    assert float((gradient * (projected - teacher)).sum()) == pytest.approx(alpha, rel=1e-4)


def test_a_small_alpha_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 1, not 0\.5"):
        log_sum_loss(torch.ones(2, 2), torch.zeros(2, 2), 0.5)


def test_losses_for_ablation_are_torchs() -> None:
    projected, teacher = draw(8, 16, 6), draw(9, 16, 6)
    torch.testing.assert_close(mse_loss(projected, teacher), nn.functional.mse_loss(projected, teacher))
    expected = 1 - nn.functional.cosine_similarity(projected.double(), teacher.double(), dim=1).mean()
    torch.testing.assert_close(cosine_loss(projected, teacher).double(), expected, rtol=1e-6, atol=1e-6)
    assert float(build_loss("cosine", 4)(teacher, 3 * teacher)) == pytest.approx(0, abs=1e-6)
    assert float(build_loss("mse", 4)(teacher, teacher + 2)) == pytest.approx(4, rel=1e-5)
    assert float(build_loss("log-sum", 2)(teacher, teacher + 1)) == pytest.approx(math.log(teacher.numel()), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("other", [(1, 8), (4, 1), (4, 6), (8,)])
def test_shapes_that_are_no_pairs_are_refused(name: str, other: tuple[int, ...]) -> None:
    """torch would repeat one row, or one column, without a word."""
    with pytest.raises(ValueError, match="are no pairs" if len(other) == 2 else r"no batch \(B, T\)"):
        build_loss(name, 4.0)(torch.zeros(4, 8), torch.zeros(other))


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_no_batch_is_refused(name: str) -> None:
    good: Any = torch.zeros(4, 8)
    for bad, words in ((good.numpy(), "are a ndarray"), ([1.0], "are a list"), (good[0], r"\(8,\) are no batch")):
        with pytest.raises(ValueError, match=words):
            build_loss(name, 4.0)(bad, good)
        with pytest.raises(ValueError, match=words):
            build_loss(name, 4.0)(good, bad)


@pytest.mark.parametrize("alpha", [4, np.int64(4), np.float32(4), np.float64(4)])
def test_alpha_may_be_any_real_number(alpha: Any) -> None:
    assert log_sum_loss(torch.ones(2, 3), torch.zeros(2, 3), alpha) == log_sum_loss(
        torch.ones(2, 3), torch.zeros(2, 3), 4.0
    )


@pytest.mark.parametrize("alpha", ["4", None, float("nan"), float("inf"), 0, np.float32(0.5)])
def test_alpha_is_a_number_of_at_least_one(alpha: Any) -> None:
    with pytest.raises(ValueError, match="alpha must be a number of at least 1"):
        log_sum_loss(torch.zeros(4, 8), torch.ones(4, 8), alpha)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_a_batch_without_embeddings_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="without embeddings"):
        log_sum_loss(torch.zeros(shape), torch.zeros(shape), 4)
