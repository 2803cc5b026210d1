"""Score a student on held-out rows: embed, project, compare with the teacher."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.base.draws import RUN_VERSION
from pipeline.base.loader import one_by_one
from pipeline.config.losses import LOSSES
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, build_loss
from pipeline.encoders.embed import read_and_embed
from pipeline.sampling import RowNumbers
from pipeline.training.held_out import VERSION_1
from pipeline.training.linear_map import fit_linear_map
from pipeline.training.rows.reading import StoredRows
from pipeline.training.similarity import explained_variance, fidelity
from pipeline.training.step.room import advice_on_room

CALIBRATION_ROWS = 1024
"""Rows that give the statistics before the first step. Our choice: means to within 3 %."""


SMALLEST_MAP = 3
"""Fewest rows that a linear map can be fitted on."""
MAP_DIGITS = 9
"""Digits kept of the R2 of a fitted map: later ones depend on the threads of the linear algebra library. Our choice."""


def batches_in_order(chosen: Sequence[int], size: int) -> list[Sequence[int]]:
    """Split rows into batches of `size`; the last may be smaller."""
    return [chosen[i : i + size] for i in range(0, len(chosen), size)]


def even_batches(chosen: Sequence[int], size: int) -> list[Sequence[int]]:
    """Split at least two rows into batches of at most `size` whose sizes differ by one at most.

    For statistics, where a small batch would count as much as a full one. No batch has a single row, which has no
    statistics; if needed, one has `size` + 1 rows.
    """
    count = min(-(-len(chosen) // size), len(chosen) // 2)
    ends = [len(chosen) * i // count for i in range(count + 1)]
    return [chosen[start:end] for start, end in itertools.pairwise(ends)]


def embed_for_scores(
    distillation: Distillation,
    rows: StoredRows,
    chosen: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    batches: Iterable[Sequence[int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Embeddings of the `chosen` rows by the student and the teachers, without augmentation: (N, S) and (N, T).

    `batches` are the same rows split into batches; by default full batches in order.
    """
    parts = list(batches or batches_in_order(chosen, min(batch_size, len(chosen))))
    largest = max(map(len, parts))
    students, teachers = [], []
    with read_and_embed(
        distillation.embed,
        one_by_one(rows.read),
        parts,
        distillation.device,
        patch_px=rows.patch_px,
        batch_size=largest,
        workers=workers,
        width=distillation.student.spec.width,
        no_room=advice_on_room(distillation, min(distillation.micro_batch or largest, largest)),
        ahead=rows.read_ahead,
    ) as embedded_batches:
        for embedded in embedded_batches:
            students.append(embedded.embeddings)
            teachers.append(torch.from_numpy(np.stack(embedded.results)))
    return torch.cat(students).to(distillation.device), torch.cat(teachers).to(distillation.device)


@contextmanager
def calibrated(
    distillation: Distillation,
    rows: StoredRows,
    chosen: RowNumbers,
    *,
    batch_size: int,
    workers: int,
    version: int = RUN_VERSION,
) -> Iterator[None]:
    """Inside the block, give an untrained student the running statistics that its weights lead to.

    Before training, the statistics of the projection are placeholders, zeros and ones, so figures before the first step
    would describe a projection of the wrong scale; training starts them anew. A student from scratch has placeholders
    in its own batch normalisation as well; those are restored when the block ends.

    `chosen` are at least two training rows, and `batch_size` is at least two. Runs of version 1 (`draws.RUN_VERSION`)
    use full batches where possible.
    """
    student = distillation.student
    norms = [m for m in student.module.modules() if isinstance(m, _BatchNorm)] if student.weights == SCRATCH else []
    originals = [(norm, norm.momentum, {k: v.clone() for k, v in norm.state_dict().items()}) for norm in norms]
    sample = chosen[:: max(1, len(chosen) // CALIBRATION_ROWS)].tolist()
    batches = batches_in_order(sample, batch_size)
    if version > 1 or len(batches[-1]) < 2:
        batches = even_batches(sample, batch_size)
    distillation.train(False)
    with torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over batches
            norm.train()
        if norms:
            embed_for_scores(distillation, rows, sample, batch_size=batch_size, workers=workers, batches=batches)
        distillation.train(False)
        embeddings, _ = embed_for_scores(distillation, rows, sample, batch_size=batch_size, workers=workers)
        for projector in distillation.projectors:
            projected = projector.project(embeddings)
            projector.student_norm.set_statistics(projected.mean(0), projected.var(0))
    yield
    for norm, momentum, state in originals:
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
    fit_on: Sequence[int] = (),
    version: int = RUN_VERSION,
) -> list[tuple[dict[str, float], float]]:
    """For each teacher, figures and loss on the `chosen` rows, in evaluation mode and without augmentation.

    Figures are named as in `held_out.FIGURES`; runs of version 1 (`draws.RUN_VERSION`) have those of that version. The
    linear map is fitted on the training rows `fit_on`, if there are at least three.

    The loss is comparable to that of a training batch: the mean over full batches. With fewer rows than a batch, a loss
    that grows with the log of the number of rows is scaled up to a full batch.
    """
    distillation.train(False)
    size = min(batch_size, len(chosen))
    student, teachers = embed_for_scores(distillation, rows, chosen, batch_size=batch_size, workers=workers)
    loss_of = build_loss(loss, alpha)
    starts = range(0, len(chosen) - size + 1, size)
    scaling = math.log(batch_size / size) if LOSSES[loss].is_log_of_sum else 0.0
    maps: list[Tensor | None] = [None] * len(distillation.projectors)
    if len(fit_on) >= SMALLEST_MAP and version > 1:
        maps = list(mapped_linearly(distillation, rows, fit_on, student, batch_size=batch_size, workers=workers))
    scores = []
    for (head, teacher), mapped in zip(distillation.by_head(teachers), maps, strict=True):
        projector = head.projector
        projected = projector.standardised(student)
        standardised = projector.teacher_norm.standardise(teacher)
        losses = [float(loss_of(projected[i : i + size], standardised[i : i + size])) for i in starts]
        figures = fidelity(student, projected, teacher, standardised, mapped).record()
        if version < 2:
            figures = figures | {"explained_variance": explained_variance(projected, standardised)}
            figures = {name: figures[name] for name in VERSION_1}
        elif mapped is not None:
            figures["r2_linear"] = round(figures["r2_linear"], MAP_DIGITS)
        scores.append((figures, float(np.mean(losses)) + scaling))
    return scores


def mapped_linearly(
    distillation: Distillation,
    rows: StoredRows,
    fit_on: Sequence[int],
    student: Tensor,
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Tensor]:
    """Map the student's embeddings (N, S) into each teacher's standardised space by the best linear map, fitted on the
    rows `fit_on`: float64 (N, T) on the CPU, a tensor a teacher.
    """
    inputs, teachers = embed_for_scores(distillation, rows, fit_on, batch_size=batch_size, workers=workers)
    fitted_on, mapped = inputs.cpu().numpy(), student.cpu().numpy()
    for head, teacher in distillation.by_head(teachers):
        targets = head.projector.teacher_norm.standardise(teacher).cpu().double().numpy()
        if not (np.isfinite(fitted_on).all() and np.isfinite(mapped).all()):  # diverged: the figures become NaN
            yield torch.full((len(mapped), targets.shape[1]), torch.nan, dtype=torch.float64)
            continue
        yield torch.from_numpy(fit_linear_map(fitted_on, targets, rows.cases(fit_on)).predict(mapped))
