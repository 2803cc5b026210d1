"""A campaign against one command: stopped at random moments, continued, and compared with a run that was never stopped.

After INT, TERM and HUP: gone in time, with the shell's exit code, without a traceback, no lock and no half-written file
left. After any stop and the runs that continue: the same files, to the byte. No process stays behind.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.errors import EXIT_ERROR, EXIT_OK
from support.kill_workloads import Workload
from support.warm import Ended, WarmCommands

POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_IN_A_ROW = 3
"""Stops of one output before it is continued to its end. Our choice: also a continued run is stopped."""
FRESH_SHARE = 0.1
"""Of the polite stops so many hit a process that imports everything itself."""
BARE_SECONDS = 0.1
"""The interpreter's own start, in which no line of ours has run and a signal ends it as it will (0.05 s on a free
core).
"""
BARE = "Fatal Python error: init_"
"""What the interpreter says if it takes longer, and a signal meets it then: such a stop does not count."""
TRACEBACK = ("Traceback (most recent call last)", "Exception ignored in")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stop:
    """A signal that is due, to a fresh process or to a fork."""

    signal: signal.Signals
    fresh: bool = False

    def __str__(self) -> str:
        return self.signal.name + (" while fresh" if self.fresh else "")


@dataclass
class Tally:
    """What a campaign found.

    Attributes:
        command: whose it is.
        stops: signals that met the command at work, by name.
        finished: outputs that came to their end after stops, and were compared.
        slowest: seconds from a polite signal to the end, at most.
        faults: what was wrong, a line each: kind, stop, moment, details.
    """

    command: str
    seconds: float = 0.0
    stops: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


class Campaign:
    """Stops of one command."""

    def __init__(self, work: Workload, warm: WarmCommands, seed: int, say: Say = lambda words: None) -> None:
        self.work, self.warm, self.rng, self.say = work, warm, random.Random(seed), say
        self.tally = Tally(work.command)
        self.history: list[str] = []
        self.seconds = {False: 0.0, True: 0.0}
        """How long an undisturbed run takes, in a fork and as a fresh process; follows how busy the machine is."""
        self.reference: dict[str, Any] = {}

    def run(self, kills: int, interrupts: int, fresh_share: float = FRESH_SHARE) -> Tally:
        """Stop the command so many times; runs that end before their stop do not count.

        `fresh_share` of the interrupts hit a process that imports everything itself.

        Raises:
            AssertionError: two undisturbed runs are not the same, or they fail.
        """
        started = time.monotonic()
        stops = list(plan_stops(kills, interrupts, fresh_share, self.rng))
        self.measure(fresh=any(stop.fresh for stop in stops))
        in_a_row = self.rng.randint(1, MOST_IN_A_ROW)
        for stop in stops:
            while not self.stop_once(stop):
                pass
            if len(self.history) >= in_a_row or self.work.is_finished():
                self.finish()
                in_a_row = self.rng.randint(1, MOST_IN_A_ROW)
        self.finish()
        self.tally.seconds = time.monotonic() - started
        return self.tally

    def measure(self, fresh: bool) -> None:
        """Two undisturbed runs, which must be the same; how long they take."""
        for is_fresh in (False, fresh):
            self.clear()
            ended = self.warm.run(self.work.arguments, fresh=is_fresh)
            assert ended.code == EXIT_OK, ended.out + ended.err
            self.seconds[is_fresh] = ended.seconds
            results = self.work.results()
            assert not self.reference or results == self.reference, difference(self.reference, results)
            self.reference = results
        assert not self.work.passing(), self.work.passing()
        self.clear()

    def stop_once(self, stop: Stop) -> bool:
        """Run the command and stop it at a random moment; whether it was still at work."""
        after = self.rng.uniform(BARE_SECONDS if stop.fresh else 0.0, self.seconds[stop.fresh])
        before = self.work.passing()
        ended = self.warm.run(self.work.arguments, stop=stop.signal, after=after, fresh=stop.fresh)
        moment = f"{stop} after {after:.3f} of {self.seconds[stop.fresh]:.2f} s"
        if ended.orphans:
            self.fault("stays behind", moment, "; ".join(ended.orphans))
        if not ended.stopped:  # it was quicker than that
            if not self.history:
                self.seconds[stop.fresh] = (self.seconds[stop.fresh] + ended.seconds) / 2
            self.history.append(moment + " (too late)")
            self.check_end(ended)
            return False
        if BARE in ended.err:  # no line of ours had run
            return False
        self.history.append(moment)
        self.tally.stops[stop.signal.name] += 1
        if stop.signal in POLITE:
            self.check_polite(stop, ended, moment, before)
        return True

    def check_polite(self, stop: Stop, ended: Ended, moment: str, before: dict[str, tuple[int, int]]) -> None:
        """What must hold at once after a signal that can be answered; `before` is what earlier kills had left."""
        self.tally.slowest = max(self.tally.slowest, ended.seconds_after)
        if ended.hung:
            self.fault("hangs", moment, ended.err)
        elif ended.shell_code not in (128 + stop.signal, EXIT_OK):
            self.fault(f"exit code {ended.code}", moment, ended.err)
        if any(mark in ended.err + ended.out for mark in TRACEBACK):
            self.fault("traceback", moment, ended.err)
        left = [name for name, stamp in self.work.passing().items() if before.get(name) != stamp]
        if left and not ended.hung:
            self.fault("left behind", moment, ", ".join(left))

    def finish(self) -> None:
        """Continue to the end, and compare."""
        if self.history:
            refuses = self.work.is_finished()
            ended = self.warm.run(self.work.arguments, quick_end=True)  # results count, not its end
            self.check_end(ended, EXIT_ERROR if refuses else EXIT_OK)

    def check_end(self, ended: Ended, code: int = EXIT_OK) -> None:
        """What must hold after a run that came to its end, with this exit code; begins anew."""
        moment = " | ".join(self.history)
        if ended.hung or ended.code != code:
            self.fault(f"continued, exit code {ended.code}{' (hangs)' if ended.hung else ''}", moment, ended.err)
        elif found := difference(self.reference, self.work.results()):
            self.fault("continued to something else", moment, found)
        self.tally.finished += 1
        self.clear()

    def clear(self) -> None:
        """An empty place."""
        self.work.empty()
        self.history.clear()

    def fault(self, kind: str, moment: str, details: str) -> None:
        self.tally.faults.append(f"{kind}: {moment}: {details.strip()}")
        self.say(f"{self.work.command}: {self.tally.faults[-1]}")


def plan_stops(kills: int, interrupts: int, fresh_share: float, rng: random.Random) -> Iterator[Stop]:
    """So many of each kind in a random order; INT, TERM and HUP in turn."""
    polite = [Stop(POLITE[i % len(POLITE)], i < round(fresh_share * interrupts)) for i in range(interrupts)]
    stops = [Stop(signal.SIGKILL)] * kills + polite
    rng.shuffle(stops)
    yield from stops


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Names of files that are missing, too many or of another content; empty if there are none."""
    lines = [f"missing {name}" for name in expected.keys() - found.keys()]
    lines += [f"too many {name}" for name in found.keys() - expected.keys()]
    lines += [f"differs {name}" for name in expected.keys() & found.keys() if expected[name] != found[name]]
    return ", ".join(sorted(lines))
