"""Making a view against a student's step on it.

Threads of the loader make the views that the student sees while it computes, so a view must take less time than its
share of a step: else the student waits for its pixels. What is compared is the same batch in the same process, in turn:
    NAME      `Views.apply` of every tile of the batch, `REPEATS` times: the crop of 224 px of 256 and all changes of
              that strength; other views each time
    step      `train_step` on the batch in memory: forward, loss, backward, clipping, AdamW; of a small ViT, which has
              the shortest step of the students that anyone distils into, and is the hardest case
Both have one thread: with more, views and the step take as many times less, but for what threads wait for each other.
The ratio is the worst strength's share of the step. For larger students the step is not measured but counted: the bytes
of weights, gradients and both moments of AdamW that a step reads and writes (28 a parameter), over the rows of a batch,
beside the bytes of a view's pixels.
"""

import sys

import machine
import numpy as np
import timm
import torch
from inputs import DEVICE
from numpy.typing import NDArray

from pipeline.base.console import table
from pipeline.base.devices import keep_freed_memory
from pipeline.base.loader import Batch
from pipeline.cohort.views.strengths import VIEW_STRENGTHS
from pipeline.cohort.views.views import Views
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_loss, build_projectors
from pipeline.encoders.build import build_encoder
from pipeline.student.program import tissue_patches
from pipeline.training.optim import build_optimizer
from pipeline.training.step.train_step import train_step

TILE_PX, PATCH_PX, TEACHER_WIDTH = 256, 224, 1536
SMALL = "vit_tiny_patch16_224"
LARGER = ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")
REPEATS = 16
"""Views of each tile that are timed together: the clock of CPU time ticks every 10 ms."""
STEP_BYTES = 28
"""Of a parameter in float32: weight, gradient and two moments are read; weight and two moments are written."""


class Step:
    """One step of a small student on a batch in memory."""

    def __init__(self, patches: NDArray[np.uint8]) -> None:
        student = build_encoder(SMALL, SCRATCH, PATCH_PX)
        (projector,) = build_projectors(student.spec.width, [TEACHER_WIDTH], 0)
        self.distillation = Distillation(student, (Head("teacher", projector, 1.0),), DEVICE, "float32")
        self.optimizer = build_optimizer(self.distillation.modules(), 1e-4, 0.05)
        embeddings = np.random.default_rng(0).normal(size=(len(patches), TEACHER_WIDTH)).astype(np.float32)
        self.batch = Batch(range(len(patches)), torch.from_numpy(patches), list(embeddings))
        self.loss_of = build_loss("log-sum", 4.0)
        self.distillation.train()

    def __call__(self) -> None:
        train_step(self.distillation, self.batch, self.loss_of, self.optimizer, 1.0)


class Making:
    """Views of all tiles of a batch; other ones each time."""

    def __init__(self, tiles: NDArray[np.uint8], strength: str) -> None:
        self.tiles, self.views, self.number = tiles, Views(2, 0, strength, PATCH_PX), 0

    def __call__(self) -> None:
        for _ in range(REPEATS):
            self.number += 1
            for row, tile in enumerate(self.tiles):
                self.views.apply(tile, row, self.number)


def counted_bytes(batch_size: int) -> str:
    """Bytes that a step of larger students moves for each row of a batch, beside those of a view."""
    view_mb = PATCH_PX * PATCH_PX * 3 / 1e6
    lines = []
    for name in (SMALL, *LARGER):
        with torch.device("meta"):
            num_params = sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())
        row_mb = num_params * STEP_BYTES / batch_size / 1e6
        lines.append((name, f"{num_params / 1e6:.1f}", f"{row_mb:.1f}", f"{row_mb / view_mb:.0f}"))
    header = ("student", "M parameters", "MB of a step a row", "times a view's pixels")
    return table(lines, header, right=range(1, len(header)))


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    tiles = tissue_patches(args.batch_size, TILE_PX)
    step = Step(np.ascontiguousarray(tiles[:, 16:240, 16:240]))
    making = {name: Making(tiles, name) for name in VIEW_STRENGTHS}
    rounds = machine.measure_rounds({**making, "step": step}, wanted=args.rounds, patience=args.patience)
    shares = {name: rounds.ratio([name], ["step"]) / REPEATS for name in making}
    times = {name: rounds.seconds(name) / args.batch_size / REPEATS * 1000 for name in making}
    lines = [(name, f"{times[name]:.2f}", f"{share:.3f}") for name, share in shares.items()]
    lines.append(("step", f"{rounds.seconds('step') / args.batch_size * 1000:.2f}", "1"))
    print(f"milliseconds a row, batches of {args.batch_size}, one thread; step: {SMALL}")
    print(table(lines, ("what", "ms", "of the step"), right=(1, 2)))
    print(counted_bytes(args.batch_size))
    print(rounds.words())
    return machine.conclude(max(shares.values()), at_most=1.0, quiet=rounds.quiet)


if __name__ == "__main__":
    sys.exit(main())
