"""Loading of stage two against bare decoding of the same pixels, for each codec and augmentation.

Both sides take the same rows in the same order with as many threads, in the same process, in turn:
    decoding  `decode_image` of encoded pixels that lie in memory, eight rows a task, into memory that stays in the
              processor's cache: the strictest limit, and the one that is compared with
    batches   the same, each into its own place in five batches, as any loader must
    boundary  the same, beginning at a boundary of 64 bytes, as torch's allocator begins (decision 0083)
    loading   `BatchLoader` over a reader of the epoch's rows: shards, checksums, decoding, views, augmentation,
              embeddings, the ring of batches, and the way to the device; a GPU augments there. Nobody uses the batches
    as before what the loader did up to version 0.1.0: a row at a time with keys of its own, the patch decoded, copied,
              turned and changed in colour by the code of that time
The ratio is decoding over loading: the share of the codec's speed that loading has. Without a model beside them all
cores decode, so what augmentation costs is seen whole; beside a model on the same cores it adds to the step.
"""

import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import inputs
import machine
import numpy as np
import torch
from numpy.typing import NDArray
from stage_two_speed import make_store
from support.first_augment import as_first_written  # of the tests

from pipeline.base.console import table
from pipeline.base.cores import usable_cores
from pipeline.base.draws import RunDraws
from pipeline.base.images import BESIDE_BOUNDARY, BOUNDARY, decode_image, empty_patch
from pipeline.base.loader import ROWS_PER_TASK, BatchLoader, one_by_one
from pipeline.store.shards import ShardFile
from pipeline.store.store import Store
from pipeline.training.augment import Augmentation
from pipeline.training.rows.order import batches_of, epoch_order, row_keys, row_views
from pipeline.training.rows.reading import StoredRows
from pipeline.training.step.augment_batch import BatchAugmentation, augments_on

NEEDED = 0.9
"""From the issue."""
AUGMENTATIONS: tuple[Augmentation, ...] = ("none", "flips", "flips+jitter")


class Loading:
    """One store, one augmentation; each method does the work of one epoch."""

    def __init__(
        self, store: Store, augmentation: Augmentation, batch_size: int, workers: int, device: torch.device
    ) -> None:
        self.device = device
        self.store, self.augmentation, self.batch_size, self.workers = store, augmentation, batch_size, workers
        self.rows = StoredRows([store.first], tell=print)
        self.order = epoch_order(store.first.ok_rows(), 0, 0)
        shards = range(store.first.num_shards)
        per_shard = store.first.rows_per_shard
        files = [ShardFile(store.first.shard_path("pixels", shard), per_shard) for shard in shards]
        self.encoded = [files[row // per_shard].read_chunk(row % per_shard) or b"" for row in self.order.tolist()]

    def decoding(self) -> None:
        """Decode all rows into memory that is used again and again."""

        def decode(start: int) -> None:
            patch = empty_patch(self.store.tile_px)
            for data in self.encoded[start : start + ROWS_PER_TASK]:
                decode_image(data, self.store.image_format, self.store.tile_px, patch)

        self._in_threads(decode)

    def decoding_into(self, batches: NDArray[np.uint8]) -> None:
        """Decode all rows into (B, P, P, 3) in turn."""

        def decode(start: int) -> None:
            for row, data in enumerate(self.encoded[start : start + ROWS_PER_TASK], start):
                decode_image(data, self.store.image_format, self.store.tile_px, batches[row % len(batches)])

        self._in_threads(decode)

    def _in_threads(self, decode: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(decode, range(0, len(self.encoded), ROWS_PER_TASK)))

    def loading(self) -> None:
        """Load all batches."""
        draws = RunDraws(0)
        on_gpu = BatchAugmentation(draws, 0, self.augmentation) if augments_on(self.device, draws) else None
        reader = self.rows.reader(draws, 0, "none" if on_gpu else self.augmentation)
        with BatchLoader(
            reader.read_some,
            patch_px=self.store.patch_px,
            batch_size=self.batch_size,
            workers=self.workers,
            device=self.device,
            on_device=on_gpu,
        ) as loader:
            for batch in loader.batches(batches_of(self.order, self.batch_size)):
                batch.pixels_on(self.device)
            inputs.finish(self.device)

    def as_before(self) -> None:
        """Load all batches as version 0.1.0 did."""
        with BatchLoader(
            one_by_one(self._read_as_before),
            patch_px=self.store.patch_px,
            batch_size=self.batch_size,
            workers=self.workers,
            device=self.device,
        ) as loader:
            for _ in loader.batches(batches_of(self.order, self.batch_size)):
                pass
            inputs.finish(self.device)

    def _read_as_before(self, row: int, out: NDArray[np.uint8]) -> NDArray[np.float32]:
        number = np.array([row])
        view = row_views(number, self.rows.views, RunDraws(0), 0)
        out[:] = self.rows.views.apply(self.store.read_pixels(row), row, int(view[0]))
        embedding = np.concatenate([self.store.first.read_embedding(row)])
        if self.augmentation != "none":
            key = int(row_keys(number, 0, 0, "augment")[0])
            out[:] = as_first_written(out.copy(), key, self.augmentation)
        return embedding


def batches_at(first: int, batch_size: int, patch_px: int) -> NDArray[np.uint8]:
    """Memory of as many batches as the loader has, (B, P, P, 3), `first` bytes after a boundary; all of it touched."""
    num_bytes = 5 * batch_size * patch_px * patch_px * 3
    memory = np.ones(num_bytes + 2 * BOUNDARY, np.uint8)
    start = -memory.ctypes.data % BOUNDARY + first
    return memory[start : start + num_bytes].reshape(-1, patch_px, patch_px, 3)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=6, help="batches a round [%(default)s]")
    inputs.slide_option(parser)
    inputs.device_option(parser)
    args = parser.parse_args()

    device, _ = inputs.start_device(args.device)
    workers, lines, worst, quiet = usable_cores(), [], float("inf"), True
    num_rows = args.batch_size * args.batches
    with tempfile.TemporaryDirectory() as folder:
        for pixels in ("jpegxl", "jpeg"):
            store = make_store(Path(folder), num_rows, pixels, args.slide)
            for augmentation in AUGMENTATIONS:
                side = Loading(store, augmentation, args.batch_size, workers, device)
                beside, on = (batches_at(first, args.batch_size, store.patch_px) for first in (BESIDE_BOUNDARY, 0))
                work: dict[str, machine.Part] = {
                    "decoding": side.decoding,
                    "batches": partial(side.decoding_into, beside),
                    "boundary": partial(side.decoding_into, on),
                    "loading": side.loading,
                    "as before": side.as_before,
                }
                rounds = machine.measure_rounds(work, wanted=args.rounds, patience=args.patience)
                each = [f"{rounds.seconds(part) / num_rows * 1000:.3f}" for part in work]
                ratio, before = (rounds.ratio(["decoding"], [part]) for part in ("loading", "as before"))
                cpu = rounds.cpu_ratio(["decoding"], ["loading"])
                lines.append((pixels, augmentation, *each, f"{ratio:.3f}", f"{before:.3f}", f"{cpu:.3f}"))
                print(f"{pixels}, {augmentation}: {rounds.words()}", file=sys.stderr)
                quiet &= rounds.quiet
                worst = min(worst, ratio)
    print(f"milliseconds a row of {inputs.PATCH_PX} px, {workers} threads, to {device}")
    header = ("pixels", "augmentation", *work, "ratio", "before", "of CPU time")
    print(table(lines, header, right=range(2, len(header))))
    return machine.conclude(worst, at_least=NEEDED, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
