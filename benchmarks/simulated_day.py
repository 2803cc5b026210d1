"""A day of stage one, simulated: how many accelerators the reader, the storage and the launcher's store can keep busy.

Every simulated process is a thread that runs the product's own claiming code (`pipeline.base.launched.claims`) on a
key-value store in memory; its sleeps and its work pass on a clock of their own, one process at a time, so that a day
takes seconds. Nothing is read or embedded in it. A shard of 2,048 rows at a time:

    reading   ms a patch on a core, and encoding its pixels as JPEG XL, over the cores of a process
    storage   bytes a patch through one file server that all processes share, first come first served
    teacher   patches a second on an accelerator
    writing   bytes a row through one store that all share, first come first served, and then the commit of the shard:
              hashes, syncing, ledger. A process goes on meanwhile; with two shards unwritten it waits
    store     seconds an operation of the launcher's server, one after the other
    failures  each process dies at random, once in so many hours, and its unwritten shards with it. `torchrun` then
              starts all processes of the job again; array jobs and launchers of one process each only that one

Reading, storage, teacher and writing go on at the same time. Measured first, by a run of the product's own stage one
over a synthesised slide in shards of 512 rows: mean and spread of a patch's reading and of its encoding (CPU time of
the thread), the spread of a teacher's batches (lcnet_050's on the CPU), bytes a row, seconds of each commit; and an
operation on a real `TCPStore`.
Assumed, and to be replaced by one's own (`--help`): the spread between slides (lognormal), cores, the teacher's rate,
bytes a patch, both bandwidths, failures and restarts. Ideal is the teacher alone, without failures. The ratio is the
smallest efficiency as assumed, without failures, with up to 8 accelerators, or with the fewest that are asked for.
"""

import argparse
import heapq
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isinf
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any, Literal
from unittest import mock

import inputs
import machine
import torch.distributed as dist
from stage_one_speed import StageOne

from pipeline.base.console import table
from pipeline.base.images import empty_patch, encode_image
from pipeline.base.launched.claims import Claims, Member, register
from pipeline.encoders.embed import EncoderForward, embed_batches
from pipeline.store import writer
from pipeline.store.patches import PlannedPatches

NEEDED, AT_MOST = 0.9, 8
"""Efficiency that is needed, and with how many accelerators at most."""
ROWS_PER_SHARD, HOUR = 2048, 3600.0
MEASURED_ROWS, MEASURED_SHARD, TEACHER = 1536, 512, "lcnet_050"


@dataclass(frozen=True)
class Spread:
    """Mean of what was measured, and its standard deviation between patches or batches."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of these."""
        return cls(mean(values), pstdev(values))

    def sum_of(self, count: int, random: random.Random) -> float:
        """The sum of `count` of them, drawn at random: normal, by the central limit theorem."""
        return max(random.gauss(self.mean * count, self.deviation * count**0.5), 0.0)


@dataclass(frozen=True)
class Measured:
    """What a run of the product took here, in seconds: of a patch, of each commit; a batch relative to their mean."""

    read: Spread
    encode: Spread
    batch: Spread
    batch_rows: int
    row_bytes: float
    commits: tuple[float, ...]
    operation: float


@dataclass(frozen=True)
class World:
    """What is assumed, as the script's help says: `storage` and `writing` in bytes a second, `teacher` in patches a
    second, `dies` in hours, times in seconds; `starts` says what a death starts again.
    """

    spread: float = 0.4
    cores: float = 16.0
    patch_bytes: float = 100e3
    storage: float = 5e9
    writing: float = 2e9
    teacher: float = 400.0
    dies: float = float("inf")
    starts: Literal["all", "one"] = "all"
    restart: float = 180.0


class Clock:
    """Time that passes only when all threads wait: the one that waits for the earliest moment goes on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._number, self._back = 0, threading.Event()

    def wait(self, seconds: float) -> None:
        """Called by a simulated process: let time pass."""
        mine = self._enter(seconds)
        self._back.set()
        mine.wait()

    def start(self, work: threading.Thread, mine: threading.Event) -> None:
        """Add a process that begins now."""
        heapq.heappush(self._waiting, (self.now, self._number, mine))
        self._number += 1
        work.start()

    def run(self) -> None:
        """Let all processes run to their ends."""
        while self._waiting:
            self.now, _, event = heapq.heappop(self._waiting)
            self._back.clear()
            event.set()
            self._back.wait()

    def hurry(self) -> None:
        """Called by a simulated process: let all that wait go on now."""
        self._waiting = [(self.now, number, event) for _, number, event in self._waiting]
        heapq.heapify(self._waiting)

    def leave(self) -> None:
        """Called by a process that has ended."""
        self._back.set()

    def _enter(self, seconds: float) -> threading.Event:
        mine = threading.Event()
        heapq.heappush(self._waiting, (self.now + seconds, self._number, mine))
        self._number += 1
        return mine


class SimulatedStore:
    """The launcher's store: an answer takes a moment of one server, which all processes share."""

    def __init__(self, clock: Clock, wait: Callable[[float], None], operation: float) -> None:
        self._clock, self._wait, self._operation = clock, wait, operation
        self._values, self._free = dict[str, str](), 0.0
        self.busy = 0.0

    def _serve(self) -> None:
        self._free = max(self._free, self._clock.now) + self._operation
        self.busy += self._operation
        if self._free - self._clock.now > self._operation:  # others are served first
            self._wait(self._free - self._clock.now)

    def add(self, key: str, amount: int, /) -> int:
        """As `KeyValue`."""
        self._serve()
        self._values[key] = str(int(self._values.get(key, "0")) + amount)
        return int(self._values[key])

    def set(self, key: str, value: str, /) -> None:
        """As `KeyValue`."""
        self._serve()
        self._values[key] = value

    def get(self, key: str, /) -> bytes:
        """As `KeyValue`."""
        self._serve()
        return self._values[key].encode()

    def check(self, keys: list[str], /) -> bool:
        """As `KeyValue`."""
        self._serve()
        return all(key in self._values for key in keys)

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """As `KeyValue`."""
        self._serve()
        if self._values.get(key, "") == expected:
            self._values[key] = desired
        return self._values.get(key, "").encode()

    def delete_key(self, key: str, /) -> bool:
        """As `KeyValue`."""
        self._serve()
        return self._values.pop(key, None) is not None


class DeadError(Exception):
    """The simulated process is killed."""


@dataclass
class Day:
    """One run over `num_shards` shards by `num` processes; what it used.

    Attributes:
        reading, embedding, moving, writing: seconds, of all processes together, that each part alone would have taken.
        deaths: processes that died by themselves.
        end: when the last shard was done.
    """

    world: World
    measured: Measured
    num: int
    num_shards: int
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    reading: float = 0.0
    embedding: float = 0.0
    moving: float = 0.0
    writing: float = 0.0
    deaths: int = 0
    end: float = 0.0

    def run(self) -> None:
        """Simulate it."""
        self.store = SimulatedStore(self.clock, self._wait, self.measured.operation)
        self._random, self._storage_free, self._write_free = random.Random(self.seed), 0.0, 0.0
        self._done, self._generation, self._local = set[int](), 0, threading.local()
        with mock.patch("time.sleep", self._wait):
            for rank in range(self.num):
                self._begin(rank)
            self.clock.run()
        assert len(self._done) == self.num_shards, "every shard is done"

    def _wait(self, seconds: float) -> None:
        """Let time pass for the process that calls; it may be killed meanwhile."""
        self.clock.wait(seconds)
        if self._local.generation != self._generation:
            raise DeadError

    def _begin(self, rank: int) -> None:
        mine = threading.Event()
        arguments = (rank, mine, self._generation)
        self.clock.start(threading.Thread(target=self._process, args=arguments, daemon=True), mine)

    def _process(self, rank: int, mine: threading.Event, generation: int) -> None:
        mine.wait()
        self._local.generation = generation
        try:
            self._live(rank, self.clock.now + self._random.expovariate(1.0) * self.world.dies * HOUR)
        except DeadError:
            self.clock.wait(self.world.restart)
            self._begin(rank)
        self.clock.leave()

    def _live(self, rank: int, dies_at: float) -> None:
        """Take shards until all are done; what is not written yet is done when its time has come."""
        member: Member = register(self.store, rank)
        shared = Claims(self.store, member, "day", range(self.num_shards), self._done.__contains__)
        for units in shared.rounds():
            unwritten: tuple[int, float] | None = None
            for unit in units:
                written_at = self._work(dies_at)
                if unwritten:
                    self._write(shared, *unwritten, dies_at)
                unwritten = (unit, written_at)
            if unwritten:
                self._write(shared, *unwritten, dies_at)

    def _pass(self, seconds: float, dies_at: float) -> None:
        """Let time pass, unless the process dies before."""
        if self.clock.now + seconds > dies_at:
            self._wait(max(dies_at - self.clock.now, 0.0))
            self.deaths += 1
            if self.world.starts == "all":
                self._generation += 1
                self.clock.hurry()
            raise DeadError
        if seconds > 0:
            self._wait(seconds)

    def _write(self, shared: Claims, unit: int, written_at: float, dies_at: float) -> None:
        self._pass(written_at - self.clock.now, dies_at)
        self._done.add(unit)
        self.end = max(self.end, self.clock.now)
        shared.done(unit)

    def _work(self, dies_at: float) -> float:
        """Read and embed a shard; returns when it will be written."""
        world, measured, draw = self.world, self.measured, self._random
        reads = measured.read.sum_of(ROWS_PER_SHARD, draw) * draw.lognormvariate(0.0, world.spread)
        read = (reads + measured.encode.sum_of(ROWS_PER_SHARD, draw)) / world.cores
        batches = ROWS_PER_SHARD // measured.batch_rows
        teacher = measured.batch.sum_of(batches, draw) / batches * ROWS_PER_SHARD / world.teacher
        move = ROWS_PER_SHARD * world.patch_bytes / world.storage
        write = ROWS_PER_SHARD * measured.row_bytes / world.writing
        self._storage_free = max(self._storage_free, self.clock.now) + move
        self.reading, self.embedding, self.moving = self.reading + read, self.embedding + teacher, self.moving + move
        self._pass(max(read, teacher, self._storage_free - self.clock.now), dies_at)
        self._write_free = max(self._write_free, self.clock.now) + write
        self.writing += write
        return self._write_free + draw.choice(measured.commits)

    @property
    def efficiency(self) -> float:
        """Time of the teacher alone, on all accelerators, over the time it took."""
        return self.num_shards * ROWS_PER_SHARD / self.world.teacher / self.num / self.end

    @property
    def limit(self) -> str:
        """What would have taken longest by itself."""
        alone = {
            "teacher": self.embedding / self.num,
            "reader": self.reading / self.num,
            "storage": self.moving,
            "writing": self.writing,
            "launcher's store": self.store.busy,
        }
        return max(alone, key=alone.__getitem__)


def measured_here() -> Measured:
    """Run stage one here, and look at how long its parts take."""
    with tempfile.TemporaryDirectory() as folder, inputs.silence():
        plan = inputs.make_plan(Path(folder), MEASURED_ROWS)
        stage = StageOne(plan, Path(folder), TEACHER, MEASURED_SHARD)
        commits = _commits(stage)
        batches = _batch_seconds(stage)
        read, encode = _patch_seconds(stage)
        files = [file["bytes"] for shard in stage.teacher.shards for file in _entry(stage, shard)["files"].values()]
    return Measured(
        Spread.of(read),
        Spread.of(encode),
        Spread.of([seconds / mean(batches) for seconds in batches]),
        len(stage.batches[0].rows),
        sum(files) / plan.num_rows,
        tuple(commits),
        measured_operation(),
    )


def _entry(stage: StageOne, shard: int) -> Any:
    entry = stage.teacher.ledger.read(shard)
    assert entry is not None
    return entry


def _commits(stage: StageOne) -> list[float]:
    """Seconds of each commit of a run."""
    seconds: list[float] = []
    commit = writer._OpenShard.commit

    def timed(shard: writer._OpenShard, device: str) -> None:
        started = time.perf_counter()
        commit(shard, device)
        seconds.append(time.perf_counter() - started)

    with mock.patch.object(writer._OpenShard, "commit", timed):
        stage.stage()
    return seconds


def _batch_seconds(stage: StageOne) -> list[float]:
    """Seconds of each whole batch of the teacher but the first, which warms up."""
    forward = EncoderForward(stage.running.encoder.module, inputs.DEVICE, "float32")
    seconds, started = [], time.perf_counter()
    width = stage.teacher.width
    for batch in stage.batches:
        for _ in embed_batches(forward, [batch], inputs.DEVICE, width=width, no_room=""):
            pass
        now = time.perf_counter()
        if len(batch.rows) == len(stage.batches[0].rows):
            seconds.append(now - started)
        started = now
    return seconds[1:]


def _patch_seconds(stage: StageOne) -> tuple[list[float], list[float]]:
    """CPU seconds to read, and to encode, each patch, in this thread and in the plan's order."""
    patches, out = PlannedPatches(stage.plan, None, tell=print), empty_patch(stage.plan.config.patch_px)
    read, encode = [], []
    for row in range(stage.plan.num_rows):
        started = time.thread_time()
        patches.read(row, out)
        between = time.thread_time()
        encode_image(out, "jpegxl")
        read.append(between - started)
        encode.append(time.thread_time() - between)
    return read, encode


def measured_operation(count: int = 2000) -> float:
    """Seconds of an operation on a real store of torch, on loopback."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)  # type: ignore[attr-defined]
    started = time.perf_counter()
    for number in range(count):
        store.compare_set(f"claim/{number}", "", "0:1")
    return (time.perf_counter() - started) / count


@contextmanager
def small_stacks() -> Iterator[None]:
    """Threads with small stacks: there are many."""
    before = threading.stack_size(256 * 1024)
    try:
        yield
    finally:
        threading.stack_size(before)


def days(
    slides: Sequence[int], accelerators: Sequence[int], worlds: dict[str, World], measured: Measured, repeats: int
) -> list[tuple[str, list[Day]]]:
    """Simulate all of them, those with deaths `repeats` times; slides have 1,000 patches."""
    found = []
    for name, world in worlds.items():
        for num_slides in slides:
            for num in accelerators:
                num_shards = -(-num_slides * 1000 // ROWS_PER_SHARD)
                seeds = range(1 if isinf(world.dies) else repeats)
                runs = [Day(world, measured, num, num_shards, seed) for seed in seeds]
                with small_stacks():
                    for day in runs:
                        day.run()
                found.append((name, runs))
    return found


def worlds_of(usual: World, dies_hours: float) -> dict[str, World]:
    """What is simulated: one thing differs from the usual in each."""

    def but(**changes: Any) -> World:
        return World(**{**vars(usual), **changes})

    return {
        "as assumed": usual,
        "storage a tenth": but(storage=usual.storage / 10),
        "writing a tenth": but(writing=usual.writing / 10),
        "deaths, torchrun": but(dies=dies_hours, starts="all"),
        "deaths, one each": but(dies=dies_hours, starts="one"),
        "half a core each": but(cores=0.5),
    }


def main() -> int:
    """Measure, simulate and print."""
    defaults = World()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, nargs="+", default=[1_000, 100_000], help="[%(default)s]")
    parser.add_argument("--accelerators", type=int, nargs="+", default=[1, 8, 64], help="[%(default)s]")
    parser.add_argument("--read-ms", type=float, help="in place of what is measured here")
    parser.add_argument("--spread", type=float, default=defaults.spread, help="between slides [%(default)s]")
    parser.add_argument("--cores", type=float, default=defaults.cores, help="of a process [%(default)s]")
    parser.add_argument("--teacher", type=float, default=defaults.teacher, help="patches a second [%(default)s]")
    parser.add_argument("--storage-gb", type=float, default=defaults.storage / 1e9, help="GB a second [%(default)s]")
    parser.add_argument("--writing-gb", type=float, default=defaults.writing / 1e9, help="GB a second [%(default)s]")
    parser.add_argument("--dies-hours", type=float, default=24.0, help="of a process [%(default)s]")
    parser.add_argument("--restart", type=float, default=defaults.restart, help="seconds of a restart [%(default)s]")
    parser.add_argument("--repeats", type=int, default=4, help="of worlds with deaths: means of these [%(default)s]")
    args = parser.parse_args()

    measured = measured_here()
    if args.read_ms is not None:
        measured = replace(measured, read=Spread(args.read_ms / 1000, measured.read.deviation))
    usual = World(
        args.spread,
        cores=args.cores,
        storage=args.storage_gb * 1e9,
        writing=args.writing_gb * 1e9,
        teacher=args.teacher,
        restart=args.restart,
    )
    found = days(args.slides, args.accelerators, worlds_of(usual, args.dies_hours), measured, args.repeats)
    lines = [
        (
            name,
            f"{runs[0].num_shards * ROWS_PER_SHARD // 1000:,}",
            runs[0].num,
            f"{mean(day.end for day in runs) / HOUR:.2f}",
            f"{mean(day.efficiency for day in runs):.2f}",
            runs[0].limit,
            f"{mean(day.store.busy / day.end for day in runs):.2%}",
            f"{mean(day.deaths for day in runs):.3g}",
        )
        for name, runs in found
    ]
    header = ("world", "slides", "accelerators", "hours", "efficiency", "limit", "store busy", "deaths")
    print(f"measured here: reading {_words(measured.read)}, encoding {_words(measured.encode)}")
    print(f"    batches of the teacher +- {measured.batch.deviation:.1%}, {measured.row_bytes / 1000:.1f} kB a row")
    commits, operation = measured.commits, measured.operation
    lowest, middle, highest = min(commits), median(commits), max(commits)
    print(f"    commits of {MEASURED_SHARD} rows {lowest:.2f} to {highest:.2f} s, in the median {middle:.2f}")
    print(f"    {operation * 1e6:.0f} us an operation of the launcher's store")
    print(f"assumed: {usual}")
    print(table(lines, header, right=(1, 2, 3, 4, 6, 7)))
    most = max(AT_MOST, min(args.accelerators))
    usual_runs = [day for name, runs in found for day in runs if name == "as assumed"]
    within = [day.efficiency for day in usual_runs if day.num <= most]
    return machine.conclude(min(within), at_least=NEEDED)


def _words(spread: Spread) -> str:
    return f"{spread.mean * 1000:.2f} +- {spread.deviation * 1000:.2f} ms of a core a patch"


if __name__ == "__main__":
    sys.exit(main())
