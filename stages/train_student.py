"""Stage two: train student and projector against the stored embeddings of the teacher.

G2L, section "Knowledge distillation":
    z_s = student(x)                    (B, S)
    p   = Linear(S -> T)(z_s)           (B, T)   the projector
    d   = |BN(p) - BN(z_t)|             both without affine parameters
    L   = log( sum over batch and dimensions of d**alpha )
What the paper leaves open is our choice and an option: optimiser, schedule, augmentation. The teacher is not loaded
here.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import distributed
from pipeline.checkpoint import load_last_checkpoint, save_checkpoint
from pipeline.compute import choose_device, choose_precision, keep_freed_memory, use_deterministic_kernels, versions
from pipeline.config import IDENTITY_FREE, TrainConfig
from pipeline.curves import draw_curves
from pipeline.dataset import StoredRows, batches_of, epoch_order, row_keys, teacher_statistics
from pipeline.errors import ConfigError, StoreError
from pipeline.export import model_card, write_student
from pipeline.files import exclusive
from pipeline.loader import Batch, BatchLoader, default_workers
from pipeline.loss import build_loss
from pipeline.metrics import Fidelity, fidelity
from pipeline.models import SCRATCH, BuiltEncoder, build_encoder
from pipeline.optim import build_optimizer, learning_rate, set_learning_rate
from pipeline.projector import Projector
from pipeline.run_folder import MetricsLog, RunFolder
from pipeline.runlog import Progress, say, table
from pipeline.sampling import TRAIN, VAL
from pipeline.store import Store
from pipeline.student import Distillation, random_states, restore_random_states
from pipeline.units import format_seconds

LOG_EVERY = 10
"""Steps between fetches of the losses from the device, so that the device need not wait at every step."""


@dataclass(frozen=True)
class Trained:
    """What stage two did.

    Attributes:
        run: the run directory.
        num_steps: steps of the whole run.
        num_new_steps: steps that this process did.
        before, after: held-out figures before the first step and after the last, if rows are held out.
        seconds: of this process's training.
    """

    run: RunFolder
    num_steps: int
    num_new_steps: int
    before: dict[str, float] | None
    after: dict[str, float] | None
    seconds: float


@dataclass
class Run:
    """All that the training loop works with."""

    config: TrainConfig
    store: Store
    rows: StoredRows
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    batch_size: int
    distillation: Distillation
    optimizer: torch.optim.Optimizer
    workers: int

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of an epoch."""
        return len(self.train_rows) // self.batch_size

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs


def train_student(store: Store, out: Path, config: TrainConfig) -> Trained:
    """Train, or continue to train, in the run directory `out`; export the student at the end.

    Raises:
        G2LError: an unfinished or damaged store, another configuration than the run was started with, ...; checkpoints
        are
            safe, and the same command continues.
    """
    pending = store.pending_shards()
    if pending:
        raise StoreError(f"{store.folder} is not finished: {len(pending)} of {store.num_shards} shards are missing. "
                         "Run extract-teacher again")  # fmt: skip
    device = choose_device(config.device)
    keep_freed_memory(device)
    device = distributed.join_group(device)
    folder, leader = RunFolder(out), distributed.is_leader()
    with exclusive(out, "g2l train-student") if leader else nullcontext():
        use_deterministic_kernels(config.deterministic)
        student = build_encoder(config.student, config.weights, store.patch_px, seed=config.seed)
        if leader:
            folder.start_or_continue(run_identity(store, student, config))
        distributed.wait_for_all()
        run = prepare_run(store, student, config, device)
        started = time.monotonic()
        num_new_steps = run_epochs(run, folder)
        seconds = time.monotonic() - started
        vals = [line for line in folder.metrics() if line["kind"] == "val"]
        before, after = (held_out(vals[0]), held_out(vals[-1])) if vals else (None, None)
        if leader:
            draw_curves(folder.metrics(), folder.curves_path)
            card = model_card(run_summary(run, student, before, after))
            write_student(folder.student, student.module.model, student.spec, run.distillation.projector, card)
        distributed.wait_for_all()
    distributed.leave_group()
    return Trained(folder, run.num_steps, num_new_steps, before, after, seconds)


def run_identity(store: Store, student: BuiltEncoder, config: TrainConfig) -> dict[str, Any]:
    """What a run is started from and continued under only; options that change no byte are left out."""
    options = {name: value for name, value in config.record().items() if name not in IDENTITY_FREE}
    return {
        "store": store.content_hash(),
        "plan": store.attributes["plan_hash"],
        "teacher": store.spec.teacher,
        "student": student.record(),
        "options": options,
        "world_size": distributed.world_size(),
    }


def prepare_run(store: Store, student: BuiltEncoder, config: TrainConfig, device: torch.device) -> Run:
    """Choose the rows, and build projector and optimizer.

    Raises:
        ConfigError: too few rows to train on.
    """
    train_rows, val_rows = store.ok_rows(TRAIN), store.ok_rows(VAL)
    if len(train_rows) < 2:
        raise ConfigError(f"{store.folder} has {len(train_rows)} rows to train on")
    batch_size, world = min(config.batch_size, len(train_rows)), distributed.world_size()
    if batch_size < config.batch_size:
        say(f"note: batches of {batch_size}, for there are no more rows to train on")
    if batch_size % world:
        raise ConfigError(
            f"a batch of {batch_size} does not divide among {world} processes; choose another --batch-size"
        )
    if len(val_rows) < 2:
        say("warning: no rows are held out, so nothing will be known of how well the student stands in")
        val_rows = val_rows[:0]
    keys = row_keys(val_rows, config.seed, 0, "validation")
    val_rows = np.sort(val_rows[np.argsort(keys, kind="stable")[: config.val_rows]])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        projector = Projector(student.spec.width, store.width)
    mean, var = teacher_statistics(store, TRAIN)
    projector.teacher_norm.set_statistics(torch.from_numpy(mean), torch.from_numpy(var))
    distillation = Distillation(student, projector.to(device), device, choose_precision(config.precision, device))
    student.module.to(device)
    return Run(
        config=config,
        store=store,
        rows=StoredRows(store, config.slides_root),
        train_rows=train_rows,
        val_rows=val_rows,
        batch_size=batch_size,
        distillation=distillation,
        optimizer=build_optimizer(distillation.modules(), config.lr, config.weight_decay),
        workers=config.workers or default_workers(),
    )


def run_epochs(run: Run, folder: RunFolder) -> int:
    """The training loop, from the last checkpoint on; returns how many steps were done here."""
    config = run.config
    checkpoint = load_last_checkpoint(folder.checkpoints)
    torch.manual_seed(config.seed)
    first = 0
    if checkpoint is not None:
        first = checkpoint["step"]
        run.distillation.load_state(checkpoint)
        run.optimizer.load_state_dict(checkpoint["optimizer"])
        restore_random_states(checkpoint["random"])
    metrics_path = folder.metrics_path if distributed.is_leader() else None
    log = MetricsLog(metrics_path, checkpoint["metrics_bytes"] if checkpoint else 0)
    try:
        with Progress("training", run.num_steps, "steps", done=first) as progress:
            if first == 0:
                validate(run, log, step=0, epoch=0)
                save(run, folder, log, 0)
            for epoch in range(first // run.steps_per_epoch, config.epochs):
                done = train_epoch(run, folder, log, progress, epoch, max(first, epoch * run.steps_per_epoch))
                if (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs:
                    validate(run, log, step=done, epoch=epoch + 1)
                save(run, folder, log, done)
                if distributed.is_leader():
                    draw_curves(folder.metrics(), folder.curves_path)
    finally:
        log.close()
    return run.num_steps - first


def train_epoch(run: Run, folder: RunFolder, log: MetricsLog, progress: Progress, epoch: int, step: int) -> int:
    """The steps of one epoch from `step` on; returns the number of the next step."""
    config, distillation = run.config, run.distillation
    loss_of = build_loss(config.loss, config.alpha)
    order = epoch_order(run.train_rows, config.seed, epoch)
    reader = run.rows.reader(config.seed, epoch, config.augment)
    share = run.batch_size // distributed.world_size()
    mine = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    loader = BatchLoader(reader.read, patch_px=run.store.patch_px, batch_size=share, workers=run.workers,
                         device=distillation.device)  # fmt: skip
    waiting: list[tuple[int, float, Tensor, Tensor]] = []
    distillation.train()
    with loader:
        first = step - epoch * run.steps_per_epoch
        for batch in loader.batches(rows[mine] for rows in batches_of(order, run.batch_size, first)):
            lr = learning_rate(step, run.num_steps, config.lr, config.warmup)
            set_learning_rate(run.optimizer, lr)
            loss, norm = train_step(distillation, batch, loss_of, run.optimizer, config.clip)
            step += 1
            waiting.append((step, lr, loss, norm))
            at_end = step == (epoch + 1) * run.steps_per_epoch
            at_checkpoint = step % config.checkpoint_every == 0 and not at_end
            if len(waiting) == LOG_EVERY or at_checkpoint or at_end:
                write_steps(log, waiting, epoch, progress)
            if at_checkpoint:
                save(run, folder, log, step)
            progress.step()
    return step


def train_step(
    distillation: Distillation,
    batch: Batch[NDArray[np.float32]],
    loss_of: Any,
    optimizer: torch.optim.Optimizer,
    clip: float,
) -> tuple[Tensor, Tensor]:
    """One step on one batch; returns loss and gradient norm, on the device."""
    pixels = batch.pixels_on(distillation.device)
    teacher = torch.from_numpy(np.stack(batch.results)).to(distillation.device, non_blocking=True)
    loss = loss_of(*distillation.projector(distillation.embed(pixels), teacher))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = distillation.parameters()
    distributed.average_gradients(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    return loss.detach(), norm.detach()


def write_steps(
    log: MetricsLog, waiting: list[tuple[int, float, Tensor, Tensor]], epoch: int, progress: Progress
) -> None:
    """Fetch the waiting losses and write a line for each.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    losses = torch.stack([loss for _, _, loss, _ in waiting]).tolist()
    norms = torch.stack([norm for _, _, _, norm in waiting]).tolist()
    for (step, lr, _, _), loss, norm in zip(waiting, losses, norms, strict=True):
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss of step {step} is {loss}")
        log.append({"kind": "step", "step": step, "epoch": epoch, "loss": loss, "lr": lr, "grad_norm": norm})
    progress.note(epoch=epoch + 1, loss=losses[-1], lr=waiting[-1][1])
    waiting.clear()


def save(run: Run, folder: RunFolder, log: MetricsLog, step: int) -> None:
    """Checkpoint after `step` steps: all that the next step depends on, and how far the metrics had come."""
    if not distributed.is_leader():
        return
    content = run.distillation.state() | {
        "step": step,
        "optimizer": run.optimizer.state_dict(),
        "random": random_states(),
        "metrics_bytes": log.sync(),
    }
    save_checkpoint(folder.checkpoints, step, content)


@torch.inference_mode()
def validate(run: Run, log: MetricsLog, *, step: int, epoch: int) -> Fidelity | None:
    """Score the held-out rows, without augmentation, and write a line; nothing when none are held out.

    Of several processes the first does it for all.
    """
    if not len(run.val_rows) or not distributed.is_leader():
        return None
    with distributed.alone():
        figures, loss = score_held_out(run)
    log.append({"kind": "val", "step": step, "epoch": epoch, "loss": loss, **figures.record()})
    return figures


def score_held_out(run: Run) -> tuple[Fidelity, float]:
    """Held-out figures, and the mean loss of full batches."""
    distillation, config = run.distillation, run.config
    distillation.train(False)
    batch_size = min(run.batch_size, len(run.val_rows))
    loader = BatchLoader(run.rows.read, patch_px=run.store.patch_px, batch_size=batch_size, workers=run.workers,
                         device=distillation.device)  # fmt: skip
    rows = run.val_rows.tolist()
    students, teachers = [], []
    with loader:
        for batch in loader.batches(rows[i : i + batch_size] for i in range(0, len(rows), batch_size)):
            students.append(distillation.embed(batch.pixels_on(distillation.device)))
            teachers.append(torch.from_numpy(np.stack(batch.results)).to(distillation.device))
    student, teacher = torch.cat(students), torch.cat(teachers)
    projected = distillation.projector.standardised(student)
    standardised = distillation.projector.teacher_norm.standardise(teacher)
    loss_of = build_loss(config.loss, config.alpha)
    whole = range(
        0, len(rows) - batch_size + 1, batch_size
    )  # the log-sum depends on the batch's size: full batches only
    losses = [float(loss_of(projected[i : i + batch_size], standardised[i : i + batch_size])) for i in whole]
    return fidelity(student, projected, teacher, standardised), float(np.mean(losses))


def held_out(line: dict[str, Any]) -> dict[str, float]:
    """The held-out figures of a metrics line."""
    return {name: value for name, value in line.items() if name not in ("kind", "step", "epoch")}


def run_summary(
    run: Run, student: BuiltEncoder, before: dict[str, float] | None, after: dict[str, float] | None
) -> dict[str, Any]:
    """All that the model card says."""
    plan, slide_of_row = run.store.plan, run.store.plan.slide_of_row()
    train_slides = {int(i) for i in np.unique(slide_of_row[run.train_rows])}
    facts = {
        "mpp": plan.config.mpp,
        "plan_hash": plan.hash,
        "content_hash": run.store.content_hash(),
        "train_rows": len(run.train_rows),
        "train_slides": len(train_slides),
        "train_cases": len({plan.slides[i].case_id for i in train_slides}),
        "val_rows": len(run.store.ok_rows(VAL)),
        "val_slides": len(np.unique(slide_of_row[run.store.ok_rows(VAL)])),
    }
    config = {k: v for k, v in run.config.record().items() if k not in ("slides_root", "weights")}
    return {
        "student": student.record(),
        "teacher": run.store.spec.teacher,
        "store": facts,
        "config": config,
        "fidelity_before": before,
        "fidelity_after": after,
        "steps": run.num_steps,
        "versions": versions(),
        "scratch": student.weights == SCRATCH,
    }


def report(trained: Trained) -> str:
    """What was done, in words."""
    lines = [f"{trained.run.folder}: {trained.num_steps:,} steps, the student is in {trained.run.student}"]
    if trained.num_new_steps:
        each = trained.seconds / trained.num_new_steps
        lines.append(f"{trained.num_new_steps:,} steps in {format_seconds(trained.seconds)}, {each * 1000:.0f} ms each")
    else:
        lines.append("nothing was left to do")
    if trained.before and trained.after:
        names = [name for name in trained.after if name != "rows"]
        rows = [(name.replace("_", " "), f"{trained.before[name]:.4f}", f"{trained.after[name]:.4f}") for name in names]
        lines.append(table(rows, (f"on {trained.after['rows']:,} held-out patches", "before", "after"), right=(1, 2)))
    return "\n".join(lines)
