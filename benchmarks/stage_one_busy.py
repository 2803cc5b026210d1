"""Share of the time that stage one's teacher is busy, across slide boundaries and shard commits.

The teacher is a stand-in that takes a fixed time a batch and no processor, as one on an accelerator does; the time is
`--times` what reading and encoding a batch takes on all cores here, which is measured first. So the cores are never
what it waits for in the mean, and whatever it waits is the pipeline's own: a slide that is opened, a shard that is
synced, a queue that is full. The stage is `embed_shards` into a fresh store, with several slides, and shards that end
in the midst of slides. Storage is as slow as `--open-ms` (each slide's opening takes so much longer) and `--sync-ms`
(each file's) say, without using the processor. Time counts from the start of the first batch to the end of the last.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from unittest import mock

import inputs
import machine
import torch
from inputs import DEVICE
from support.slides import make_big_slide  # of the tests; `inputs` sets the path
from torch import Tensor

from pipeline.base.console import table
from pipeline.base.cores import usable_cores
from pipeline.cohort.manifest import Manifest, ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.build import build_encoder
from pipeline.slides import reader
from pipeline.slides.info import read_info
from pipeline.store.patches import patches_to_embed
from stages import extract_teacher
from stages.extract_teacher import RunningTeacher, embed_shards, prepare_store
from stages.plan import plan_slides

T = TypeVar("T")
NEEDED = 0.97
TEACHER = "lcnet_050"
"""Whose place the stand-in takes; it is never run."""


class StandIn:
    """Takes `seconds` a batch; keeps when each batch began and ended."""

    def __init__(self, seconds: float, width: int) -> None:
        self.seconds, self.width = seconds, width
        self.spans: list[tuple[float, float]] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        started = time.perf_counter()
        time.sleep(self.seconds)
        self.spans.append((started, time.perf_counter()))
        return torch.zeros(len(pixels), self.width)

    @property
    def busy(self) -> float:
        """Share of the time."""
        return sum(end - start for start, end in self.spans) / (self.spans[-1][1] - self.spans[0][0])

    @property
    def longest_wait(self) -> float:
        """Seconds."""
        return max(start - end for (_, end), (start, _) in pairwise(self.spans))


class Stage:
    """Stage one with a stand-in."""

    def __init__(self, plan: Plan, folder: Path, batch_size: int, rows_per_shard: int) -> None:
        self.plan, self.out = plan, folder / "store.zarr"
        weights = inputs.make_weights(folder, TEACHER)
        self.config = ExtractConfig(
            teacher=TEACHER, weights=weights, device="cpu", rows_per_shard=rows_per_shard, batch_size=batch_size
        )
        self.running = RunningTeacher(build_encoder(TEACHER, weights, inputs.PATCH_PX), DEVICE, "float32", weights)

    def run(self, seconds: float, open_ms: float = 0.0, sync_ms: float = 0.0) -> StandIn:
        """Make the store, with a teacher of that many seconds a batch and storage that is so much slower."""
        shutil.rmtree(self.out, ignore_errors=True)
        with inputs.silence():
            teacher = prepare_store(self.plan, self.out, self.config, self.running)
            stand_in = StandIn(seconds, teacher.width)
            patches = patches_to_embed(teacher, self.plan, None, tell=print)
            with (
                mock.patch.object(extract_teacher, "EncoderForward", return_value=stand_in),
                mock.patch.object(reader, "read_info", slower(read_info, open_ms)),
                mock.patch.object(os, "fsync", slower(os.fsync, sync_ms)),
            ):
                embed_shards(teacher, patches, teacher.ledger.pending(), self.running, workers=usable_cores())
        return stand_in


def slower(work: Callable[..., T], ms: float) -> Callable[..., T]:
    """The same after a pause."""

    def paused(*args: Any, **options: Any) -> T:
        time.sleep(ms / 1000)
        return work(*args, **options)

    return paused


def make_plan(folder: Path, num_slides: int, rows: int) -> Plan:
    """A plan of that many patches of each of several slides."""
    for i in range(num_slides):
        make_big_slide(folder / f"{i}.svs", width=8000, height=8000, seed=i, downsamples=(1, 4))
    manifest = tuple(ManifestRow(slide_id=f"s{i}", path=f"{i}.svs", case_id=f"c{i}") for i in range(num_slides))
    config = PlanConfig(patches_per_slide=rows, val_fraction=0, patch_px=inputs.PATCH_PX)
    return plan_slides(Manifest(manifest, folder / "manifest.csv", folder), config, workers=1)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=3)
    parser.add_argument("--slides", type=int, default=6)
    parser.add_argument("--rows", type=int, default=160, help="patches a slide [%(default)s]")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rows-per-shard", type=int, default=128)
    parser.add_argument("--open-ms", type=float, default=300, help="of each slide [%(default)s]")
    parser.add_argument("--sync-ms", type=float, default=100, help="of each file [%(default)s]")
    parser.add_argument(
        "--times", type=float, nargs="+", default=[1.3, 2.0], help="of reading and encoding [%(default)s]"
    )
    args = parser.parse_args()
    lines, worst = [], 1.0
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(Path(folder), args.slides, args.rows)
        stage = Stage(plan, Path(folder), args.batch_size, args.rows_per_shard)
        for times in args.times:
            busy, waits, each = [], [], []
            for _ in range(args.rounds):
                spans = stage.run(0.0).spans  # as fast as the cores read and encode
                each.append((spans[-1][1] - spans[0][0]) / (len(spans) - 1))
                stand_in = stage.run(times * each[-1], args.open_ms, args.sync_ms)
                busy.append(stand_in.busy)
                waits.append(stand_in.longest_wait)
            worst = min(worst, median(busy))
            rates = (f"{args.batch_size / median(each):.0f}", f"{args.batch_size / median(each) / times:.0f}")
            lines.append((f"{times:g}", *rates, f"{median(busy):.3f}", f"{1000 * median(waits):.0f}"))
    print(f"{plan.num_rows} patches of {args.slides} slides, {usable_cores()} cores")
    header = ("times", "cores, patches/s", "teacher, patches/s", "busy", "longest wait, ms")
    print(table(lines, header, right=range(5)))
    return machine.conclude(worst, at_least=NEEDED, quiet=True)


if __name__ == "__main__":
    sys.exit(main())
