"""Standardisation against torch's batch normalisation, and the projector's statistics."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.base.errors import EncoderError
from pipeline.projector import MOMENTUM, BatchStandardiser, Projector


def batches(count: int, rows: int = 16, width: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, width, generator=generator) * 3 + torch.arange(width) for _ in range(count)]


def test_equals_torchs_batch_norm_in_value_and_gradient() -> None:
    (values,) = batches(1)
    ours, theirs = BatchStandardiser(5).train(), nn.BatchNorm1d(5, affine=False).train()
    x, y = values.clone().requires_grad_(), values.clone().requires_grad_()
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    a, b = ours(x), theirs(y)
    torch.testing.assert_close(a, b)
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_running_statistics_are_the_mean_of_the_first_ten_batches_then_torchs() -> None:
    ours, plain = BatchStandardiser(5).train(), nn.BatchNorm1d(5, affine=False, momentum=None).train()
    for values in batches(10):
        ours(values), plain(values)
    torch.testing.assert_close(ours.mean, plain.running_mean)
    torch.testing.assert_close(ours.var, plain.running_var)
    moving = nn.BatchNorm1d(5, affine=False, momentum=MOMENTUM).train()
    moving.load_state_dict(plain.state_dict())
    for values in batches(7):
        ours(values), moving(values)
    torch.testing.assert_close(ours.mean, moving.running_mean)
    torch.testing.assert_close(ours.var, moving.running_var)
    torch.testing.assert_close(ours.eval()(values), moving.eval()(values))


def test_statistics_that_are_not_tracked_stay() -> None:
    norm = BatchStandardiser(5, track=False).train()
    norm.set_statistics(torch.arange(5.0), torch.arange(1.0, 6.0))
    norm(batches(1)[0])
    assert torch.equal(norm.mean, torch.arange(5.0))
    assert torch.equal(norm.var, torch.arange(1.0, 6.0))


def test_restore_is_the_inverse_of_standardise() -> None:
    norm = BatchStandardiser(5)
    norm.set_statistics(torch.arange(5.0), torch.tensor([0.0, 1e-3, 1.0, 9.0, 100.0]))
    (values,) = batches(1)
    torch.testing.assert_close(norm.restore(norm.standardise(values)), values, rtol=1e-5, atol=1e-5)


def test_a_constant_dimension_is_harmless() -> None:
    values = torch.full((8, 3), 1234.567)
    standardised = BatchStandardiser(3).train()(values.requires_grad_())
    assert standardised.abs().max() < 0.1
    standardised.square().sum().backward()
    assert torch.isfinite(values.grad).all()


def test_one_row_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="batch size of at least 2"):
        BatchStandardiser(3).train()(torch.ones(1, 3))


def test_widths_may_be_numpys() -> None:
    projector = Projector(np.int64(3), np.uint8(4))
    assert (type(projector.linear.in_features), projector.linear.weight.shape) == (int, (4, 3))


@pytest.mark.parametrize("widths", [("a", 4), (3.5, 4), (-1, 4), (4, 0), (4, None)])
def test_widths_that_are_none_are_refused(widths: Any) -> None:
    with pytest.raises(EncoderError, match="have a dimension of at least 1"):
        Projector(*widths)


def test_statistics_that_are_none_are_refused() -> None:
    norm = BatchStandardiser(3)
    with pytest.raises(ValueError, match=r"statistics are \(2,\) and \(3,\), not \(3,\)"):
        norm.set_statistics(torch.zeros(2), torch.ones(3))
    with pytest.raises(ValueError, match="a variance is negative"):
        norm.set_statistics(torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]))


def test_as_teacher_maps_back_to_the_teachers_space() -> None:
    projector = Projector(4, 3)
    projector.teacher_norm.set_statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 9.0, 0.25]))
    projector.student_norm.set_statistics(torch.tensor([0.5, 0.0, -1.0]), torch.tensor([1.0, 2.0, 3.0]))
    student = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    p = projector.linear(student)
    expected = (p - torch.tensor([0.5, 0.0, -1.0])) / (torch.tensor([1.0, 2.0, 3.0]) + 1e-5).sqrt()
    expected = expected * (torch.tensor([4.0, 9.0, 0.25]) + 1e-5).sqrt() + torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(projector.as_teacher(student), expected)
    evaluated, _ = projector.eval()(student, torch.zeros(7, 3))
    torch.testing.assert_close(evaluated, projector.standardised(student))


def test_a_perfect_linear_student_becomes_the_teacher() -> None:
    """When the projection equals the teacher up to scale and shift, the restored embedding is the teacher's."""
    teacher = batches(1, rows=64)[0]
    student = teacher * 2 - 7
    projector = Projector(5, 5).train()
    with torch.no_grad():
        projector.linear.weight.copy_(torch.eye(5))
        projector.linear.bias.zero_()
    projector.teacher_norm.set_statistics(teacher.mean(0), teacher.var(0))
    projector(student, teacher)  # one batch: the running statistics are its own
    torch.testing.assert_close(projector.as_teacher(student), teacher, rtol=1e-4, atol=1e-3)


def test_state_survives_saving() -> None:
    projector = Projector(4, 5).train()
    for values in batches(3):
        projector(values[:, :4], values)
    copy = Projector(4, 5)
    copy.load_state_dict(projector.state_dict())
    assert int(copy.student_norm.num_batches) == 3
    for values in batches(2):
        first, second = projector(values[:, :4], values), copy.train()(values[:, :4], values)
        assert torch.equal(first[0], second[0])
    assert torch.equal(projector.student_norm.var, copy.student_norm.var)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        ((3, 8), (3, 5), r"teacher's embeddings are \(3, 5\): this projector takes \(B, 4\)"),
        ((3, 8), (3, 1), r"teacher's embeddings are \(3, 1\)"),
        ((3, 8), (2, 4), "no pairs"),
        ((3, 8), (1, 4), "no pairs"),
        ((3, 8), (4,), "no pairs"),
        ((8,), (4,), r"are \(8,\): a batch \(B, S\)"),
        ((2, 3, 8), (2, 3, 4), r"are \(2, 3, 8\): a batch \(B, S\)"),
        ((3, 7), (3, 4), r"student's embeddings are \(3, 7\): this projector takes \(B, 8\)"),
        ((), (3, 4), r"student's embeddings are \(\)"),
    ],
)
def test_embeddings_of_another_width_are_refused(
    student: tuple[int, ...], teacher: tuple[int, ...], words: str, training: bool
) -> None:
    """torch repeats (3, 1) to any width, and standardises each side by itself."""
    projector = Projector(8, 4).train(training)
    with pytest.raises(EncoderError, match=words):
        projector(torch.zeros(student), torch.zeros(teacher))
    assert projector.student_norm.num_batches == 0
    if "student's" in words:
        with pytest.raises(EncoderError, match=words):
            projector.as_teacher(torch.zeros(student))
    with pytest.raises(EncoderError, match=r"a ndarray: give a tensor \(B, 8\)"):
        projector.as_teacher(np.zeros((3, 8)))  # type: ignore[arg-type]
