"""A training step of stage two against the same step on tensors in memory plus bare decoding of its pixels.

Reading, decoding and augmenting happen in threads while the model computes, and where they share its cores they take
its time. What stage two must not do is take more than that: its mean step may be at most 1.03 times (the step alone +
the bare decoding of the batch's pixels with the same threads).

What is compared is fair because it is the same rows in the same batches in the same process, in turn:
    step      `train_step` on batches that lie in memory: forward, loss, backward, clipping, AdamW
    decoding  `decode_image` of the batch's encoded pixels, which lie in memory, by as many threads as the loader has
    training  `train_epoch` over one epoch: reading shards, checksums, decoding, augmentation, the queue, metrics
All of the loader's start and end, once an epoch, counts as training. Building the model, validation and checkpoints are
in none of them. Of the students the smallest has the shortest step, which is the hardest case. The ratio is the worst
of them.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import inputs
import machine
import numpy as np
import torch
from inputs import DEVICE
from numpy.typing import NDArray

from pipeline.base.console import Progress, table
from pipeline.base.cores import usable_cores
from pipeline.base.draws import RunDraws
from pipeline.base.images import decode_image
from pipeline.base.loader import Batch, BatchLoader
from pipeline.config.model_names import SCRATCH
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.distillation import build_loss
from pipeline.encoders.build import build_encoder
from pipeline.store.shards import ShardFile
from pipeline.store.store import Store
from pipeline.store.teachers import ChosenTeachers
from pipeline.training.rows.choice import choose_rows
from pipeline.training.rows.order import batches_of, epoch_order
from pipeline.training.run_folder import MetricsLog, RunFolder
from pipeline.training.step.train_step import train_step
from stages.extract_teacher import extract_teacher
from stages.train_student import train_epoch
from stages.training.run import prepare_run

NEEDED = 1.03
"""From the issue."""
TEACHER = "lcnet_050"
"""Of no weight here: only its embeddings' width (1,280) counts."""


class StageTwo:
    """Stage two with one student, and its parts; each method does the work of one epoch."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        student: str,
        batch_size: int,
        device: torch.device = DEVICE,
        precision: str = "float32",
    ) -> None:
        self.device = device
        self.config = TrainConfig(
            student=student,
            weights=SCRATCH,
            epochs=1000,
            batch_size=batch_size,
            device=str(device),
            checkpoint_every=10**9,
        )
        built = build_encoder(student, SCRATCH, store.patch_px)
        rows = choose_rows([store.first], batch_size=batch_size, val_rows=self.config.val_rows, seed=self.config.seed)
        draws = RunDraws(self.config.seed)
        self.run = prepare_run(
            ChosenTeachers((store.first,), (1.0,)), rows, built, self.config, draws, device, precision
        )
        self.folder = RunFolder(folder / f"run-{student}")
        self.folder.folder.mkdir()
        self.loss_of = build_loss(self.config.loss, self.config.alpha)
        self.batches = self._batches_in_memory()
        self.encoded = [[self._encoded(row) for row in batch.rows] for batch in self.batches]

    def _batches_in_memory(self) -> list[Batch[NDArray[np.float32]]]:
        order = epoch_order(self.run.rows.train, self.config.seed, 0)
        reader = self.run.reader.reader(self.run.draws, 0, self.config.augment)
        size = self.run.rows.batch_size
        patch_px = self.run.teachers.first.patch_px
        with BatchLoader(
            reader.read_some, patch_px=patch_px, batch_size=size, workers=self.run.workers, device=self.device
        ) as loader:
            return [Batch(b.rows, b.pixels.clone(), b.results) for b in loader.batches(batches_of(order, size))]

    def _encoded(self, row: int) -> bytes:
        store = self.run.teachers.first
        shard, index = divmod(row, store.rows_per_shard)
        data = ShardFile(store.shard_path("pixels", shard), store.rows_per_shard).read_chunk(index)
        assert data is not None
        return data

    def step(self) -> None:
        """All steps, on tensors in memory."""
        self.run.distillation.train()
        for batch in self.batches:
            train_step(self.run.distillation, batch, self.loss_of, self.run.optimizer, self.config.clip)
        inputs.finish(self.device)

    def decoding(self) -> None:
        """Decode the pixels of all batches, batch by batch."""
        image_format = self.run.teachers.first.store.image_format
        with ThreadPoolExecutor(self.run.workers) as pool:
            for encoded in self.encoded:
                list(pool.map(lambda data: decode_image(data, image_format, inputs.PATCH_PX), encoded))

    def training(self) -> None:
        """One epoch of the stage."""
        self.folder.metrics_path.unlink(missing_ok=True)
        log = MetricsLog(self.folder.metrics_path, 0)
        with inputs.silence(), Progress("training", self.run.num_steps, "steps") as progress:
            train_epoch(self.run, self.folder, log, progress, 0, 0)
        inputs.finish(self.device)
        log.close()


def make_store(
    folder: Path, num_rows: int, pixels: Literal["jpegxl", "jpeg"] = "jpegxl", slide: Path | None = None
) -> Store:
    """A finished store, in a folder named by its pixels."""
    weights = inputs.make_weights(folder, TEACHER)
    config = ExtractConfig(teacher=TEACHER, weights=weights, device="cpu", rows_per_shard=256, pixels=pixels)
    with inputs.silence():
        return extract_teacher(inputs.make_plan(folder, num_rows, slide=slide), folder / f"{pixels}.zarr", config).store


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--students", nargs="+", default=["lcnet_050", "resnet10t"], metavar="TIMM_NAME")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6, help="steps a round [%(default)s]")
    inputs.slide_option(parser)
    inputs.device_option(parser)
    args = parser.parse_args()

    device, precision = inputs.start_device(args.device, deterministic=True)
    lines, notes, worst, quiet = [], [], 0.0, True
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), args.batch_size * args.steps, slide=args.slide)
        for name in args.students:
            stage = StageTwo(store, Path(folder), name, args.batch_size, device, precision)
            work = {"step": stage.step, "decoding": stage.decoding, "training": stage.training}
            rounds = machine.measure_rounds(work, wanted=args.rounds, patience=args.patience)
            each = [f"{rounds.seconds(part) / args.steps * 1000:.0f}" for part in work]
            ratio = rounds.ratio(["training"], ["step", "decoding"])
            cpu = rounds.cpu_ratio(["training"], ["step", "decoding"])
            lines.append((name, *each, f"{ratio:.3f}", f"{cpu:.3f}"))
            notes.append(f"{name}: {rounds.words()}")
            quiet &= rounds.quiet
            worst = max(worst, ratio)
    where = f"{usable_cores()} cores, {precision} on {device}"
    print(f"milliseconds a step of {args.batch_size} patches of 224 px, {where}")
    header = ("student", "step alone", "decoding", "training", "ratio", "of CPU time")
    print(table(lines, header, right=range(1, len(header))))
    print("\n".join(notes))
    return machine.conclude(worst, at_most=NEEDED, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
