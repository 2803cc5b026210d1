"""A training step of stage two against the same step on tensors in memory plus bare decoding of its pixels.

Reading, decoding and augmenting happen in threads while the model computes, and where they share its cores they take
its time. What stage two must not do is take more than that: its mean step may be at most 1.1 times (the step alone +
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import common
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.compute import keep_freed_memory, use_deterministic_kernels
from pipeline.config import ExtractConfig, TrainConfig
from pipeline.dataset import batches_of, choose_rows, epoch_order
from pipeline.images import decode_image
from pipeline.loader import Batch, BatchLoader, default_workers
from pipeline.loss import build_loss
from pipeline.models import SCRATCH, build_encoder
from pipeline.run_folder import MetricsLog, RunFolder
from pipeline.runlog import Progress, table
from pipeline.shards import ShardFile
from pipeline.store import Store
from stages.extract_teacher import extract_teacher
from stages.train_student import prepare_run, train_epoch, train_step

NEEDED = 1.1
"""From the issue."""
DEVICE = torch.device("cpu")
TEACHER = "lcnet_050"
"""Of no weight here: only its embeddings' width (1,280) counts."""


class StageTwo:
    """Stage two with one student, and its parts; each method does the work of one epoch."""

    def __init__(self, store: Store, folder: Path, student: str, batch_size: int) -> None:
        self.config = TrainConfig(
            student=student, weights=SCRATCH, epochs=1000, batch_size=batch_size, device="cpu", checkpoint_every=10**9
        )
        built = build_encoder(student, SCRATCH, store.patch_px)
        self.run = prepare_run(store, choose_rows(store, self.config), built, self.config, DEVICE, "float32")
        self.folder = RunFolder(folder / f"run-{student}")
        self.folder.folder.mkdir()
        self.loss_of = build_loss(self.config.loss, self.config.alpha)
        self.batches = self._batches_in_memory()
        self.encoded = [[self._encoded(row) for row in batch.rows] for batch in self.batches]

    def _batches_in_memory(self) -> list[Batch[NDArray[np.float32]]]:
        order = epoch_order(self.run.rows.train, self.config.seed, 0)
        reader = self.run.reader.reader(self.config.seed, 0, self.config.augment)
        size = self.run.rows.batch_size
        patch_px = self.run.store.patch_px
        with BatchLoader(reader.read, patch_px=patch_px, batch_size=size, workers=2, device=DEVICE) as loader:
            return [Batch(b.rows, b.pixels.clone(), b.results) for b in loader.batches(batches_of(order, size))]

    def _encoded(self, row: int) -> bytes:
        store = self.run.store
        shard, index = divmod(row, store.rows_per_shard)
        data = ShardFile(store.shard_path("pixels", shard), store.rows_per_shard).read_chunk(index)
        assert data is not None
        return data

    def step(self) -> None:
        """All steps, on tensors in memory."""
        self.run.distillation.train()
        for batch in self.batches:
            train_step(self.run.distillation, batch, self.loss_of, self.run.optimizer, self.config.clip)

    def decoding(self) -> None:
        """Decode the pixels of all batches, batch by batch."""
        image_format = self.run.store.image_format
        with ThreadPoolExecutor(self.run.workers) as pool:
            for encoded in self.encoded:
                list(pool.map(lambda data: decode_image(data, image_format), encoded))

    def training(self) -> None:
        """One epoch of the stage."""
        self.folder.metrics_path.unlink(missing_ok=True)
        log = MetricsLog(self.folder.metrics_path, 0)
        with common.no_bars(), Progress("training", self.run.num_steps, "steps") as progress:
            train_epoch(self.run, self.folder, log, progress, 0, 0)
        log.close()


def ratios(rounds: list[common.Round], value: Callable[[common.Measured], float]) -> float:
    """Median over rounds of training / (step + decoding)."""
    return median(value(r["training"]) / (value(r["step"]) + value(r["decoding"])) for r in rounds)


def main() -> int:
    """Measure and print."""
    parser = common.parser(__doc__)
    parser.add_argument("--students", nargs="+", default=["lcnet_050", "resnet10t"], metavar="TIMM_NAME")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="steps a round [8]")
    parser.add_argument("--rounds", type=int, default=5, help="quiet rounds that are wanted [5]")
    args = parser.parse_args()

    keep_freed_memory(DEVICE)
    use_deterministic_kernels(True)
    lines, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        plan = common.make_plan(Path(folder), args.batch_size * args.steps)
        weights = common.make_weights(Path(folder), TEACHER)
        extract = ExtractConfig(teacher=TEACHER, weights=weights, device="cpu", rows_per_shard=256)
        with common.no_bars():
            store = extract_teacher(plan, Path(folder) / "store.zarr", extract).store
        for name in args.students:
            stage = StageTwo(store, Path(folder), name, args.batch_size)
            work = {"step": stage.step, "decoding": stage.decoding, "training": stage.training}
            for part in work.values():
                part()  # once to warm up
            rounds = common.quiet_rounds(work, wanted=args.rounds)
            typical = common.medians(rounds)
            ratio, cpu = ratios(rounds, lambda m: m.seconds), ratios(rounds, lambda m: m.cpu_seconds)
            each = [f"{typical[part] / len(stage.batches) * 1000:.0f}" for part in work]
            lines.append((name, *each, f"{ratio:.3f}", f"{cpu:.3f}", len(rounds)))
            worst = max(worst, ratio)
    header = ("student", "step", "decoding", "training", "ratio", "in CPU time", "rounds")
    print(f"milliseconds a step of {args.batch_size} patches of 224 px, {default_workers()} cores")
    print(table(lines, header, right=range(1, len(header))))
    return common.conclude(worst, NEEDED, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
