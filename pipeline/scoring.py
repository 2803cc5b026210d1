"""How a student stands on held-out rows: they are embedded, projected and compared with the teacher."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.dataset import StoredRows
from pipeline.loader import BatchLoader
from pipeline.loss import build_loss
from pipeline.metrics import Fidelity, fidelity
from pipeline.student import Distillation

CALIBRATION_ROWS = 1024
"""Rows that the projection's statistics are taken from before the first step. Our choice: a mean to 3 %."""


def embed_rows(
    distillation: Distillation, rows: StoredRows, chosen: Sequence[int], *, batch_size: int, workers: int
) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's embeddings of the `chosen` rows, without augmentation: (N, S) and (N, T)."""
    size = min(batch_size, len(chosen))
    loader = BatchLoader(rows.read, patch_px=rows.patch_px, batch_size=size, workers=workers,
                         device=distillation.device)  # fmt: skip
    students, teachers = [], []
    with loader:
        for batch in loader.batches(chosen[i : i + size] for i in range(0, len(chosen), size)):
            students.append(distillation.embed(batch.pixels_on(distillation.device)))
            teachers.append(torch.from_numpy(np.stack(batch.results)).to(distillation.device))
    return torch.cat(students), torch.cat(teachers)


@torch.no_grad()
def calibrate(
    distillation: Distillation, rows: StoredRows, chosen: Sequence[int], *, batch_size: int, workers: int
) -> None:
    """Give the projection of an untrained student the statistics that it has on some rows to train on.

    Figures before the first step are then of a standardised projection, as those after it are. Training starts its
    running statistics anew.
    """
    distillation.train(False)
    some = list(chosen[:: max(1, len(chosen) // CALIBRATION_ROWS)])
    student, _ = embed_rows(distillation, rows, some, batch_size=batch_size, workers=workers)
    projected = distillation.projector.project(student)
    distillation.projector.student_norm.set_statistics(projected.mean(0), projected.var(0))


@torch.inference_mode()
def score_rows(
    distillation: Distillation,
    rows: StoredRows,
    chosen: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    loss: str,
    alpha: float,
) -> tuple[Fidelity, float]:
    """Figures of the `chosen` rows without augmentation, and their loss as that of a training batch.

    In evaluation mode, with running statistics in place of a batch's. The loss is the mean over full batches; where the
    rows are fewer than a batch, the log-sum, which grows with the log of a batch's rows, is scaled up to one.
    """
    distillation.train(False)
    size = min(batch_size, len(chosen))
    student, teacher = embed_rows(distillation, rows, chosen, batch_size=batch_size, workers=workers)
    projected = distillation.projector.standardised(student)
    standardised = distillation.projector.teacher_norm.standardise(teacher)
    loss_of = build_loss(loss, alpha)
    starts = range(0, len(chosen) - size + 1, size)
    losses = [float(loss_of(projected[i : i + size], standardised[i : i + size])) for i in starts]
    scaling = math.log(batch_size / size) if loss == "log-sum" else 0.0
    return fidelity(student, projected, teacher, standardised), float(np.mean(losses)) + scaling
