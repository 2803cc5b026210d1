"""Peak memory against counted bytes and the allocator's own record."""

import gc
import itertools

import pytest
import torch
from torch import Tensor, nn

from pipeline.base import memory
from pipeline.encoders.build import build_encoder
from pipeline.evaluate.cost import measure as cost


class Copies(nn.Module):
    """Two float copies of the patches, of which the first is let go before a third is made."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))

    def forward(self, patches: Tensor) -> Tensor:
        first = patches.float()
        second = first + 1
        del first
        third = second + 1
        return third.flatten(1)


def test_peak_memory_is_weights_input_and_what_lives_at_once() -> None:
    patches = torch.zeros((2, 50, 50, 3), dtype=torch.uint8)
    numbers = patches.numel()
    assert memory.peak_bytes(Copies(), patches, "float32") == 10 * 4 + numbers + 2 * 4 * numbers


def test_peak_memory_counts_views_and_work_in_place_once() -> None:
    class InPlace(nn.Module):
        def forward(self, patches: Tensor) -> Tensor:
            return patches.float().permute(0, 3, 1, 2).relu_().add_(1).flatten(1)

    patches = torch.zeros((2, 8, 8, 3), dtype=torch.uint8)
    assert memory.peak_bytes(InPlace(), patches, "float32") <= patches.numel() * (1 + 2 * 4)


@pytest.mark.slow
def test_peak_memory_agrees_with_the_allocator() -> None:
    module = build_encoder("vit_tiny_patch16_224", "scratch", 224).module
    patches = torch.zeros((2, 224, 224, 3), dtype=torch.uint8)
    gc.collect()
    with torch.inference_mode(), torch.autograd.profiler.profile(profile_memory=True) as profiled:
        module(patches)
    events = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    held = 4 * cost.num_params(module) + 4 * 6 + patches.numel()
    expected = held + max(itertools.accumulate(sizes))
    assert memory.peak_bytes(module, patches, "float32") == pytest.approx(expected, rel=0.01)


def test_a_model_has_the_same_peak_beside_others() -> None:
    patches = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    module = build_encoder("test_resnet", "scratch", 64).module
    alone = memory.peak_bytes(module, patches, "float32")
    other = build_encoder("test_vit", "scratch", 160).module
    assert memory.peak_bytes(module, patches, "float32") == alone
    del other


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("x"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    ],
)
def test_allocations_that_fail(error: Exception) -> None:
    assert memory.is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError(), OSError()])
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not memory.is_out_of_memory(error)


def test_an_allocation_that_really_fails() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)


def test_buffers_count_as_parameters_do() -> None:
    assert [name for name, _ in memory.named_tensors(nn.BatchNorm1d(3))] == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
