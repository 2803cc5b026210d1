"""What averaging gradients costs a step in several processes: in buckets, or one by one after the backward pass.

The same students and batches in the same processes, in turn:
    alone       `train_step` without averaging gradients: what no averaging can be faster than
    one by one  after the backward pass, one sum over all processes for each parameter: as up to version 0.1.0
    DDP         torch's DistributedDataParallel around the student; projectors one by one. Its buckets change after the
                first step, so that a continued run would not make the same sums (decision 0055)
    buckets     `distributed.GradientBuckets`
The loss and the projector's statistics join the processes in all four. Gloo over loopback, one thread a process: on one
machine there is no network, and where processes share cores nothing can be hidden behind computing. What is left is the
number of sums, and that is what this shows; on cards with NCCL it takes a GPU a process (`--device cuda`).
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import inputs
import machine

from pipeline.base.console import table

WAYS = ("alone", "one by one", "DDP", "buckets")
NEEDED, TEACHER_WIDTH = 1.0, 1536
STEPS = 3
"""Steps in a measurement."""


def child(student_name: str, batch_size: int, device_name: str) -> None:
    """Make `STEPS` steps in the way that each line of input names; prints the CPU seconds they took."""
    import numpy as np
    import torch

    from pipeline.base import distributed
    from pipeline.base.distributed import GradientBuckets
    from pipeline.base.loader import Batch
    from pipeline.config.model_names import SCRATCH
    from pipeline.distillation import Distillation, Head, build_loss, build_projectors
    from pipeline.encoders.build import build_encoder
    from pipeline.training.optim import build_optimizer
    from pipeline.training.step.train_step import train_step

    class OneByOne(GradientBuckets):
        """A sum for each parameter, at the end."""

        def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
            super().__init__([])
            self.parameters = parameters

        @contextmanager
        def averaged(self) -> Iterator[None]:
            yield
            for parameter in self.parameters:
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= distributed.world_size()

    torch.set_num_threads(1)
    device = distributed.join_group(torch.device(device_name))
    draw = np.random.default_rng(distributed.rank())
    patches = torch.from_numpy(draw.integers(0, 256, (batch_size, inputs.PATCH_PX, inputs.PATCH_PX, 3), np.uint8))
    batch = Batch(range(batch_size), patches, list(draw.normal(size=(batch_size, TEACHER_WIDTH)).astype(np.float32)))
    steps = {}
    for way in WAYS:
        student = build_encoder(student_name, SCRATCH, inputs.PATCH_PX)
        module = student.module.to(device)
        (projector,) = build_projectors(student.spec.width, [TEACHER_WIDTH], 0)
        in_training = torch.nn.parallel.DistributedDataParallel(module) if way == "DDP" else module
        heads = (Head("teacher", projector.to(device)),)
        distillation = Distillation(student, heads, device, "float32", in_training)
        distillation.train()
        parameters = distillation.parameters()
        gradients = {
            "alone": GradientBuckets([]),
            "one by one": OneByOne(parameters),
            "DDP": OneByOne(list(projector.parameters())),
            "buckets": GradientBuckets(parameters if way == "buckets" else []),
        }[way]
        steps[way] = (distillation, build_optimizer(distillation.modules(), 1e-4, 0.05), gradients)
    print("ready", flush=True)
    for line in sys.stdin:
        distillation, optimizer, gradients = steps[line.strip()]
        before = sum(os.times()[:2])
        for _ in range(STEPS):
            train_step(distillation, batch, build_loss("log-sum", 4.0), optimizer, 1.0, None, gradients)
        inputs.finish(device)
        print(sum(os.times()[:2]) - before, flush=True)
    distributed.leave_group()


class Group:
    """Processes that train together."""

    def __init__(self, world: int, words: list[str]) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = str(s.getsockname()[1])
        shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--child", *words],
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        self._read()

    def _read(self) -> list[str]:
        lines = [process.stdout.readline() for process in self._processes if process.stdout is not None]
        if not all(lines):
            raise RuntimeError("a process of the group has died")
        return lines

    def steps(self, way: str) -> machine.Measured:
        """Have all make their steps; the CPU seconds are those of all processes."""
        busy, start = machine.busy_seconds(), time.perf_counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(way + "\n")
            process.stdin.flush()
        cpu = sum(map(float, self._read()))
        wall = time.perf_counter() - start
        others = max(machine.busy_seconds() - busy - cpu, 0.0)
        return machine.Measured(wall, cpu, others / (wall * (os.cpu_count() or 1)))

    def end(self) -> None:
        """End them."""
        for process in self._processes:
            process.communicate()


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return 0
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--students", nargs="+", default=["lcnet_050", "vit_tiny_patch16_224"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="rows a process [%(default)s]")
    inputs.device_option(parser)
    args = parser.parse_args()
    inputs.start_device(args.device)  # a device that is not there ends this before processes are started
    lines, notes, worst, quiet = [], [], 0.0, True
    for name in args.students:
        group = Group(args.processes, [name, str(args.batch_size), args.device])
        parts = {way: partial(group.steps, way) for way in WAYS}
        rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
        group.end()
        for way in WAYS:
            milliseconds = rounds.seconds(way) / STEPS * 1000
            lines.append((name, way, f"{milliseconds:.0f}", f"{rounds.ratio([way], ['one by one']):.3f}"))
        notes.append(f"{name}: {rounds.words()}")
        worst, quiet = max(worst, rounds.ratio(["buckets"], ["one by one"])), quiet and rounds.quiet
    print(f"milliseconds a step in {args.processes} processes of {args.batch_size} patches of 224 px, {args.device}")
    print(table(lines, ("student", "gradients", "ms", "times one by one"), right=(2, 3)))
    print("\n".join(notes))
    return machine.conclude(worst, at_most=NEEDED, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
