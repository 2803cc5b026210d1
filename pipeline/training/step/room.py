"""Too little memory for a run's passes: what the user can do, and whether the run can go on with it.

Rows in a pass are no part of a run (`--micro-batch`, decision 0054); the batch is, so that another one is another run.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.base.devices import describe_device
from pipeline.base.memory import told_if_no_room
from pipeline.distillation import Distillation
from pipeline.training.step.batch_norm import batch_norms


@contextmanager
def told_of_room(distillation: Distillation, num_rows: int) -> Iterator[None]:
    """Say what to do if the block finds too little memory for a pass over `num_rows` rows, or over parts of them.

    Raises:
        ConfigError: it did.
    """
    rows = min(distillation.micro_batch or num_rows, num_rows)

    def words() -> str:
        device = describe_device(distillation.device)
        return f"{device} has no room for a pass of {rows} rows. {advice_on_room(distillation, rows)}"

    with told_if_no_room(words):
        yield


def advice_on_room(distillation: Distillation, num_rows: int) -> str:
    """What to do where a pass of `num_rows` rows is too large."""
    if num_rows > 1 and not batch_norms(distillation.student.module):
        return f"Give --micro-batch {num_rows // 2}, or less: a step is still of the whole batch, and the run goes on"
    return "Train on more cards, or begin another run (--out) with a smaller --batch-size or a smaller student"
