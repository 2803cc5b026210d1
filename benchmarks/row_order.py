"""Three orders of the rows of an epoch: what they cost to read, and what a batch of them shows to the loss.

    whole    rows as they are stored, slide by slide
    blocks   blocks of neighbouring rows in random order, shuffled within a window of some blocks, as readers of record
             files do
    random   a new permutation of all rows in each epoch: what `train-student` does

Speed: `BatchLoader` over a synthesised store of 224-px patches (JPEG XL, some distinct images, about 50 kB each), the
same share of an epoch in each order, in turn. Warm: the files are in the page cache. Cold: before each measurement the
kernel is asked to drop them (posix_fadvise DONTNEED; needs no root). What the loss sees: it standardises by the batch.
Embeddings of a share `--slide-share` between slides, the rest between patches of a slide, are drawn; printed are the
mean variance within a batch over that of all rows (1 is right), and the variance of batch means over that of batches
drawn at random (1 is right).
"""

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import inputs
import machine
import numpy as np
from inputs import DEVICE
from numpy.typing import NDArray

from pipeline.base.console import table
from pipeline.base.cores import usable_cores
from pipeline.base.devices import keep_freed_memory
from pipeline.base.draws import RunDraws
from pipeline.base.images import encode_image
from pipeline.base.loader import BatchLoader
from pipeline.base.versions import versions
from pipeline.sampling import RowNumbers
from pipeline.store.create import create_store
from pipeline.store.format import Status, StoreSpec
from pipeline.store.patches import PatchRead
from pipeline.store.store import Store
from pipeline.store.writer import StoreWriter
from pipeline.training.rows.order import batches_of, epoch_order
from pipeline.training.rows.reading import StoredRows

WIDTH, ROWS_PER_SHARD, ROWS_PER_SLIDE = 1536, 512, 256
BLOCK_ROWS, WINDOW_BLOCKS = 64, 16


def make(folder: Path, num_rows: int) -> Store:
    """A finished store of synthesised tissue."""
    from support.slides import make_pixels
    from support.stores import TEACHER, plan_of_rows

    plan = plan_of_rows([ROWS_PER_SLIDE] * (num_rows // ROWS_PER_SLIDE), [2], inputs.PATCH_PX)
    teacher = TEACHER.record() | {"width": WIDTH, "weights": "none", "weights_sha256": "0" * 64, "num_params": 1}
    settings = {"rows_per_shard": ROWS_PER_SHARD, "pixels": "jpegxl", "dtype": "float16", "precision": "float32"}
    create_store(folder, plan, StoreSpec(teacher, settings | {"batch_size": 64}), versions())
    store = Store(folder)
    tissue = [make_pixels("tissue", inputs.PATCH_PX, inputs.PATCH_PX, seed=seed) for seed in range(16)]
    reads = [PatchRead(Status.OK, encode_image(patch, "jpegxl")) for patch in tissue]
    embeddings = np.random.default_rng(0).normal(size=(ROWS_PER_SHARD, WIDTH)).astype(np.float32)
    with StoreWriter(store.first, lambda row: {"row": row, "slide_id": "?", "x": 0, "y": 0}, "benchmark") as writer:
        for shard in range(store.first.num_shards):
            rows = store.first.ledger.rows(shard)
            writer.put(rows, embeddings[: len(rows)], [reads[row % len(reads)] for row in rows])
    return Store(folder)


def block_shuffled(rows: RowNumbers, seed: int) -> RowNumbers:
    """Blocks in random order, shuffled within windows of several."""
    rng = np.random.default_rng(seed)
    blocks = np.array_split(rows, -(-len(rows) // BLOCK_ROWS))
    order = [blocks[i] for i in rng.permutation(len(blocks))]
    windows = [np.concatenate(order[i : i + WINDOW_BLOCKS]) for i in range(0, len(order), WINDOW_BLOCKS)]
    return np.concatenate([rng.permutation(window) for window in windows])


def drop_from_cache(store: Store) -> None:
    """Ask the kernel to forget the store's files."""
    for path in store.folder.rglob("c/**/*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def load(store: Store, order: RowNumbers, batch_size: int) -> None:
    """Load all batches, from files opened anew."""
    rows = StoredRows([Store(store.folder).first], tell=print)
    reader = rows.reader(RunDraws(0), 0, "none")
    with BatchLoader(
        reader.read_some, patch_px=store.patch_px, batch_size=batch_size, workers=usable_cores(), device=DEVICE
    ) as loader:
        for _ in loader.batches(batches_of(order, batch_size)):
            pass


def seen_by_loss(order: RowNumbers, embeddings: NDArray[np.float64], batch_size: int) -> tuple[float, float]:
    """Variance within a batch over that of all rows, and that of batch means over that of random batches."""
    batches = np.stack([embeddings[batch] for batch in batches_of(order, batch_size)])
    total = embeddings.var(0).mean()
    within = batches.var(1, ddof=1).mean() / total
    return float(within), float(batches.mean(1).var(0).mean() * batch_size / total)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-rows", type=int, default=8192, help="rows of the store [%(default)s]")
    parser.add_argument("--batches", type=int, default=12, help="batches a round [%(default)s]")
    parser.add_argument("--slide-share", type=float, default=0.3, help="of the variance, between slides [%(default)s]")
    args = parser.parse_args()

    keep_freed_memory()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder) / "store.zarr", args.num_rows)
        rows = store.first.ok_rows(0)
        orders = {"whole": rows, "blocks": block_shuffled(rows, 0), "random": epoch_order(rows, 0, 0)}
        rng = np.random.default_rng(0)
        slides = rng.normal(size=(len(store.plan.slides), 64))[store.plan.slide_of_row()]
        patches = rng.normal(size=(store.num_rows, 64))
        drawn = args.slide_share**0.5 * slides + (1 - args.slide_share) ** 0.5 * patches
        parts, before = {}, {}
        for name, order in orders.items():
            some = order[: args.batches * args.batch_size]
            for heat in ("warm", "cold"):
                parts[f"{name}, {heat}"] = lambda some=some: load(store, some, args.batch_size)
            before[f"{name}, cold"] = lambda: drop_from_cache(store)
        rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience, before=before)
        for name, order in orders.items():
            within, means = seen_by_loss(order, drawn, args.batch_size)
            ratios = [
                median(one[f"{name}, {heat}"].wall / one[f"random, {heat}"].wall for one in rounds.rounds)
                for heat in ("warm", "cold")
            ]
            ratios.append(median(one[f"{name}, cold"].wall / one[f"{name}, warm"].wall for one in rounds.rounds))
            lines.append((name, *(f"{ratio:.2f}" for ratio in ratios), f"{within:.3f}", f"{means:.2f}"))
    print(rounds.words())
    header = ("order", "warm", "cold", "cold over warm", "variance within", "variance of means")
    print("wall time over that of the random order, for waiting is what a cold cache adds; what the loss sees")
    print(table(lines, header, right=range(1, len(header))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
