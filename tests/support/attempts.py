"""Stage two in forks, each killed at a given one of its changes to the file system (`support.killing`).

A process that has all imported makes them. It is a fork itself (`support.forked`), and asks nothing of torch's threads.
Nothing is rehearsed to say what the run will cost, nor drawn: neither is a change that the run depends on.
"""

import gc
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from stages import train_student as stage
from support.forked import forking
from support.killing import attempt
from support.training import plain_curves
from support.warm import import_all


class Attempts:
    """Runs of stage two on `store`, or on another one."""

    def __init__(self, store: Path) -> None:
        self.store = store
        context = forking()
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=make_attempts, args=(theirs,))
        self._process.start()
        theirs.close()

    def run(self, run: Path, config: TrainConfig, kill_at: int = 0, store: Path | None = None) -> int:
        """Exit code of one try; negative after a kill."""
        self._ours.send((store or self.store, run, kill_at, config.model_dump(mode="json")))
        return int(self._ours.recv())

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join()


def make_attempts(jobs: "Connection[Any, Any]") -> None:
    """In the fork: one after another, until there are no more."""
    import_all()  # once, and not in each attempt
    torch.set_num_threads(1)
    stage.draw_curves = plain_curves
    gc.freeze()
    while True:
        try:
            store, run, kill_at, values = jobs.recv()
        except EOFError:
            return
        work = partial(stage.train_student, Store(store), run, TrainConfig.model_validate(values), estimate=False)
        jobs.send(attempt(work, kill_at, run.with_suffix(".count")))
