"""Share of the time that stage one's teacher is busy, across slide boundaries and shard commits.

The teacher is a stand-in that takes a fixed time a batch and no processor, one batch after the other, as on an
accelerator; the time is `--times` what reading and encoding a batch takes on all cores here, which is measured first.
So the cores are never what it waits for in the mean, and whatever it waits is the pipeline's own: a slide that is
opened, a shard that is synced, a queue that is full. The stage is `embed_shards` into a fresh store, with several
slides, and shards that end in the midst of slides. Storage is as slow as `--open-ms` (each slide's opening takes so
much longer) and `--sync-ms` (each file's) say, without using the processor. Time counts from the start of the first
batch to the end of the last.

The share is of wall time, and others who use the cores can only lower it. So rounds in which others had little of the
CPUs count, as in the other scripts; where there are none, a share that is reached says what it says, and one that is
not is inconclusive.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from unittest import mock

import inputs
import machine
import torch
from support.slides import make_big_slide  # of the tests; `inputs` sets the path
from torch import Tensor

from pipeline.base.console import table
from pipeline.base.cores import usable_cores
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.build import build_encoder
from pipeline.slides import reader
from pipeline.slides.info import read_info
from pipeline.store.patches import patches_to_embed
from stages import extract_teacher
from stages.extract_teacher import embed_shards
from stages.extracting.prepare import prepare_store
from stages.extracting.teacher import RunningTeacher
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


@dataclass(frozen=True)
class Busy(machine.Measured):
    """One round: how long a batch took the cores, then the share of the stand-in, and how long it waited at most."""

    each: float
    share: float
    longest_wait: float


class Stage:
    """Stage one with a stand-in."""

    def __init__(self, plan: Plan, folder: Path, batch_size: int, rows_per_shard: int, device: torch.device) -> None:
        self.plan, self.out = plan, folder / "store.zarr"
        weights = inputs.make_weights(folder, TEACHER)
        self.config = ExtractConfig(
            teacher=TEACHER, weights=weights, device=str(device), rows_per_shard=rows_per_shard, batch_size=batch_size
        )
        encoder = build_encoder(TEACHER, weights, inputs.PATCH_PX)
        encoder.module.to(device)
        self.running = RunningTeacher(encoder, device, "float32", weights)

    def run(self, seconds: float, open_ms: float = 0.0, sync_ms: float = 0.0) -> StandIn:
        """Make the store, with a teacher of that many seconds a batch and storage that is so much slower."""
        shutil.rmtree(self.out, ignore_errors=True)
        with inputs.silence():
            teacher = prepare_store(self.plan, self.out, self.config, self.running)
            stand_in = StandIn(seconds, teacher.width)
            patches = patches_to_embed(teacher, self.plan, None, tell=print)
            with (
                mock.patch.object(extract_teacher, "EncoderForward", return_value=stand_in),
                mock.patch.object(extract_teacher, "batches_at_once", return_value=1),  # as on an accelerator
                mock.patch.object(reader, "read_info", slower(read_info, open_ms)),
                mock.patch.object(os, "fsync", slower(os.fsync, sync_ms)),
            ):
                embed_shards(teacher, patches, teacher.ledger.pending(), self.running, workers=usable_cores())
        return stand_in

    def measure(self, times: float, open_ms: float, sync_ms: float) -> Busy:
        """One round, with a teacher of that many times what the cores take for a batch."""
        each, stand_in = 0.0, StandIn(0.0, 0)

        def both() -> None:
            nonlocal each, stand_in
            spans = self.run(0.0).spans  # as fast as the cores read and encode
            each = (spans[-1][1] - spans[0][0]) / (len(spans) - 1)
            stand_in = self.run(times * each, open_ms, sync_ms)

        measured = machine.measure(both)
        return Busy(**vars(measured), each=each, share=stand_in.busy, longest_wait=stand_in.longest_wait)


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
    inputs.device_option(parser)
    args = parser.parse_args()
    device, _ = inputs.start_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(Path(folder), args.slides, args.rows)
        stage = Stage(plan, Path(folder), args.batch_size, args.rows_per_shard, device)
        parts = {f"{times:g}": partial(stage.measure, times, args.open_ms, args.sync_ms) for times in args.times}
        rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
    shares = {times: shares_of(rounds, times) for times in parts}
    lines = []
    for times, found in shares.items():
        rate = args.batch_size / median(one.each for one in found)
        share, wait = median(one.share for one in found), median(one.longest_wait for one in found)
        lines.append((times, f"{rate:.0f}", f"{rate / float(times):.0f}", f"{share:.3f}", f"{1000 * wait:.0f}"))
    print(f"{plan.num_rows} patches of {args.slides} slides, {usable_cores()} cores, the stand-in beside {device}")
    header = ("times", "cores, patches/s", "teacher, patches/s", "busy", "longest wait, ms")
    print(table(lines, header, right=range(5)))
    others = [machine.others_in(each) for each in rounds.rounds]
    print(f"wall time, {len(others)} rounds, others had {min(others):.0%} to {max(others):.0%} of the CPUs")
    return verdict(min(median(one.share for one in found) for found in shares.values()), quiet=rounds.quiet)


def shares_of(rounds: machine.Rounds, times: str) -> Sequence[Busy]:
    """What was measured with a teacher of that many times."""
    return [one for each in rounds.rounds if isinstance(one := each[times], Busy)]


def verdict(worst: float, *, quiet: bool) -> int:
    """Print the last lines; returns the exit status. Too small a share says nothing where others had the cores."""
    status = machine.conclude(worst, at_least=NEEDED)
    if status == 0 or quiet:
        return status
    print("inconclusive: others used the machine, which lowers the share; run it again")
    return machine.INCONCLUSIVE


if __name__ == "__main__":
    sys.exit(main())
