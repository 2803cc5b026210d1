"""A day of stage one, simulated: how many accelerators the reader, the storage and the launcher's store can keep busy.

Every simulated process is a thread that runs the product's own claiming code (`pipeline.base.launched.claims`) on a
key-value store in memory; its sleeps and its work pass on a clock of their own, one process at a time, so that a day
takes seconds. Nothing is read or embedded. What is assumed, a shard of 2,048 rows at a time:

    reading   ms a patch on a core, with a spread between shards (lognormal), over the cores of a process
    storage   bytes a patch through one file server that all processes share, first come first served
    teacher   patches a second on an accelerator; reading, storage and teacher go on at the same time
    store     seconds an operation of the launcher's server, one after the other; measured here on a real `TCPStore`
    failures  each process dies at random, once in so many hours; the launcher starts it again, with a pause

Reading is this machine's by `reader_speed.py`; spread, storage, teacher and failures are assumptions to be replaced by
one's own (`--help`). Ideal is the teacher alone, without failures. The ratio is the smallest efficiency of fast storage
and no failures with up to 8 accelerators, which the reader alone may limit.
"""

import argparse
import heapq
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from unittest import mock

import machine
import torch.distributed as dist

from pipeline.base.console import table
from pipeline.base.launched.claims import Claims, Member, register

NEEDED = 0.9
ROWS_PER_SHARD, HOUR = 2048, 3600.0


@dataclass(frozen=True)
class World:
    """What is assumed, as the script's help says: `storage` in bytes a second, `teacher` in patches a second, `dies` in
    hours, times in seconds.
    """

    read: float = 0.0016
    spread: float = 0.4
    cores: float = 16.0
    patch_bytes: float = 100e3
    storage: float = 5e9
    teacher: float = 400.0
    dies: float = float("inf")
    restart: float = 180.0
    operation: float = 50e-6


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

    def __init__(self, clock: Clock, operation: float) -> None:
        self._clock, self._operation, self._values, self._free = clock, operation, dict[str, str](), 0.0
        self.busy = 0.0

    def _serve(self) -> None:
        self._free = max(self._free, self._clock.now) + self._operation
        self.busy += self._operation
        if self._free - self._clock.now > self._operation:  # others are served first
            self._clock.wait(self._free - self._clock.now)

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
        reading, embedding, moving: seconds, of all processes together, that each part alone would have taken.
        deaths: processes that died.
        end: when the last shard was done.
    """

    world: World
    num: int
    num_shards: int
    clock: Clock = field(default_factory=Clock)
    reading: float = 0.0
    embedding: float = 0.0
    moving: float = 0.0
    deaths: int = 0
    end: float = 0.0

    def run(self) -> None:
        """Simulate it."""
        self.store = SimulatedStore(self.clock, self.world.operation)
        self._random, self._storage_free, self._done = random.Random(0), 0.0, set[int]()
        with mock.patch("time.sleep", self.clock.wait):
            for rank in range(self.num):
                self._begin(rank)
            self.clock.run()
        assert len(self._done) == self.num_shards, "every shard is done"

    def _begin(self, rank: int) -> None:
        mine = threading.Event()
        self.clock.start(threading.Thread(target=self._process, args=(rank, mine), daemon=True), mine)

    def _process(self, rank: int, mine: threading.Event) -> None:
        mine.wait()
        dies_at = self.clock.now + self._random.expovariate(1.0) * self.world.dies * HOUR
        try:
            member: Member = register(self.store, rank)
            shared = Claims(self.store, member, "day", range(self.num_shards), self._done.__contains__)
            for units in shared.rounds():
                for unit in units:
                    self._work(dies_at)
                    self._done.add(unit)
                    self.end = max(self.end, self.clock.now)
                    shared.done(unit)
        except DeadError:
            self.deaths += 1
            self.clock.wait(self.world.restart)
            self._begin(rank)
        self.clock.leave()

    def _work(self, dies_at: float) -> None:
        world = self.world
        read = ROWS_PER_SHARD * world.read / world.cores * self._random.lognormvariate(0.0, world.spread)
        teacher, move = ROWS_PER_SHARD / world.teacher, ROWS_PER_SHARD * world.patch_bytes / world.storage
        self._storage_free = max(self._storage_free, self.clock.now) + move
        self.reading, self.embedding, self.moving = self.reading + read, self.embedding + teacher, self.moving + move
        seconds = max(read, teacher, self._storage_free - self.clock.now)
        if self.clock.now + seconds > dies_at:
            self.clock.wait(max(dies_at - self.clock.now, 0.0))
            raise DeadError
        self.clock.wait(seconds)

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
            "launcher's store": self.store.busy,
        }
        return max(alone, key=alone.__getitem__)


def measured_operation(count: int = 2000) -> float:
    """Seconds of an operation on a real store of torch, on loopback."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)  # type: ignore[attr-defined]
    started = perf_counter()
    for number in range(count):
        store.compare_set(f"claim/{number}", "", "0:1")
    return (perf_counter() - started) / count


@contextmanager
def small_stacks() -> Iterator[None]:
    """Threads with small stacks: there are many."""
    before = threading.stack_size(256 * 1024)
    try:
        yield
    finally:
        threading.stack_size(before)


def days(slides: Sequence[int], accelerators: Sequence[int], worlds: dict[str, World]) -> list[tuple[str, Day]]:
    """Simulate all of them; slides have 1,000 patches."""
    found = []
    for name, world in worlds.items():
        for num_slides in slides:
            for num in accelerators:
                day = Day(world, num, -(-num_slides * 1000 // ROWS_PER_SHARD))
                with small_stacks():
                    day.run()
                found.append((name, day))
    return found


def main() -> int:
    """Simulate and print."""
    defaults = World()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, nargs="+", default=[1_000, 100_000], help="[%(default)s]")
    parser.add_argument("--accelerators", type=int, nargs="+", default=[1, 8, 64], help="[%(default)s]")
    parser.add_argument("--read-ms", type=float, default=1000 * defaults.read, help="[%(default)s]")
    parser.add_argument("--cores", type=float, default=defaults.cores, help="of a process [%(default)s]")
    parser.add_argument("--teacher", type=float, default=defaults.teacher, help="patches a second [%(default)s]")
    parser.add_argument("--storage-gb", type=float, default=defaults.storage / 1e9, help="GB a second [%(default)s]")
    parser.add_argument("--dies-hours", type=float, default=24.0, help="of a process [%(default)s]")
    args = parser.parse_args()

    operation = measured_operation()
    base = World(args.read_ms / 1000, cores=args.cores, storage=args.storage_gb * 1e9, teacher=args.teacher)
    usual = World(**{**vars(base), "operation": operation})
    worlds = {
        "as assumed": usual,
        "storage a tenth": World(**{**vars(usual), "storage": usual.storage / 10}),
        "failures": World(**{**vars(usual), "dies": args.dies_hours}),
        "half a core each": World(**{**vars(usual), "cores": 0.5}),
    }
    found = days(args.slides, args.accelerators, worlds)
    lines = [
        (
            name,
            f"{day.num_shards * ROWS_PER_SHARD // 1000:,}",
            day.num,
            f"{day.end / HOUR:.2f}",
            f"{day.efficiency:.2f}",
            day.limit,
            f"{day.store.busy / day.end:.2%}",
            day.deaths,
        )
        for name, day in found
    ]
    header = ("world", "slides", "accelerators", "hours", "efficiency", "limit", "store busy", "deaths")
    print(f"{operation * 1e6:.0f} us an operation of the launcher's store, measured here; {usual}")
    print(table(lines, header, right=(1, 2, 3, 4, 6, 7)))
    within = [day.efficiency for name, day in found if name == "as assumed" and day.num <= 8]
    return machine.conclude(min(within), at_least=NEEDED)


if __name__ == "__main__":
    sys.exit(main())
