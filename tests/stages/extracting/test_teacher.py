"""The teacher is built on its device, and what is odd of it is said."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.extraction import PATCH_PX, TEACHER, plan_cohort, write_cohort

from pipeline.base.errors import EncoderError
from pipeline.cohort.plan import Plan
from pipeline.config.stages import ExtractConfig
from stages.extracting.teacher import start_teacher


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_cohort(write_cohort(tmp_path_factory.mktemp("slides")))


def test_it_is_built_on_the_device_from_the_weights(plan: Plan, weights: Path) -> None:
    config = ExtractConfig.build({"teacher": TEACHER, "weights": weights, "device": "cpu"})
    running = start_teacher(config, plan)
    assert (running.device, running.precision, running.weights) == (torch.device("cpu"), "float32", weights)
    parameters = list(running.encoder.module.parameters())
    assert not running.encoder.module.training
    assert {parameter.device.type for parameter in parameters} == {"cpu"}
    pixels = torch.zeros(1, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    assert running.encoder.module(pixels).shape == (1, running.encoder.spec.width)


def test_patches_of_another_size_than_the_teacher_takes_are_refused(plan: Plan) -> None:
    other = replace(plan, config=plan.config.model_copy(update={"patch_px": 96}))
    config = ExtractConfig.build({"teacher": "hibou-l", "weights": "scratch", "device": "cpu"})
    with pytest.raises(EncoderError, match="takes patches of 224 px, these have 96"):
        start_teacher(config, other)
