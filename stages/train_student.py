"""Stage two: train student and projector against the stored embeddings of the teacher.

G2L, section "Knowledge distillation":
    z_s = student(x)                    (B, S)
    p   = Linear(S -> T)(z_s)           (B, T)   the projector
    d   = |BN(p) - BN(z_t)|             both without affine parameters
    L   = log( sum over batch and dimensions of d**alpha )
With several teachers, each has a projector, and L is the weighted sum of their losses; the weights sum to 1. What the
paper leaves open is our choice and an option: optimiser, schedule, augmentation; `--recipe paper` sets what it says
(docs/paper.md). The teacher is not loaded here. With several processes (`torchrun`), loss, gradient and statistics, the
projector's and those of the student's own batch normalisation, are those of the whole batch; they are the same ones in
parts (`--micro-batch`). `pipeline.training.step` has the step itself.
"""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.base import distributed
from pipeline.base.console import Progress, said_to
from pipeline.base.devices import choose_device, keep_freed_memory, use_deterministic_kernels
from pipeline.base.errors import G2LError
from pipeline.config.model_names import SCRATCH
from pipeline.config.stages import TrainConfig
from pipeline.disk.locks import exclusive
from pipeline.distillation import Distillation, build_loss, random_states, restore_random_states
from pipeline.encoders.build import build_encoder
from pipeline.report.logs.tracker import Tracker, tracked
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers
from pipeline.student.card import card_facts, model_card
from pipeline.student.describe import describe_run_student, split_facts
from pipeline.student.folder import write_student
from pipeline.training.checkpoint import (
    check_finite,
    delete_old,
    load_checkpoint,
    load_last_checkpoint,
    load_last_parts,
    save_checkpoint,
)
from pipeline.training.curves import draw_curves
from pipeline.training.held_out import best_words
from pipeline.training.identity import loss_weights, named_in_lines, recorded_departures
from pipeline.training.optim import set_schedules
from pipeline.training.rows.order import batches_of, epoch_order
from pipeline.training.run_folder import MetricsLog, RunFolder, check_line
from pipeline.training.scoring import calibrated, score_teachers
from pipeline.training.sharded.parts import like_run
from pipeline.training.step.train_step import train_step
from pipeline.training.tensorboard import TensorBoard
from stages.reports.train import Trained
from stages.training.cost import say_cost
from stages.training.run import Run, open_loader, open_run, views_to_show

LOG_EVERY = 10
"""Steps between fetches of the losses, so that the device does not wait at every step."""
DRAW_SECONDS = 60.0
"""Time between plots of the curves during training: a plot takes as long as many steps."""


def train_student(store: Store, out: Path, config: TrainConfig, *, estimate: bool = True) -> Trained:
    """Train or continue in the run directory `out`; export the student at the end.

    Args:
        estimate: whether to say beforehand what the run will cost, and when the store pays. In a study many runs share
            one store, so that the words would be wrong.

    Raises:
        G2LError: an unfinished or damaged store, other options than the run was started with, a full disk, another
            process that has ended, ...; checkpoints are safe, and the same command continues.
    """
    teachers = choose_teachers(store, config.teacher, config.teacher_weight)
    store.expect(teachers.stored)
    config = config.for_views(views_to_show(teachers, config.views_per_epoch).count)
    device = choose_device(config.device)
    keep_freed_memory()
    use_deterministic_kernels(config.deterministic)
    device = distributed.join_group(device)
    folder, leader = RunFolder(out), distributed.is_leader()
    try:
        with (
            distributed.lost_processes_told(),
            exclusive(out, "g2l train-student") if leader else said_to(lambda _: None),  # the first speaks for all
        ):
            run = open_run(teachers, folder, config, device)
            with tracked(config.log or (), out, "train-student", folder.read_identity(), here=leader) as tracker:
                started = time.monotonic()
                num_new_steps = run_epochs(run, folder, tracker, estimate=estimate)
                seconds = time.monotonic() - started
                distributed.wait_for_all()  # from here on the metrics are complete
                trained = finish(run, folder, num_new_steps, seconds)
                tracker.files(folder.shown())
            distributed.wait_for_all()
    except OSError as error:
        raise G2LError(
            f"{error.filename or out}: {error.strerror or error}. Checkpoints are safe: fix the cause, then "
            "run the same command again"
        ) from error
    finally:
        distributed.leave_group()
    return trained


def finish(run: Run, folder: RunFolder, num_new_steps: int, seconds: float) -> Trained:
    """Draw the curves and export the student that is to be kept, with its card.

    Raises:
        CheckpointError: the checkpoint of the best epoch is gone or damaged.
        StoreError: views that were shown have been made again since.
        G2LError: a weight is not finite, or the student cannot be written.
    """
    config, teachers = run.config, run.teachers
    best = folder.best()
    step = best.step if best and config.keep == "best" else run.last_step
    held_out = folder.held_out_figures(step)
    if distributed.is_leader():
        if run.reader.fresh:
            run.reader.fresh.require_unchanged()
        distillation = whole_distillation(run)
        if distillation is run.distillation:
            check_finite(run.last_step, distillation.state())
        draw_curves(folder.metrics(), folder.curves_path)
        if step != run.last_step or distillation is not run.distillation:
            distillation.load_state(load_checkpoint(folder.checkpoints, step))
        facts = card_facts(teachers, held_out, distillation.student, config.for_card(), run.rows.train, step)
        identity = folder.read_identity()
        facts["best"] = best_words(folder.validations(), loss_weights(identity), step)
        facts["start"] = sorted(identity.get("start", {}))
        facts["seen"] = run.seen.words()
        stop = run.early_stop.stop if run.early_stop else None
        facts["recipe"] = recorded_departures(identity)
        facts["stopped"] = stop.words(run.num_steps) if stop else ""
        projectors = {head.teacher: head.projector for head in distillation.heads}
        spec = replace(distillation.student.spec, mpp=teachers.first.plan.mpp)
        says_step = run.draws.version > 1 or step != run.num_steps
        plan = teachers.first.plan.config
        write_student(
            folder.student,
            distillation.student.module.model,
            spec,
            projectors,
            model_card(facts),
            lambda student: describe_run_student(
                folder, student, step, split_facts(facts["store"]), plan.resampling, plan.decode, run.seen
            ),
            step if says_step else None,
        )
    return Trained(folder, run.last_step, num_new_steps, held_out, seconds, step)


def whole_distillation(run: Run) -> Distillation:
    """The run's student and heads; of a student that is split another one, whole, on the CPU, and without the weights
    that a checkpoint has.
    """
    distillation = run.distillation
    if not distillation.is_sharded:
        return distillation
    whole = build_encoder(run.config.student, SCRATCH, run.teachers.first.patch_px)
    student = replace(distillation.student, module=whole.module)
    return replace(distillation, student=student, training_pass=None, is_sharded=False)


def run_epochs(run: Run, folder: RunFolder, tracker: Tracker, *, estimate: bool = True) -> int:
    """Train from the last checkpoint on; returns the number of steps done. `estimate`: see `train_student`."""
    config = run.config
    torch.manual_seed(run.draws.dropout_seed(distributed.rank()))  # each process drops different units
    position = load(run, folder)
    first, metrics_bytes = position or (0, 0)
    leader, folder.is_training = distributed.is_leader(), True
    board = TensorBoard(folder.tensorboard if leader else None, first)
    log = MetricsLog(folder.metrics_path if leader else None, metrics_bytes, board, tracker)
    try:
        if position is None:
            measure_start(run, folder, log, estimate=estimate)
        with Progress("training", run.num_steps, "steps", done=first, silent=not leader) as progress:
            drawn = time.monotonic()
            for epoch in range(first // run.steps_per_epoch, config.epochs):
                if run.is_stopped:
                    break
                done = train_epoch(run, folder, log, progress, epoch, max(first, epoch * run.steps_per_epoch))
                if (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs or run.is_stopped:
                    validate(run, log, step=done, epoch=epoch + 1)
                save(run, folder, log, done)
                if leader and time.monotonic() - drawn > DRAW_SECONDS:
                    draw_curves(folder.metrics(), folder.curves_path)
                    drawn = time.monotonic()
    finally:
        log.close()
        folder.is_training = False
    return run.last_step - first


def measure_start(run: Run, folder: RunFolder, log: MetricsLog, *, estimate: bool) -> None:
    """Score the student as it comes, and save it as step 0; before the progress of training, whose rate it is no part
    of.
    """
    if estimate:
        say_cost(run)
    with calibrated(
        run.distillation,
        run.reader,
        epoch_order(run.rows.train, run.config.seed, 0, run.draws.calibration),
        batch_size=run.rows.batch_size,
        workers=run.workers,
        version=run.draws.version,
    ):
        validate(run, log, step=0, epoch=0)
    save(run, folder, log, 0)


def train_epoch(run: Run, folder: RunFolder, log: MetricsLog, progress: Progress, epoch: int, step: int) -> int:
    """Train one epoch from `step` on; returns the next step."""
    config, distillation = run.config, run.distillation
    loss_of = build_loss(config.loss, config.alpha)
    order = epoch_order(run.rows.train, config.seed, epoch)
    loader, mine = open_loader(run, epoch), run.own_share
    waiting: list[tuple[int, float, Tensor, Tensor]] = []
    distillation.train()
    with loader:
        first = step - epoch * run.steps_per_epoch
        for batch in loader.batches(rows[mine] for rows in batches_of(order, run.rows.batch_size, first)):
            lr = set_schedules(run.optimizer, config, step, run.num_steps)
            loss, norm = train_step(
                distillation, batch, loss_of, run.optimizer, config.clip, run.early_stop, run.gradients
            )
            step += 1
            waiting.append((step, lr, loss, norm))
            stops = run.early_stop is not None and run.early_stop.ends_after(step, epoch)
            at_end = stops or step == (epoch + 1) * run.steps_per_epoch
            at_checkpoint = step % config.checkpoint_every == 0 and not at_end
            if len(waiting) == LOG_EVERY or at_checkpoint or at_end:
                write_steps(log, waiting, epoch, progress)
            if at_checkpoint:
                save(run, folder, log, step)
            progress.step()
            if stops:
                break
    if run.early_stop and run.early_stop.stop:
        log.append(run.early_stop.stop.line())
    return step


def write_steps(
    log: MetricsLog, waiting: list[tuple[int, float, Tensor, Tensor]], epoch: int, progress: Progress
) -> None:
    """Fetch the waiting losses and write a line for each. Runs before every checkpoint, so none is saved after a
    failure.

    Raises:
        G2LError: a loss or a gradient is not finite.
    """
    losses = torch.stack([loss for _, _, loss, _ in waiting]).tolist()
    norms = torch.stack([norm for _, _, _, norm in waiting]).tolist()
    for (step, lr, _, _), loss, norm in zip(waiting, losses, norms, strict=True):
        log.append({"kind": "step", "step": step, "epoch": epoch, "loss": loss, "lr": lr, "grad_norm": norm})
    progress.note(epoch=epoch + 1, loss=losses[-1], lr=waiting[-1][1])
    waiting.clear()


def save(run: Run, folder: RunFolder, log: MetricsLog, step: int) -> None:
    """Save a checkpoint after `step` steps: all that the next step depends on, and the length of the metrics file.

    The first process writes it, with the random states of all; of a student that is split each writes its part.

    Raises:
        G2LError: a weight is not finite.
    """
    state, sharded = run.distillation.state(), run.distillation.is_sharded
    check_finite(step, state, sharded=sharded)
    random = distributed.gather(random_states(run.distillation.device))
    if distributed.is_leader() or sharded:
        content = state | {
            "step": step,
            "optimizer": run.optimizer.state_dict(),
            "random": random,
            "metrics_bytes": log.sync(),
        }
        if run.early_stop:
            content["early_stop"] = run.early_stop.state()
        best = folder.best()
        save_checkpoint(folder.checkpoints, step, content, best.step if best else None, sharded=sharded)


def load(run: Run, folder: RunFolder) -> tuple[int, int] | None:
    """Restore the newest intact checkpoint; returns its step and length of the metrics in bytes, `None` without one."""
    if run.distillation.is_sharded:
        checkpoint = load_last_parts(folder.checkpoints, like_run(run.distillation, run.optimizer))
    else:
        checkpoint = load_last_checkpoint(folder.checkpoints)
    if checkpoint is None:
        return None
    if distributed.is_leader():
        with suppress(OSError):  # the next checkpoint tries again, and says why it cannot
            delete_old(folder.checkpoints, checkpoint["step"])
    run.distillation.load_state(checkpoint)
    run.optimizer.load_state_dict(checkpoint["optimizer"])
    if len(checkpoint["random"]) == distributed.world_size():
        restore_random_states(checkpoint["random"][distributed.rank()], run.distillation.device)
    else:
        torch.manual_seed(run.draws.dropout_seed(distributed.rank(), checkpoint["step"]))
    if run.early_stop:
        run.early_stop.load_state(checkpoint["early_stop"])
    return checkpoint["step"], checkpoint["metrics_bytes"]


def validate(run: Run, log: MetricsLog, *, step: int, epoch: int) -> None:
    """Score the held-out rows and write a line for each teacher; if none are held out, only check that the figures of
    one training batch are finite.

    The first process does this for all; of a student that is split all do the same, for none has it whole.

    Raises:
        G2LError: a figure is not finite.
    """
    if not (distributed.is_leader() or run.distillation.is_sharded):
        return
    config, held_out = run.config, len(run.rows.val) > 0
    chosen = run.rows.val if held_out else run.rows.train[: run.rows.batch_size]
    with distributed.alone():
        scores = score_teachers(
            run.distillation,
            run.reader,
            chosen.tolist(),
            batch_size=run.rows.batch_size,
            workers=run.workers,
            loss=config.loss,
            alpha=config.alpha,
            fit_on=run.rows.fit.tolist() if held_out else (),
            version=run.draws.version,
        )
    for teacher, (figures, loss) in zip(named_in_lines(run.teachers.names), scores, strict=True):
        line = {"kind": "val", **teacher, "step": step, "epoch": epoch, "loss": loss, **figures}
        check_line(line)
        if held_out:
            log.append(line)
