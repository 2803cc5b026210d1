"""What each process holds of a student that is split over the processes, as counts of bytes: no time is measured.

One step of AdamW in each process (gloo over loopback, float32), then the bytes of this process's parts of parameters,
gradients and moments, of the student alone, over those of the whole. What the step gathers for a moment is not counted.
"""

import os
import socket
import subprocess
import sys

from pipeline.base.console import table

NEEDED = 1.1
"""Times 1/N, at most. Our choice: a first dimension that N does not divide is cut unevenly."""
TEACHER_WIDTH, ROWS = 1536, 2


def child(student_name: str) -> None:
    """Make a step; prints the bytes of this process's parts and of the whole, for each kind."""
    import inputs
    import numpy as np
    import torch

    from pipeline.base import distributed
    from pipeline.base.distributed import GradientBuckets
    from pipeline.base.loader import Batch
    from pipeline.config.model_names import SCRATCH
    from pipeline.distillation import Distillation, Head, build_loss, build_projectors
    from pipeline.encoders.build import build_encoder
    from pipeline.training.optim import build_optimizer
    from pipeline.training.sharded.split import is_split, local, shard_student
    from pipeline.training.sharded.update import ShardedAdamW
    from pipeline.training.step.train_step import train_step

    torch.set_num_threads(1)
    device = distributed.join_group(torch.device("cpu"))
    student = build_encoder(student_name, SCRATCH, inputs.PATCH_PX)
    shard_student(student.module, student.module.model, device, "float32")
    (projector,) = build_projectors(student.spec.width, [TEACHER_WIDTH], 0)
    distillation = Distillation(student, (Head("teacher", projector),), device, "float32", is_sharded=True)
    distillation.train()
    optimizer = build_optimizer(distillation.modules(), 1e-4, 0.05, ShardedAdamW)
    draw = np.random.default_rng(distributed.rank())
    patches = torch.from_numpy(draw.integers(0, 256, (ROWS, inputs.PATCH_PX, inputs.PATCH_PX, 3), np.uint8))
    batch = Batch(range(ROWS), patches, list(draw.normal(size=(ROWS, TEACHER_WIDTH)).astype(np.float32)))
    gradients = GradientBuckets([p for p in distillation.parameters() if not is_split(p)])
    train_step(distillation, batch, build_loss("log-sum", 4.0), optimizer, 1.0, gradients=gradients)
    parameters = list(student.module.parameters())
    kinds = (
        parameters,
        [p.grad for p in parameters if p.grad is not None],
        [optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq")],
    )
    for tensors in kinds:
        print(sum(local(each).nbytes for each in tensors), sum(each.numel() * each.element_size() for each in tensors))
    distributed.leave_group()


def held(student: str, world: int) -> list[list[tuple[int, int]]]:
    """For each process, bytes here and in all, of parameters, gradients and moments."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", student],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a process has failed")
    return [[(int(a), int(b)) for a, b in (line.split() for line in each.splitlines())] for each in said]


def main() -> int:
    """Prints a table and the ratio; returns the exit code."""
    student, rows, worst = sys.argv[1] if len(sys.argv) > 1 else "vit_tiny_patch16_224", [], 0.0
    for world in (2, 4):
        of_each = held(student, world)
        for number, kind in enumerate(("parameters", "gradients", "moments")):
            whole = of_each[0][number][1]
            most = max(process[number][0] for process in of_each)
            worst = max(worst, most * world / whole)
            rows.append([str(world), kind, f"{whole:,}", f"{most:,}", f"{most / whole:.3f}"])
    print(table(rows, ["processes", "of the student", "bytes in all", "most in one", "share"], right=(2, 3, 4)))
    print(f"ratio: {worst:.3f} (needs <= {NEEDED})")
    return int(worst > NEEDED)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        sys.exit(main())
