"""The projector: one linear map from the student's embedding to the teacher's, and the statistics that standardise
both.

G2L, section "Knowledge distillation", after Miles and Mikolajczyk, "Understanding the Role of the Projector in
Knowledge Distillation" (AAAI 2024): a linear projector, and batch normalisation without affine parameters on both
sides. Pure.
"""

import operator

import torch
from torch import Tensor, nn

from pipeline.base.distributed import global_sum, world_size
from pipeline.base.errors import EncoderError

EPSILON = 1e-5
MOMENTUM = 0.1
"""Both are the defaults of torch.nn.BatchNorm1d, as in the authors' code."""


class BatchStandardiser(nn.Module):
    """Batch normalisation without affine parameters, over the whole batch of all processes, in float32.

    Training mode uses the mean and biased variance of the batch, and updates running statistics (unbiased variance, as
    in torch's BatchNorm1d, but starting as the plain mean of the first ten batches instead of from 0 and 1). Evaluation
    mode uses the running statistics.

    forward: (B, D) -> float32 (B, D). Every process must have the same number of rows.

    Raises:
        ValueError: a training batch of fewer than two rows.
    """

    mean: Tensor
    var: Tensor
    num_batches: Tensor

    def __init__(self, width: int, *, track: bool = True) -> None:
        super().__init__()
        self.track = track
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.register_buffer("num_batches", torch.tensor(0))

    def forward(self, values: Tensor) -> Tensor:
        values = values.float()
        if not self.training:
            return self.standardise(values)
        rows = len(values) * world_size()
        if rows < 2:
            size = "one row" if rows else "no rows"
            raise ValueError(f"a batch of {size} has no statistics: use a batch size of at least 2")
        mean = global_sum(values.sum(0)) / rows
        centred = values - mean
        var = global_sum(centred.square().sum(0)) / rows
        if self.track:
            with torch.no_grad():
                self.num_batches += 1
                weight = torch.clamp(1 / self.num_batches, min=MOMENTUM)  # plain mean of the first ten batches
                self.mean.lerp_(mean, weight)
                self.var.lerp_(var * (rows / (rows - 1)), weight)
        return centred * torch.rsqrt(var + EPSILON)

    def standardise(self, values: Tensor) -> Tensor:
        """Standardise (N, D) by the running statistics."""
        return (values.float() - self.mean) * torch.rsqrt(self.var + EPSILON)

    def restore(self, standardised: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return standardised * torch.sqrt(self.var + EPSILON) + self.mean

    def set_statistics(self, mean: Tensor, var: Tensor) -> None:
        """Set the statistics, (D,) each, to known values.

        Raises:
            ValueError: they are of another width, or a variance is negative.
        """
        if mean.shape != self.mean.shape or var.shape != self.var.shape:
            raise ValueError(f"statistics are {tuple(mean.shape)} and {tuple(var.shape)}, not {tuple(self.mean.shape)}")
        if bool((var < 0).any()):
            raise ValueError("a variance is negative")
        self.mean.copy_(mean)
        self.var.copy_(var)


class Projector(nn.Module):
    """Map the student's embedding (B, S) into the teacher's space (B, T).

    The projected side keeps running statistics; the teacher's are computed beforehand from all training rows.
    Everything is in float32, also under autocast.

    forward: (z_s (B, S), z_t (B, T)) -> both standardised, float32 (B, T).

    Raises:
        EncoderError: a width that is no whole number of at least 1; embeddings of another width than the
            projector's, or not as many of the teacher as of the student.
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        student_width, teacher_width = _dimension("student", student_width), _dimension("teacher", teacher_width)
        self.linear = nn.Linear(student_width, teacher_width)
        self.student_norm = BatchStandardiser(teacher_width)
        self.teacher_norm = BatchStandardiser(teacher_width, track=False)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.project(student)
        _require_embeddings("teacher's", teacher, self.linear.out_features)
        if projected.ndim != 2:  # of one row, its dimensions would be taken for rows
            raise EncoderError(f"the student's embeddings are {tuple(student.shape)}: a batch (B, S) is needed")
        if teacher.shape != projected.shape:  # torch would repeat the shorter one
            raise EncoderError(
                f"embeddings of the student {tuple(student.shape)} and of the teacher {tuple(teacher.shape)} are no "
                "pairs"
            )
        return self.student_norm(projected), self.teacher_norm(teacher)

    def project(self, student: Tensor) -> Tensor:
        """(N, S) -> (N, T), not standardised."""
        _require_embeddings("student's", student, self.linear.in_features)
        with torch.autocast(student.device.type, enabled=False):
            projected: Tensor = self.linear(student.float())
        return projected

    def standardised(self, student: Tensor) -> Tensor:
        """(N, S) -> (N, T) in the standardised teacher space, by the running statistics."""
        return self.student_norm.standardise(self.project(student))

    def as_teacher(self, student: Tensor) -> Tensor:
        """(N, S) -> (N, T) in the teacher's original space, as a replacement for its embedding."""
        return self.teacher_norm.restore(self.standardised(student))


def _dimension(whose: str, width: int) -> int:
    """The dimension of embeddings, also one that NumPy or torch counted.

    Raises:
        EncoderError: it is no whole number of at least 1.
    """
    try:
        dimension = operator.index(width)
    except TypeError:
        dimension = 0
    if dimension < 1:
        raise EncoderError(f"{whose}_width={width!r}: the {whose}'s embeddings have a dimension of at least 1")
    return dimension


def _require_embeddings(whose: str, values: Tensor, width: int) -> None:
    """See that values are embeddings of that width. Shapes alone are looked at, so that a GPU is not waited for.

    Raises:
        EncoderError: they are not.
    """
    if not isinstance(values, Tensor):
        raise EncoderError(f"the {whose} embeddings are a {type(values).__name__}: give a tensor (B, {width})")
    if values.ndim < 1 or values.shape[-1] != width:
        raise EncoderError(f"the {whose} embeddings are {tuple(values.shape)}: this projector takes (B, {width})")
