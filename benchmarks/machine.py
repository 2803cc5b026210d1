"""What the benchmarks share: clocks that know how busy the machine was, rounds, and the verdict. Imports no torch.

Wall time on a shared machine says something only when nobody else had the cores. So every measurement notes the share
of the machine's CPU time that went to other processes, what is compared is measured in turn within a round, a round
begins when the machine is quiet, and rounds that others disturbed do not count. When the machine never is quiet, CPU
time of this process is compared instead, and the verdict says so: it misses waiting, but with all cores in use there
is none.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

QUIET = 0.05
"""Share of the machine's CPU time that others may take in a round that counts. Our choice: half of the margin that
stage two is allowed.
"""
MIN_ROUNDS = 3
PATIENCE = 120.0
"""Seconds to try for quiet rounds of each thing measured, unless --patience says otherwise. Our choice."""

Part = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """One measurement: wall seconds, CPU seconds of this process and the children it waited for, and the share of the
    machine's CPU time that others had.
    """

    wall: float
    cpu: float
    others: float


Round = dict[str, Measured]


@dataclass(frozen=True)
class Rounds:
    """Rounds that count.

    Attributes:
        rounds: quiet ones, or the least disturbed ones.
        quiet: whether wall time can be compared.
    """

    rounds: Sequence[Round]
    quiet: bool

    def seconds(self, name: str) -> float:
        """Median seconds of a part: wall, or CPU where the machine was not quiet."""
        return median(self._value(r[name]) for r in self.rounds)

    def ratio(self, above: Sequence[str], below: Sequence[str]) -> float:
        """Median over rounds of the parts `above` over the parts `below`."""
        return self._ratio(above, below, self._value)

    def cpu_ratio(self, above: Sequence[str], below: Sequence[str]) -> float:
        """The same in CPU seconds: work, without waiting."""
        return self._ratio(above, below, lambda m: m.cpu)

    def _value(self, measured: Measured) -> float:
        return measured.wall if self.quiet else measured.cpu

    def _ratio(self, above: Sequence[str], below: Sequence[str], value: Callable[[Measured], float]) -> float:
        return median(sum(value(r[n]) for n in above) / sum(value(r[n]) for n in below) for r in self.rounds)

    def words(self) -> str:
        """How they were measured."""
        shares = (
            f"others had {min(map(others_in, self.rounds)):.0%} to {max(map(others_in, self.rounds)):.0%} of the CPUs"
        )
        clock = "wall time" if self.quiet else "CPU TIME, FOR THE MACHINE WAS NOT QUIET"
        return f"{clock}, {len(self.rounds)} rounds, {shares}"


def busy_seconds() -> float:
    """CPU seconds that the machine has spent on anything."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _own_seconds() -> float:
    """CPU seconds of this process and of the children that it waited for."""
    return sum(os.times()[:4])


def peak_resident_bytes() -> int:
    """Peak resident memory of this process since it was started; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure(work: Part) -> Measured:
    """Run `work` once; what a `Measured` that it returns says, which is of a process that it asked, stands."""
    busy, own, start = busy_seconds(), _own_seconds(), time.perf_counter()
    result = work()
    if isinstance(result, Measured):
        return result
    wall, cpu = time.perf_counter() - start, _own_seconds() - own
    others = max(busy_seconds() - busy - cpu, 0.0)
    return Measured(wall, cpu, others / (wall * (os.cpu_count() or 1)))


def measure_child(ask: Callable[[], tuple[float, float]]) -> Measured:
    """Have a child process work once by `ask`, which returns the wall and CPU seconds that the child says it took."""
    busy, own = busy_seconds(), _own_seconds()
    wall, cpu = ask()
    others = max(busy_seconds() - busy - (_own_seconds() - own) - cpu, 0.0)
    return Measured(wall, cpu, others / (wall * (os.cpu_count() or 1)))


def others_in(one: Round) -> float:
    """The share of the machine that others had in a round, weighted by time."""
    return sum(m.others * m.wall for m in one.values()) / sum(m.wall for m in one.values())


def measure_rounds(
    parts: Mapping[str, Part], *, wanted: int, patience: float, before: Mapping[str, Part] | None = None
) -> Rounds:
    """Measure the parts in turn, round by round, until `wanted` rounds were quiet or `patience` seconds are over.

    Every part is run once beforehand to warm up. Every other round goes backwards, so that a machine that slows down or
    speeds up favours no part. `before` holds what is to be done, unmeasured, before a part.
    """
    prepare = before or {}
    for name, part in parts.items():
        prepare.get(name, lambda: None)()
        part()
    rounds: list[Round] = []
    end = time.monotonic() + patience
    while sum(others_in(r) <= QUIET for r in rounds) < wanted:
        if time.monotonic() > end and len(rounds) >= MIN_ROUNDS:
            break
        while time.monotonic() < end and measure(lambda: time.sleep(0.5)).others > QUIET:
            time.sleep(0.5)
        measured = {}
        for name in list(parts) if len(rounds) % 2 == 0 else reversed(list(parts)):
            prepare.get(name, lambda: None)()
            measured[name] = measure(parts[name])
        rounds.append(measured)
        print(f"round {len(rounds)}: others had {others_in(measured):.0%} of the CPUs", file=sys.stderr, flush=True)
    quiet = [r for r in rounds if others_in(r) <= QUIET]
    if len(quiet) >= MIN_ROUNDS:
        return Rounds(quiet, True)
    return Rounds(sorted(rounds, key=others_in)[: max(MIN_ROUNDS, len(rounds) // 2)], False)


def parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, with the options of rounds."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="quiet rounds that are wanted [%(default)s]")
    made.add_argument("--patience", type=float, default=PATIENCE, help="seconds to try for them [%(default)s]")
    return made


INCONCLUSIVE = 2
"""Exit status when the machine was not quiet, so that waiting could not be measured."""


def conclude(ratio: float, *, at_least: float | None = None, at_most: float | None = None, quiet: bool = True) -> int:
    """Print the last line; returns the exit status: 1 when the need is not met, `INCONCLUSIVE` when nobody can tell."""
    if at_least is not None:
        print(f"ratio: {ratio:.3f} (needs >= {at_least:g})")
        met = ratio >= at_least
    else:
        assert at_most is not None
        print(f"ratio: {ratio:.3f} (needs <= {at_most:g})")
        met = ratio <= at_most
    if met and not quiet:
        print("inconclusive: others used the machine, so this is CPU time, which does not see waiting; run it again")
        return INCONCLUSIVE
    return 0 if met else 1
