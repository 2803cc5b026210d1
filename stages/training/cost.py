"""What a run of stage two will cost, by its own first batches and some steps, which leave no trace."""

from itertools import islice

from pipeline.base import distributed
from pipeline.base.console import say
from pipeline.distillation import build_loss
from pipeline.training.rows.order import batches_of, epoch_order
from pipeline.training.step.rehearsal import StepTime, cost_words, load_timed, rehearse
from stages.training.run import Run, open_loader


def say_cost(run: Run) -> None:
    """Say what the run will cost, and if chance is likely to end it before; every process takes part."""
    words = [cost_of(run), chance_note_of(run)]
    if distributed.is_leader():
        for each in filter(None, words):
            say(each)


def cost_of(run: Run) -> str:
    """What the run will cost, by loading its first batches and some steps, which leave no trace; every process takes
    part.
    """
    config, rows, device = run.config, run.rows, run.distillation.device
    order = epoch_order(rows.train, config.seed, 0)
    first, *others = [each[run.own_share] for each in islice(batches_of(order, rows.batch_size), 2)]
    with open_loader(run, 0) as loader:
        batch, loading = load_timed(loader, first, others[0] if others else first)
        loss_of = build_loss(config.loss, config.alpha)
        computing = rehearse(run.distillation, batch, loss_of, run.optimizer, config.clip, run.gradients)
    step, world = StepTime(computing, loading, device.type == "cpu"), distributed.world_size()
    return cost_words(run.teachers.stored, len(rows.train), config.epochs, run.num_steps, step, world)


def chance_note_of(run: Run) -> str:
    """That chance is likely to end the run long before its last step; "" if it is not."""
    if run.early_stop is None:
        return ""
    at_once = run.reader.fresh is None and run.teachers.views.count > 1
    return run.early_stop.chance_note(run.num_steps, embedded_at_once=at_once)
