"""Schedules and weight decay groups."""

import itertools
import math

import pytest
import timm
import torch
from torch import nn

from pipeline.config.stages import TrainConfig
from pipeline.training.optim import (
    FINAL_LR,
    annealed_weight_decay,
    build_optimizer,
    learning_rate,
    set_learning_rate,
    set_schedules,
    set_weight_decay,
)


def test_schedule_rises_linearly_then_falls_as_a_cosine() -> None:
    rates = [learning_rate(step, 100, 2.0, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * (FINAL_LR + (1 - FINAL_LR) / 2))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    expected = 2.0 * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert rates[-1] == pytest.approx(expected)


@pytest.mark.parametrize(("num_steps", "warmup"), [(1, 0.0), (1, 0.9), (2, 0.5), (7, 0.0), (7, 0.99)])
def test_short_schedules_are_sound(num_steps: int, warmup: float) -> None:
    rates = [learning_rate(step, num_steps, 1.0, warmup) for step in range(num_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1)


def test_vectors_tokens_and_positions_are_not_decayed() -> None:
    model = timm.create_model("test_vit", num_classes=0, img_size=32, reg_tokens=2)
    wrapped = nn.ModuleDict({"inner": model})
    optimizer = build_optimizer([wrapped, nn.Linear(4, 3)], 1e-3, 0.1)
    decayed, free = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for name, parameter in model.named_parameters():
        expected = parameter.ndim > 1 and not name.endswith(("pos_embed", "cls_token", "reg_token"))
        assert (id(parameter) in decayed) == expected, name
        assert (id(parameter) in free) != expected, name
    assert {name for name, _ in model.named_parameters()} >= {"pos_embed", "cls_token", "reg_token"}
    assert len(decayed) + len(free) == len(list(model.parameters())) + 2


def test_frozen_parameters_are_left_out() -> None:
    linear = nn.Linear(4, 3)
    linear.bias.requires_grad_(False)
    optimizer = build_optimizer([linear], 1e-3, 0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 0]


def test_one_step_is_adamws() -> None:
    """Adam's first step moves by the learning rate against the gradient's sign; decay shrinks matrices only."""
    linear = nn.Linear(3, 2)
    before = [p.detach().clone() for p in linear.parameters()]
    optimizer = build_optimizer([linear], 1.0, 0.5)
    set_learning_rate(optimizer, 0.01)
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(linear.weight.data, before[0] * (1 - 0.01 * 0.5) - 0.01)
    torch.testing.assert_close(linear.bias.data, before[1] - 0.01)


@pytest.mark.parametrize("final", [0.0, 0.01, 1.0])
def test_a_cosine_without_warm_up_is_torchs(final: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40, eta_min=2.0 * final)
    for step in range(40):
        assert learning_rate(step, 40, 2.0, 0.0, final) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        assert annealed_weight_decay(step, 40, 2.0, 0.0, final) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_weight_decay_is_whole_during_the_warm_up_and_falls_with_the_rate_afterwards() -> None:
    for step in range(100):
        decay, rate = annealed_weight_decay(step, 100, 0.05, 0.1, 0.2), learning_rate(step, 100, 1.0, 0.1, 0.2)
        assert decay == pytest.approx(0.05 if step < 10 else 0.05 * rate)
    assert annealed_weight_decay(0, 1, 0.05, 0.9, 0.0) == 0.05  # all of it is warm-up


def test_only_what_decays_is_annealed() -> None:
    optimizer = build_optimizer([nn.Linear(3, 2)], 1.0, 0.5)
    set_weight_decay(optimizer, 0.25)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]


def test_the_default_of_the_option_is_the_schedules() -> None:
    assert TrainConfig.model_fields["final_lr"].default == FINAL_LR


def test_both_schedules_are_set_at_a_step() -> None:
    optimizer = build_optimizer([nn.Linear(2, 2)], 1.0, 0.5)
    config = TrainConfig(student="s", lr=0.1, weight_decay=0.5, weight_decay_schedule="cosine", warmup=0.0)
    assert set_schedules(optimizer, config, 5, 10) == learning_rate(5, 10, 0.1, 0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [learning_rate(5, 10, 0.1, 0.0)] * 2
    assert [group["weight_decay"] for group in optimizer.param_groups] == [
        annealed_weight_decay(5, 10, 0.5, 0.0, config.final_lr),
        0.0,
    ]
    set_schedules(optimizer, config.model_copy(update={"weight_decay_schedule": "constant"}), 9, 10)
    assert optimizer.param_groups[0]["weight_decay"] == annealed_weight_decay(5, 10, 0.5, 0.0, config.final_lr)
