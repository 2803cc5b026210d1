"""Batch normalisation over all processes against torch's over the whole batch. Here a group of one process, whose sums
go the same way; `test_processes.py` has several.
"""

from collections.abc import Iterator

import pytest
import timm
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, EvoNorm2dB0
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.step.batch_norm import (
    BatchNormOverAll,
    batch_norm_over_all,
    batch_norms,
    can_synchronise,
    statistics_over_all,
)


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def values_of(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * 3 + 5).to(dtype)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 2), (2, 3, 1, 1)])
@pytest.mark.parametrize("affine", [False, True])
def test_values_gradients_and_statistics_are_torchs(shape: tuple[int, ...], affine: bool) -> None:
    results = []
    for function in (batch_norm_over_all, F.batch_norm):
        values = values_of(*shape).requires_grad_()
        weights = [torch.arange(1.0, 4.0, dtype=torch.float64).requires_grad_() for _ in range(2 * affine)]
        mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        out = function(values, mean, var, *(weights or (None, None)), True, 0.3, 1e-4)
        (out * values_of(*shape).cos()).sum().backward()
        results.append([out, values.grad, mean, var, *(weight.grad for weight in weights)])
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-12)


def test_the_gradient_is_that_of_differences() -> None:
    def normalise(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return batch_norm_over_all(values, torch.zeros(3).double(), torch.ones(3).double(), weight, bias, True)

    inputs = [values_of(*shape).requires_grad_() for shape in ((4, 3, 2), (3,), (3,))]
    assert torch.autograd.gradcheck(normalise, inputs)


def test_only_what_needs_a_gradient_gets_one() -> None:
    weight = torch.ones(3).requires_grad_()
    out = batch_norm_over_all(values_of(4, 3).float(), torch.zeros(3), torch.ones(3), weight, torch.zeros(3), True)
    out.square().sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


def test_a_large_mean_costs_no_digits() -> None:
    values = (values_of(64, 3) + 10_000).float()
    _, var = statistics_over_all(values)
    torch.testing.assert_close(var, values.double().var(0, correction=0).float(), rtol=1e-4, atol=0)


def test_bfloat16_has_statistics_in_float32() -> None:
    values = values_of(8, 3, 4, 4).bfloat16().requires_grad_()
    mean, var = torch.zeros(3), torch.ones(3)
    out = batch_norm_over_all(values, mean, var, torch.ones(3), torch.zeros(3), True, 1.0)
    out.square().sum().backward()  # type: ignore[no-untyped-call]
    assert (out.dtype, mean.dtype) == (torch.bfloat16, torch.float32)
    assert values.grad is not None
    assert values.grad.dtype == torch.bfloat16
    torch.testing.assert_close(mean, values.detach().float().mean((0, 2, 3)))


def test_one_value_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="batch of one value"):
        batch_norm_over_all(values_of(1, 3), torch.zeros(3), torch.ones(3), training=True)


def test_out_of_training_and_without_statistics_torchs_is_called() -> None:
    values, mean, var = values_of(4, 3), torch.ones(3).double(), 2 * torch.ones(3).double()
    for arguments in ((mean, var), (None, None, None, None, True)):
        assert torch.equal(batch_norm_over_all(values, *arguments), F.batch_norm(values, *arguments))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_resnet", "nf_resnet26"])
def test_a_model_of_timm_is_normalised_by_it(name: str) -> None:
    """Its norms with activations and its standardised convolutions, too; each count of batches goes up by one."""
    results = []
    for over_all in (False, True):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0).double().train()
        torch.manual_seed(1)
        images = values_of(3, 3, 64, 64)
        with BatchNormOverAll() if over_all else torch.enable_grad():
            model(images).square().mean().backward()
        results.append([p.grad for p in model.parameters()] + list(model.state_dict().values()))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


def test_which_layers_normalise_over_the_batch() -> None:
    """A layer of timm's own that does is found, but not known."""
    known = nn.Sequential(nn.BatchNorm2d(2), BatchNormAct2d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2))
    assert [type(m) for m in batch_norms(known)] == [nn.BatchNorm2d, BatchNormAct2d]
    assert can_synchronise(known)
    for other in (EvoNorm2dB0(2), nn.BatchNorm1d(2, track_running_stats=False)):
        assert batch_norms(nn.Sequential(other)) == [other]
        assert not can_synchronise(nn.Sequential(known, other))
