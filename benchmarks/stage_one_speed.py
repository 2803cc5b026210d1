"""Stage one's rows a second against what its three parts could do on the same cores.

Reader, model and codec share the cores, so the best that a perfect pipeline could do is 1/(1/reader + 1/model +
1/encoding) rows a second, each measured alone with all the cores to itself. What is below that is the pipeline's own:
queues, copies, checksums, syncing, threads in each other's way.

What is compared is fair because it is the same work on the same rows in the same process, by the pipeline's own
functions, in turn:
    reader    `BatchLoader` with as many threads as the stage, reading and resampling every patch from the slide
    model     `embed_batches` on the same batches, lying in memory: normalisation and forward pass, torch's own threads
    encoding  `encode_image` of the same patches in a pool of as many threads as the stage
    stage     `embed_shards` into a fresh store: all of it, and checksums, SHA-256, fsync, ledger
Loading the model and making the empty store are in none of them. The slide is in the page cache for all. Teachers have
random weights, which cost what trained ones do. One teacher costs about as much as reading, which is the hardest case;
the other is of the demo's kind, where the model is most of the work. The ratio is the lower of the two.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import inputs
import machine
import torch
from inputs import DEVICE

from pipeline.base.console import table
from pipeline.base.cores import usable_cores
from pipeline.base.images import encode_image
from pipeline.base.loader import Batch, BatchLoader
from pipeline.cohort.plan import Plan
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.build import build_encoder
from pipeline.encoders.embed import EncoderForward, embed_batches
from pipeline.store.format import Status
from pipeline.store.patches import PatchRead, PlannedPatches, patches_to_embed
from pipeline.store.writer import row_batches
from stages.extract_teacher import embed_shards
from stages.extracting.prepare import prepare_store
from stages.extracting.teacher import RunningTeacher

NEEDED = 0.9
"""From the issue."""
PARTS = ("reader", "model", "encoding")


class StageOne:
    """Stage one with one teacher, and its parts; each method does the work of all rows once."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        teacher: str,
        rows_per_shard: int,
        device: torch.device = DEVICE,
        precision: str = "float32",
    ) -> None:
        self.plan, self.out = plan, folder / "store.zarr"
        weights = inputs.make_weights(folder, teacher)
        self.config = ExtractConfig(teacher=teacher, weights=weights, device=str(device), rows_per_shard=rows_per_shard)
        self.workers = self.config.workers or usable_cores()
        encoder = build_encoder(teacher, weights, plan.config.patch_px)
        encoder.module.to(device)
        self.running = RunningTeacher(encoder, device, precision, weights)
        self.fresh_store()
        self.batches = [Batch(b.rows, b.pixels.clone(), b.results) for b in self._read()]
        assert all(read.status is Status.OK for batch in self.batches for read in batch.results)

    def fresh_store(self) -> None:
        """An empty store."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.teacher = prepare_store(self.plan, self.out, self.config, self.running)

    def _read(self) -> Iterator[Batch[PatchRead]]:
        batch_size = self.teacher.settings["batch_size"]
        patches = PlannedPatches(self.plan, None, tell=print)
        patch_px = self.plan.config.patch_px
        with BatchLoader(
            patches.read_some,
            patch_px=patch_px,
            batch_size=batch_size,
            workers=self.workers,
            device=self.running.device,
        ) as loader:
            yield from loader.batches(row_batches(self.teacher, range(self.teacher.num_shards), batch_size))

    def reader(self) -> None:
        """Read and resample every patch."""
        for _ in self._read():
            pass
        inputs.finish(self.running.device)

    def model(self) -> None:
        """Normalise and embed every batch."""
        device = self.running.device
        forward = EncoderForward(self.running.encoder.module, device, self.running.precision)
        for _ in embed_batches(forward, self.batches, device, width=self.teacher.width, no_room=""):
            pass

    def encoding(self) -> None:
        """Encode every patch."""
        patches = [patch for batch in self.batches for patch in batch.pixels.cpu().numpy()]
        with ThreadPoolExecutor(self.workers) as pool:
            for _ in pool.map(lambda patch: encode_image(patch, "jpegxl"), patches):
                pass

    def stage(self) -> None:
        """The stage itself."""
        shards = self.teacher.ledger.pending()
        assert len(shards) == self.teacher.num_shards
        with inputs.silence():
            patches = patches_to_embed(self.teacher, self.plan, None, tell=print)
            embed_shards(self.teacher, patches, shards, self.running, workers=self.workers)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--teachers", nargs="+", default=["lcnet_050", "tf_efficientnet_lite0"], metavar="TIMM_NAME")
    parser.add_argument("--rows", type=int, default=256, help="patches a round [%(default)s]")
    parser.add_argument("--rows-per-shard", type=int, default=128)
    inputs.slide_option(parser)
    inputs.device_option(parser)
    args = parser.parse_args()

    device, precision = inputs.start_device(args.device)
    lines, notes, worst, quiet = [], [], float("inf"), True
    with tempfile.TemporaryDirectory() as folder:
        plan = inputs.make_plan(Path(folder), args.rows, slide=args.slide)
        for name in args.teachers:
            stage = StageOne(plan, Path(folder), name, args.rows_per_shard, device, precision)
            work = {"reader": stage.reader, "model": stage.model, "encoding": stage.encoding, "stage": stage.stage}
            rounds = machine.measure_rounds(
                work, wanted=args.rounds, patience=args.patience, before={"stage": stage.fresh_store}
            )
            each = [rounds.seconds(part) / args.rows * 1000 for part in work]
            ratio, cpu = rounds.ratio(PARTS, ["stage"]), rounds.cpu_ratio(PARTS, ["stage"])
            times = (f"{ms:.2f}" for ms in (*each[:-1], sum(each[:-1]), each[-1]))
            lines.append((name, *times, f"{ratio:.3f}", f"{cpu:.3f}"))
            notes.append(f"{name}: {rounds.words()}")
            quiet &= rounds.quiet
            worst = min(worst, ratio)
    print(f"milliseconds a patch, {args.rows} patches of 224 px, {usable_cores()} cores, {precision} on {device}")
    header = ("teacher", *PARTS, "together", "stage", "ratio", "of CPU time")
    print(table(lines, header, right=range(1, len(header))))
    print("\n".join(notes))
    return machine.conclude(worst, at_least=NEEDED, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
