"""Students that are split over processes: a group of this process alone, and a distillation, whole or split."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_projectors
from pipeline.encoders.build import build_encoder
from pipeline.training.sharded.split import shard_student
from pipeline.training.step.train_step import HowToStep

WIDTHS = (12, 5)
"""Widths of two teachers."""


@contextmanager
def alone_in_a_group() -> Iterator[None]:
    """A process group of one, in which tensors are split into one part."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def build_distillation(student: Path, how: HowToStep, precision: str = "float32") -> Distillation:
    """A student from scratch and two heads, whole or split as `how` says."""
    built, device = build_encoder(f"local-dir:{student}", SCRATCH, 32), torch.device("cpu")
    first, second = build_projectors(built.spec.width, WIDTHS, 1)
    if how.sharded:
        shard_student(built.module, built.module.model, device, precision)
    heads = (Head("a", first, 0.75), Head("b", second, 0.25))
    return Distillation(built, heads, device, precision, how.training_pass(built), how.part, how.sharded)
