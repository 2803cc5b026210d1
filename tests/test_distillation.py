"""Student and projectors as one: a weighted sum of losses, saved and restored together."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stores import make_patches
from support.students import disturb

from pipeline.base.loader import Batch
from pipeline.config.losses import LOSSES
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_loss, build_projectors, random_states, restore_random_states
from pipeline.encoders.build import build_encoder
from pipeline.loss import log_sum_loss
from pipeline.training.step.train_step import train_step

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
    losses = [log_sum_loss(*p(embedding, part), 4.0).item() for p, part in zip(projectors, parts, strict=True)]
    before = [p.linear.weight.detach().clone() for p in projectors]
    batch = Batch(range(6), pixels, list(teachers.numpy()))
    optimizer = torch.optim.SGD(distillation.parameters(), lr=0.1)
    loss, _ = train_step(distillation, batch, build_loss("log-sum", 4.0), optimizer, clip=1.0)
    assert loss.item() == pytest.approx(0.75 * losses[0] + 0.25 * losses[1], rel=1e-6)
    assert all(not torch.equal(p.linear.weight, old) for p, old in zip(projectors, before, strict=True))


CPU = torch.device("cpu")


def build(*widths: int, seed: int = 0) -> Distillation:
    """A tiny student with a head for each teacher's width; other weights for a seed above 0."""
    student = build_encoder("test_vit", SCRATCH, 64)
    if seed:
        disturb(student.module.model)
    projectors = build_projectors(student.spec.width, widths, seed)
    return Distillation(student, tuple(Head(f"t{i}", p) for i, p in enumerate(projectors)), CPU, "float32")


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_each_head_gets_its_teacher_s_columns(widths: list[int]) -> None:
    student: Any = None  # not used
    heads = tuple(Head(f"t{i}", p) for i, p in enumerate(build_projectors(3, widths, 0)))
    parts = [torch.full((2, width), float(i)) for i, width in enumerate(widths)]
    split = list(Distillation(student, heads, CPU, "float32").by_head(torch.cat(parts, dim=1)))
    assert [head for head, _ in split] == list(heads)
    assert all(torch.equal(part, expected) for (_, part), expected in zip(split, parts, strict=True))


def test_columns_of_no_teacher_are_an_error() -> None:
    student: Any = None
    (projector,) = build_projectors(3, [4], 0)
    with pytest.raises(RuntimeError, match="split"):
        list(Distillation(student, (Head("t", projector),), CPU, "float32").by_head(torch.zeros(2, 5)))


def test_a_restored_state_gives_the_same_embeddings_and_projections() -> None:
    saved, other = build(4, 6), build(4, 6, seed=1)
    assert list(saved.state()) == ["student", "projector", "projector-2"]
    pixels = torch.from_numpy(make_patches(3, 64))
    for distillation in (saved, other):
        distillation.train(False)
    with torch.inference_mode():
        expected = saved.embed(pixels)
        assert not torch.allclose(other.embed(pixels), expected)
        other.load_state(saved.state())
        assert torch.equal(other.embed(pixels), expected)
        for ours, theirs in zip(saved.projectors, other.projectors, strict=True):
            assert torch.equal(theirs.as_teacher(expected), ours.as_teacher(expected))
    with pytest.raises(KeyError, match="projector-2"):
        other.load_state(build(4).state())


def test_all_modules_train_and_all_parameters_are_theirs() -> None:
    distillation = build(4, 6)
    for mode in (True, False):
        distillation.train(mode)
        assert {module.training for module in distillation.modules()} == {mode}
    student = [p for p in distillation.student.module.parameters() if p.requires_grad]
    assert len(distillation.parameters()) == len(student) + 2 * 2  # weight and bias of each projector
    student[0].requires_grad_(False)
    assert len(distillation.parameters()) == len(student) - 1 + 2 * 2


def test_projectors_are_drawn_from_their_seed_and_disturb_no_other_draw() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (build_projectors(3, [4], seed)[0].linear.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_numbers_go_on_where_they_were() -> None:
    states = random_states(CPU)
    expected = torch.rand(4)
    torch.rand(9)
    restore_random_states(states | {"cuda": torch.zeros(1, dtype=torch.uint8)}, CPU)  # of another accelerator
    assert torch.equal(torch.rand(4), expected)


def test_a_loss_is_built_by_its_name_alone() -> None:
    projected, teacher = torch.ones(4, 2), torch.zeros(4, 2)
    assert float(build_loss("log-sum", 2.0)(3 * projected, teacher)) == pytest.approx(float(np.log(8 * 9)), rel=1e-5)
    for name, entry in LOSSES.items():
        losses = [float(build_loss(name, alpha)(2 * projected, teacher + 1e-3)) for alpha in (2.0, 4.0)]
        assert (losses[0] != losses[1]) == entry.takes_alpha
    with pytest.raises(KeyError):
        build_loss("none", 4.0)
