"""What a run will cost: a batch's loading and a few steps are timed before it begins, and leave no trace; stage one's
ledger has the rest.

The estimate says how long all steps take with their loading, how long stage one took, and what the same training would
take with the teacher in the loop: each epoch would make the embeddings again (docs/caching.md). Stage one's time is
that of its shards, with reading and encoding; it may come from another machine.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.base.distributed import GradientBuckets
from pipeline.base.loader import Batch, BatchLoader
from pipeline.base.units import format_bytes, format_seconds
from pipeline.distillation import Distillation, random_states, restore_random_states
from pipeline.loss import Loss
from pipeline.store.store import StoredTeacher
from pipeline.training.step.train_step import train_step

TIMED = 2
"""Steps that are timed, after one that warms up. Our choice: seconds, and their mean is good to a tenth."""


@dataclass(frozen=True)
class StepTime:
    """What a step of training takes, in seconds.

    Attributes:
        computing: of the step itself, on a batch that lies in memory.
        loading: of a batch, by all threads of the loader.
        on_same_cores: whether the processor that loads also computes. Then the two add up, as
            benchmarks/stage_two_speed.py measures; else they go on beside each other, and the longer one counts.
    """

    computing: float
    loading: float
    on_same_cores: bool

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.computing + self.loading if self.on_same_cores else max(self.computing, self.loading)

    def words(self) -> str:
        """It and its parts, in milliseconds."""
        where = "on the same cores" if self.on_same_cores else "beside it"
        parts = f"{self.computing * 1000:,.0f} to compute, {self.loading * 1000:,.0f} to load {where}"
        return f"{self.seconds * 1000:,.0f} ms ({parts})"


def load_timed(
    loader: BatchLoader[NDArray[Any]], first: Sequence[int], second: Sequence[int]
) -> tuple[Batch[NDArray[Any]], float]:
    """Load two batches of rows, one after the other; returns the second, and the seconds that it took. The first starts
    the threads and opens the files.
    """
    next(loader.batches([first]))
    started = time.monotonic()
    batch = next(loader.batches([second]))
    return batch, time.monotonic() - started


def rehearse(
    distillation: Distillation,
    batch: Batch[NDArray[Any]],
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    clip: float,
    gradients: GradientBuckets,
) -> float:
    """Seconds of a step, on a batch that lies in memory. For a run that has not begun: weights, statistics, random
    states and the optimizer are put back as they were.
    """
    assert not optimizer.state, "the optimizer has begun"
    state = {part: {name: value.clone() for name, value in each.items()} for part, each in distillation.state().items()}
    random = random_states(distillation.device)
    distillation.train()
    started = 0.0
    for number in range(TIMED + 1):
        if number == 1:
            started = time.monotonic()
        loss, _ = train_step(distillation, batch, loss_of, optimizer, clip, gradients=gradients)
        loss.item()  # waits for the device
    seconds = (time.monotonic() - started) / TIMED
    optimizer.zero_grad(set_to_none=True)
    optimizer.state.clear()
    distillation.load_state(state)
    restore_random_states(random, distillation.device)
    return seconds


def view_seconds(teacher: StoredTeacher) -> float:
    """Seconds that stage one took for a view of a row: the mean of those that are done, at once or in rounds."""
    made = teacher.with_rounds
    return sum(each.ledger.seconds() for each in made) / sum(each.views.count * each.ledger.num_done() for each in made)


def cost_words(
    teachers: Sequence[StoredTeacher], num_rows: int, epochs: int, num_steps: int, step: StepTime, world: int = 1
) -> str:
    """The estimate of a run of `num_steps` steps over `num_rows` training rows in `world` processes, in sentences.

    A ledger has the seconds of the process that did a shard, so their sum is what one process would take: so it is
    said, and the teacher in the loop would be shared by the processes that train.
    """
    training = num_steps * step.seconds
    lines = [f"{counted(num_steps, 'step')} of {step.words()} take about {format_seconds(training)}"]
    if any("imported" in teacher.settings for teacher in teachers):
        return f"estimate: {lines[0]}"
    made = [stored for teacher in teachers for stored in teacher.with_rounds]
    stage_one, disk = sum(stored.ledger.seconds() for stored in made), sum(stored.ledger.num_bytes() for stored in made)
    if stage_one <= 0 or not num_rows:
        return f"estimate: {lines[0]}"
    each_epoch = num_rows * sum(view_seconds(teacher) for teacher in teachers)
    lines.append(f"Stage one took {format_seconds(stage_one)} of one process, once, and {format_bytes(disk)}")
    each_shared = each_epoch / world
    in_all = f", shared by {world} processes," if world > 1 else ""
    lines.append(
        f"With the teacher in the loop{in_all} each epoch would take about {format_seconds(each_shared)} longer, all "
        f"{counted(epochs, 'epoch')} {format_seconds(training + epochs * each_shared)}: the store pays after "
        f"{stage_one / each_epoch:.1f} epochs"
    )
    return f"estimate: {'. '.join(lines)}"
