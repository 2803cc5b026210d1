"""How a student stands on held-out rows: they are embedded, projected and compared with the teacher."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.dataset import StoredRows
from pipeline.loader import BatchLoader
from pipeline.loss import build_loss
from pipeline.metrics import Fidelity, fidelity
from pipeline.models import SCRATCH
from pipeline.runlog import table
from pipeline.student import Distillation

CALIBRATION_ROWS = 1024
"""Rows that statistics are taken from before the first step. Our choice: a mean to 3 %."""


def embed_rows(
    distillation: Distillation, rows: StoredRows, chosen: Sequence[int], *, batch_size: int, workers: int
) -> tuple[Tensor, Tensor]:
    """The student's and the teachers' embeddings of the `chosen` rows, without augmentation: (N, S) and (N, T)."""
    size = min(batch_size, len(chosen))
    loader = BatchLoader(rows.read, patch_px=rows.patch_px, batch_size=size, workers=workers,
                         device=distillation.device)  # fmt: skip
    students, teachers = [], []
    with loader:
        for batch in loader.batches(chosen[i : i + size] for i in range(0, len(chosen), size)):
            students.append(distillation.embed(batch.pixels_on(distillation.device)))
            teachers.append(torch.from_numpy(np.stack(batch.results)).to(distillation.device))
    return torch.cat(students), torch.cat(teachers)


def gains_table(before: dict[str, float], after: dict[str, float], of: str = "") -> str:
    """Held-out figures before and after, for the terminal; `of` says which teacher's."""
    names = [name for name in after if name != "rows"]
    rows = [(name.replace("_", " "), f"{before[name]:.4f}", f"{after[name]:.4f}") for name in names]
    return table(rows, (f"on {after['rows']:,} held-out patches{of}", "before", "after"), right=(1, 2))


@contextmanager
def calibrated(
    distillation: Distillation, rows: StoredRows, chosen: Sequence[int], *, batch_size: int, workers: int
) -> Iterator[None]:
    """Inside, a student that has not been trained yet has the running statistics that its weights give.

    Training starts the projection's anew, and before it they are no statistics but zeros and ones: figures before the
    first step would be of a projection without any spread. A student from scratch has none in its own batch
    normalisation either; those are put back when the block ends. `chosen` are rows to train on.
    """
    student = distillation.student
    norms = [m for m in student.module.modules() if isinstance(m, _BatchNorm)] if student.weights == SCRATCH else []
    kept = [(norm, norm.momentum, {k: v.clone() for k, v in norm.state_dict().items()}) for norm in norms]
    some = list(chosen[:: max(1, len(chosen) // CALIBRATION_ROWS)])
    distillation.train(False)
    with torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over batches
            norm.train()
        if norms:
            embed_rows(distillation, rows, some, batch_size=batch_size, workers=workers)
        distillation.train(False)
        embeddings, _ = embed_rows(distillation, rows, some, batch_size=batch_size, workers=workers)
        for projector in distillation.projectors:
            projected = projector.project(embeddings)
            projector.student_norm.set_statistics(projected.mean(0), projected.var(0))
    yield
    for norm, momentum, state in kept:
        norm.momentum = momentum
        norm.load_state_dict(state)


@torch.inference_mode()
def score_teachers(
    distillation: Distillation,
    rows: StoredRows,
    chosen: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    loss: str,
    alpha: float,
) -> list[tuple[Fidelity, float]]:
    """For each teacher, figures of the `chosen` rows without augmentation, and their loss as that of a training batch.

    In evaluation mode, with running statistics in place of a batch's. The loss is the mean over full batches; where the
    rows are fewer than a batch, the log-sum, which grows with the log of a batch's rows, is scaled up to one.
    """
    distillation.train(False)
    size = min(batch_size, len(chosen))
    student, teachers = embed_rows(distillation, rows, chosen, batch_size=batch_size, workers=workers)
    loss_of = build_loss(loss, alpha)
    starts = range(0, len(chosen) - size + 1, size)
    scaling = math.log(batch_size / size) if loss == "log-sum" else 0.0
    scores = []
    for projector, teacher in zip(distillation.projectors, distillation.by_teacher(teachers), strict=True):
        projected = projector.standardised(student)
        standardised = projector.teacher_norm.standardise(teacher)
        losses = [float(loss_of(projected[i : i + size], standardised[i : i + size])) for i in starts]
        scores.append((fidelity(student, projected, teacher, standardised), float(np.mean(losses)) + scaling))
    return scores
