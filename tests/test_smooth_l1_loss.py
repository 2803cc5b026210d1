"""The smooth L1 loss against torch's own and against its formula."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.distillation import build_loss
from pipeline.smooth_l1_loss import BETA, smooth_l1_loss


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_value_and_gradient_are_torchs(scale: float) -> None:
    draws = torch.Generator().manual_seed(0)
    projected = (torch.randn(16, 6, generator=draws) * scale).requires_grad_()
    teacher = torch.randn(16, 6, generator=draws) * scale
    loss, expected = smooth_l1_loss(projected, teacher), nn.SmoothL1Loss(beta=BETA)(projected, teacher)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    (gradient,), (expected_gradient,) = (torch.autograd.grad(value, projected) for value in (loss, expected))
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=0)


def test_it_is_quadratic_within_a_standard_deviation_and_linear_beyond() -> None:
    differences = np.array([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 7.0])
    size = np.abs(differences)
    expected = np.where(size < 1, size**2 / 2, size - 0.5).mean()
    loss = build_loss("smooth-l1", 4.0)(torch.tensor(differences).view(1, -1), torch.zeros(1, 7))
    assert float(loss) == pytest.approx(expected, rel=1e-6)
