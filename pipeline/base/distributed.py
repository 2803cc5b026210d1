"""One batch split over several processes: differentiable sums over all of them, and gradients averaged during the
backward pass. With one process, every function here is the identity.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from pipeline.base.errors import ConfigError, first_line
from pipeline.base.launched.group import GroupError, ReachedStore, launcher_store
from pipeline.base.launched.meeting import meet
from pipeline.base.processes import launch_number, launched_processes

T = TypeVar("T")

GLOO = "gloo/"
"""Stands in gloo's errors, before the line of its source: they are plain `RuntimeError`s."""

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
    """Join the process group if `torchrun` started one, once all its processes have come. Returns this process's
    device.

    Raises:
        ConfigError: the machine has fewer GPUs than processes, or they cannot train together on such a device.
        GroupError: the launcher's store cannot be reached, or not all processes came.
    """
    if launched_processes() > 1 and not dist.is_initialized():
        require_for_several(device)
        device = own_device(device)
        store, number, world = launcher_store()
        store = dist.PrefixStore(f"g2l/together/{world}", store)  # type: ignore[attr-defined]
        store = dist.PrefixStore(meet(ReachedStore(store), number, world), store)  # type: ignore[attr-defined]
        backend = "nccl" if device.type == "cuda" else "gloo"
        with lost_processes_told():
            dist.init_process_group(backend, store=store, rank=number, world_size=world)
    return device


def require_for_several(device: torch.device) -> None:
    """See that several processes can train together on the device that was asked for.

    Raises:
        ConfigError: it is neither of CUDA nor a CPU, or one card for several processes, which NCCL refuses.
    """
    if device.type not in ("cuda", "cpu"):
        raise ConfigError(
            f"--device {device}: several processes train together on GPUs of CUDA or on CPUs only. Start one process, "
            "without torchrun, or use --device cpu"
        )
    here = launch_number("LOCAL_WORLD_SIZE", 1, least=1)
    if device.type == "cuda" and device.index is not None and here > 1:
        raise ConfigError(
            f"--device {device}: the {here} processes of this machine would share one card, and each needs its own. "
            "Use --device cuda, which gives each the card of its number, and CUDA_VISIBLE_DEVICES to choose among cards"
        )


@contextmanager
def lost_processes_told() -> Iterator[None]:
    """Turn the error of a call that processes make together, also of torch's own, into one for the user: another
    process has ended. Errors of the computation are left as they are.

    Raises:
        GroupError: a call that the processes make together has failed.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and GLOO not in str(error):
            raise
        cause = first_line(error).split(". ")[0]
        raise GroupError(
            f"another process of this run has ended, and says why; this one cannot go on alone ({cause})"
        ) from error


def own_device(device: torch.device) -> torch.device:
    """This process's own GPU, by LOCAL_RANK, where `torchrun` started several and `device` names none in particular.

    Raises:
        ConfigError: the machine has fewer GPUs than processes.
    """
    if launched_processes() == 1 or str(device) != "cuda":
        return device
    local = launch_number("LOCAL_RANK", 0)
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local} of this machine (LOCAL_RANK) has no GPU: there are {torch.cuda.device_count()}. Start as "
            "many processes as there are GPUs (torchrun --nproc-per-node), or use --device cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


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


BUCKET_BYTES = 25 << 20
"""Bytes of gradients that are sent together, at least: as in torch's DistributedDataParallel."""


class _Bucket:
    """Gradients that are sent together.

    Attributes:
        parameters: theirs; the gradients are sent in this order.
        missing: parameters whose gradient is not final yet.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing: set[torch.nn.Parameter] = set()
        self._expected = set(parameters)
        self._flat: Tensor | None = None
        self._work: dist.Work | None = None

    def begin(self) -> None:
        """Wait for the gradients that the last step had; at first for all."""
        self.missing = set(self._expected)

    def add(self, parameter: torch.nn.Parameter) -> None:
        """Note that the gradient of a parameter is final."""
        assert self._work is None, "a parameter that had no gradient in the last step has one now"
        self.missing.discard(parameter)

    def send(self) -> None:
        """Begin to sum the gradients over all processes. From here on they lie in the bucket, in their own layouts, so
        that none is kept twice.
        """
        having = [(p, p.grad) for p in self.parameters if p.grad is not None]
        self._expected = {parameter for parameter, _ in having}
        if not having:
            return
        self._flat = having[0][1].new_empty(sum(gradient.numel() for _, gradient in having))
        start = 0
        for parameter, gradient in having:
            dense = torch.empty_like(gradient, device="meta").stride()  # the gradient's own, unless that has gaps
            parameter.grad = self._flat.as_strided(gradient.shape, dense, start).copy_(gradient)
            start += gradient.numel()
        self._work = dist.all_reduce(self._flat, async_op=True)

    def receive(self) -> None:
        """Wait for the sums, and make them means."""
        if self._work is not None and self._flat is not None:
            self._work.wait()
            self._flat /= world_size()
        self._flat = self._work = None


class GradientBuckets:
    """Turn every process's gradients into those of the global loss, in buckets that are sent during the backward pass.

    Each process backpropagates the same global loss through its own rows, and `global_sum` adds up the copies of all
    processes. The sum over processes is therefore `world_size` times the gradient, and the mean is the gradient.

    Buckets depend on the list of parameters alone, the last ones first, as the backward pass makes them; every process
    sends them in their order. So the sums are made in the same order in every step and after every start, which torch's
    DistributedDataParallel, whose buckets change after its first step, does not promise. Parameters without a gradient
    must be the same ones in every step.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
        self._buckets = [_Bucket(part) for part in fill_buckets(parameters, bucket_bytes)] if world_size() > 1 else []
        self._is_final = False
        self._num_sent = 0
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._note, bucket))  # type: ignore[no-untyped-call]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The block makes the gradients of a step by backward passes; at its end they are averaged."""
        for bucket in self._buckets:
            bucket.begin()
        self._num_sent, self._is_final = 0, True
        try:
            yield
        finally:
            self._is_final = False
        with torch.no_grad():
            for bucket in self._buckets[self._num_sent :]:
                bucket.send()
            for bucket in self._buckets:
                bucket.receive()

    @contextmanager
    def more_to_come(self) -> Iterator[None]:
        """Within `averaged`: later passes add to the gradients that this block makes."""
        self._is_final = False
        yield
        self._is_final = True

    def _note(self, bucket: _Bucket, parameter: torch.nn.Parameter) -> None:
        """Called after a backward pass has added to a gradient: send the buckets that are complete, in their order."""
        if not self._is_final:
            return
        bucket.add(parameter)
        while self._num_sent < len(self._buckets) and not self._buckets[self._num_sent].missing:
            self._buckets[self._num_sent].send()
            self._num_sent += 1


def fill_buckets(parameters: Sequence[torch.nn.Parameter], bucket_bytes: int) -> list[list[torch.nn.Parameter]]:
    """Split parameters, the last ones first, into buckets of at least `bucket_bytes` (the last may be smaller), each of
    one type and device.
    """
    buckets: list[list[torch.nn.Parameter]] = []
    full, kind = True, None
    for parameter in reversed(parameters):
        if full or (parameter.dtype, parameter.device) != kind:
            buckets.append([])
        buckets[-1].append(parameter)
        kind = parameter.dtype, parameter.device
        full = sum(p.numel() * p.element_size() for p in buckets[-1]) >= bucket_bytes
    return buckets
