"""How `peers.py` speaks with the programs that it times, which run in other environments too: no import of ours.

A program gets its task as JSON on its command line. It loads everything, does the work on a few patches to warm up, and
says "ready". For the line that then comes it does the work once, says how long it took, and then saves the embeddings
that it left on disk once more, where the caller can compare them. Only the work is timed: wall time, and CPU time of
the program and of the workers that it started and waited for.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

WARM_UP = 64
"""Patches that a warm-up embeds, the last ones: two batches of 32. Our choice."""


class Program(Protocol):
    """What is timed, loaded."""

    def work(self, out: Path, *, warm_up: bool) -> None:
        """Embed the task's patches, or the last few to warm up, and leave the embeddings in the folder `out`."""

    def embeddings(self, out: Path) -> Any:
        """What `work` left in `out`: a NumPy array (N, D), in the order of the task's corners."""


def serve(load: Callable[[dict[str, Any]], Program]) -> None:
    """Run a program once: load, warm up, wait for a line, work, say how long it took, save the embeddings."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    task = json.loads(sys.argv[1])
    out = Path(task["out"])
    program = load(task)
    (out / "warm").mkdir(parents=True)
    (out / "timed").mkdir()
    program.work(out / "warm", warm_up=True)
    say(ready=True)
    if not sys.stdin.readline():
        return
    before, start = sum(os.times()[:4]), time.perf_counter()
    program.work(out / "timed", warm_up=False)
    wall, cpu = time.perf_counter() - start, sum(os.times()[:4]) - before
    say(wall=wall, cpu=cpu)
    import numpy as np  # every program has it by now

    embeddings = np.asarray(program.embeddings(out / "timed"), np.float32)
    np.save(out / "embeddings.npy", embeddings)
    say(patches=len(embeddings), width=embeddings.shape[1], sum=float(embeddings.sum(dtype=np.float64)))
