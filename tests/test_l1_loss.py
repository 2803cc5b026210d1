"""The mean absolute difference against torch's own."""

import pytest
import torch
from torch import nn

from pipeline.distillation import build_loss
from pipeline.l1_loss import l1_loss


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_value_and_gradient_are_torchs(scale: float) -> None:
    draws = torch.Generator().manual_seed(0)
    projected = (torch.randn(16, 6, generator=draws) * scale).requires_grad_()
    teacher = torch.randn(16, 6, generator=draws) * scale
    loss, expected = l1_loss(projected, teacher), nn.functional.l1_loss(projected.double(), teacher.double())
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    (gradient,), (expected_gradient,) = (torch.autograd.grad(value, projected) for value in (loss, expected))
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=0)


def test_its_name_leads_to_it() -> None:
    teacher = torch.arange(12.0).view(3, 4)
    assert float(build_loss("l1", 4.0)(teacher - 2.5, teacher)) == pytest.approx(2.5)
    assert float(build_loss("l1", 4.0)(teacher, teacher)) == 0
