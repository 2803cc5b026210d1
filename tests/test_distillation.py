"""Student and projectors as one: a weighted sum of losses, saved and restored together."""

import pytest
import torch
from support.stores import make_patches

from pipeline.base.loader import Batch
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_loss, build_projectors
from pipeline.encoders.build import build_encoder
from pipeline.loss import log_sum_loss
from stages.train_student import train_step

WIDTH = 7
"""Of the second teacher's embedding."""


def test_the_loss_is_the_weighted_sum_of_log_sums() -> None:
    student = build_encoder("test_vit", SCRATCH, 64)
    projectors = build_projectors(student.spec.width, [12, WIDTH], 0)
    alone = build_projectors(student.spec.width, [12], 0)[0]
    assert torch.equal(alone.linear.weight, projectors[0].linear.weight)
    heads = (Head("first", projectors[0], 0.75), Head("second", projectors[1], 0.25))
    distillation = Distillation(student, heads, torch.device("cpu"), "float32")
    distillation.train()
    pixels = torch.from_numpy(make_patches(6, 64))
    teachers = torch.randn(6, 12 + WIDTH, generator=torch.Generator().manual_seed(0))
    embedding = distillation.embed(pixels)
    parts = (teachers[:, :12], teachers[:, 12:])
    losses = [log_sum_loss(*p(embedding, part)).item() for p, part in zip(projectors, parts, strict=True)]
    before = [p.linear.weight.detach().clone() for p in projectors]
    batch = Batch(range(6), pixels, list(teachers.numpy()))
    optimizer = torch.optim.SGD(distillation.parameters(), lr=0.1)
    loss, _ = train_step(distillation, batch, build_loss("log-sum", 4.0), optimizer, clip=1.0)
    assert loss.item() == pytest.approx(0.75 * losses[0] + 0.25 * losses[1], rel=1e-6)
    assert all(not torch.equal(p.linear.weight, old) for p, old in zip(projectors, before, strict=True))
