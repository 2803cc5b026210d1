"""Two calls of one command on one output at once: one is refused with the reason, the other ends as if it were alone.

The second starts at a random moment of the first. If it comes when the first has ended, both succeed; if it takes the
lock before the first one does, the first is refused.
"""

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.errors import EXIT_ERROR, EXIT_OK
from support.kill_runs import TRACEBACK, difference
from support.kill_workloads import Workload
from support.warm import Ended, WarmCommands

REFUSED = ("in use by", "is there already", "exists already")
"""What a refused call says: the output is locked, or (`plan`, which is not continued) it is there."""


@dataclass
class Together:
    """What came of pairs of calls: how many calls succeeded and were refused, and the faults."""

    command: str
    calls: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def run_together(work: Workload, first: WarmCommands, second: WarmCommands, pairs: int, seed: int) -> Together:
    """Start so many pairs of calls, each on an empty place, and look at what they leave."""
    rng, together = random.Random(seed), Together(work.command)
    work.empty()
    alone = first.run(work.arguments)
    assert alone.code == EXIT_OK, alone.err
    expected = work.results()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(pairs):
            work.empty()
            running, after = pool.submit(first.run, work.arguments), rng.uniform(0, alone.seconds)
            time.sleep(after)
            ends = [second.run(work.arguments), running.result()]
            together.calls.update("refused" if end.code == EXIT_ERROR else f"exit code {end.code}" for end in ends)
            together.faults += [f"second after {after:.2f} s: {fault}" for fault in faults_of(ends, work, expected)]
    work.empty()
    return together


def faults_of(ends: list[Ended], work: Workload, expected: dict[str, Any]) -> list[str]:
    """What is wrong with two calls and what they left."""
    faults = [f"traceback: {end.err}" for end in ends if any(mark in end.err + end.out for mark in TRACEBACK)]
    faults += [f"hangs: {end.err}" for end in ends if end.hung]
    faults += [f"stays behind: {end.orphans}" for end in ends if end.orphans]
    if EXIT_OK not in [end.code for end in ends]:
        faults.append(f"neither succeeds: {[(end.code, end.err[-600:]) for end in ends]}")
    refused = [end.err for end in ends if end.code != EXIT_OK]
    faults += [f"refused without the reason: {words[-600:]}" for words in refused if not has_reason(words)]
    if found := difference(expected, work.results()):
        faults.append(f"something else is left: {found}")
    return faults


def has_reason(words: str) -> bool:
    """Whether a refused call says why."""
    return any(reason in words for reason in REFUSED)
