"""A student that is split over the processes with torch's FSDP2 (`fully_shard`), for `--shard-student`.

Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", 2023. Each process keeps one part of
each parameter, of its gradient and of the optimiser's state: rows of its first dimension, as `torch.chunk` cuts them.
The whole of a block is gathered while the block computes, forward and backward. Projectors are small, and every process
has them whole. Decision 0062.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from pipeline.base import distributed
from pipeline.base.errors import ConfigError
from pipeline.training.step.batch_norm import batch_norms

DEVICES = ("cuda", "cpu")
"""Devices whose processes can share a student: those of NCCL and gloo."""


def require_shardable(student: str, device: torch.device, *, compiled: bool) -> None:
    """Check that a student can be split over processes here.

    Raises:
        ConfigError: it cannot.
    """
    if compiled:
        raise ConfigError(
            f"--compile: {student} is split over processes, and the gathering of its parts is not compiled. Leave out "
            "--compile or --shard-student"
        )
    if device.type not in DEVICES:
        raise ConfigError(
            f"--shard-student: a student is split over GPUs of CUDA, or over processes on a CPU, not on {device.type}"
        )


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """What of a student is gathered at a time: the members of the lists at its top, that is the blocks of a ViT and the
    stages or blocks of a CNN; of a model without such lists, the modules at its top. Those without parameters are left
    out. What is in no block is gathered with the whole model.
    """
    lists = [child for child in model.children() if isinstance(child, nn.Sequential | nn.ModuleList)]
    members = [member for each in lists for member in each]
    having = [member for member in members if any(True for _ in member.parameters())]
    return having or [child for child in model.children() if any(True for _ in child.parameters())]


def policy_of(module: nn.Module, device: torch.device, precision: str) -> MixedPrecisionPolicy:
    """The number types of the blocks of a student that computes in `precision`.

    Parts, gradients and their sums are in float32. In bfloat16, on a GPU, blocks are gathered in it, and autocast goes
    on choosing the arithmetic of each operation: otherwise autocast would keep a copy of every matrix until the
    backward pass, the whole student in each process. Batch normalisation needs its parameters in float32. So does what
    is in no block: position embeddings decide the type of the sum that runs through all blocks. On a CPU torch's layer
    normalisation takes parameters of its input's type only, so that blocks are gathered in float32.
    """
    if precision != "bfloat16" or device.type != "cuda" or batch_norms(module):
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)


def shard_student(module: nn.Module, model: nn.Module, device: torch.device, precision: str) -> None:
    """Split a student, whole and alike in all processes, over them; each block goes to `device` when it is split, so
    that the student is never whole there.

    `module` is what is called: uint8 (B, P, P, 3) -> (B, S); `model` is the part of it that has the blocks.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP takes no other; the rows of images keep their order
    module.register_forward_hook(_apart)
    mesh, policy = init_device_mesh(device.type, (distributed.world_size(),)), policy_of(module, device, precision)
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


def _apart(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """The embedding as a tensor of its own: FSDP warns of views, which hooks on gradients do not follow."""
    return output.clone()


def local(value: Tensor) -> Tensor:
    """The part of a tensor that this process has: of one that is not split, all of it."""
    return value.to_local() if isinstance(value, DTensor) else value


def is_split(value: Tensor) -> bool:
    """Whether a tensor is split over the processes."""
    return isinstance(value, DTensor)


def take_part(whole: Tensor, part: Tensor) -> Tensor:
    """Fill `part` with what belongs there of a tensor that this process has whole; returns it."""
    if not is_split(part):
        return part.copy_(whole)
    parts: Sequence[Tensor] = whole.chunk(distributed.world_size())
    mine = parts[distributed.rank()] if distributed.rank() < len(parts) else whole[:0]
    local(part).copy_(mine)
    return part
