"""One batch split over several processes: differentiable sums over all of them. With one process, every function here
is the identity.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from pipeline.base.processes import launch_number, launched_processes

T = TypeVar("T")

_alone = False


def world_size() -> int:
    """Number of processes that train together; 1 inside `alone`."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


@contextmanager
def alone() -> Iterator[None]:
    """Make sums local to this process inside the block, as for a validation that one process runs for all."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def rank() -> int:
    """Rank of this process, from 0; outside the group (before joining, after leaving) as set by `torchrun`."""
    if dist.is_initialized():
        return dist.get_rank()
    return launch_number("RANK", 0) if launched_processes() > 1 else 0


def is_leader() -> bool:
    """Whether this process writes the files: rank 0 does."""
    return rank() == 0


def join_group(device: torch.device) -> torch.device:
    """Join the process group if `torchrun` started one. Returns this process's device."""
    if launched_processes() > 1 and not dist.is_initialized():
        if str(device) == "cuda":
            device = torch.device("cuda", launch_number("LOCAL_RANK", 0))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def gather(value: T) -> list[T]:
    """Every process's `value`, ordered by rank; all processes must call this."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return [value for value in values if value is not None]


def leader_value(value: Tensor) -> Tensor:
    """The first process's `value`; all processes must call this."""
    if world_size() == 1:
        return value
    value = value.clone()
    dist.broadcast(value, src=0)
    return value


def wait_for_all() -> None:
    """Wait until every process has reached this call."""
    if dist.is_initialized():
        dist.barrier()


def leave_group() -> None:
    """Leave the group that `join_group` joined, if any."""
    if dist.is_initialized():
        dist.destroy_process_group()


class _GlobalSum(torch.autograd.Function):
    """All-reduce whose gradient is an all-reduce: every process's loss depends on every process's summand."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def global_sum(value: Tensor) -> Tensor:
    """Sum of `value` over all processes; differentiable."""
    if world_size() == 1:
        return value
    total: Tensor = _GlobalSum.apply(value)
    return total


def global_max(value: Tensor) -> Tensor:
    """Largest `value` over all processes; gradients treat it as a constant."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Turn every process's gradients into those of the global loss.

    Each process backpropagates the same global loss through its own rows, and `global_sum` adds up the copies of all
    processes. The sum over processes is therefore `world_size` times the gradient, and the mean is the gradient.
    """
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()
