"""Signatures and help list the options."""

import inspect

import pytest

import g2l
from g2l.signatures import with_options_shown
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExportConfig, TrainConfig


@pytest.mark.parametrize(
    ("function", "config"), [(g2l.plan, PlanConfig), (g2l.train_student, TrainConfig), (g2l.export, ExportConfig)]
)
def test_every_option_is_shown_with_its_default_and_help(function: object, config: type[PlanConfig]) -> None:
    assert callable(function)
    parameters = inspect.signature(function).parameters
    words = " ".join((function.__doc__ or "").split())
    for name, field in config.model_fields.items():
        shown = parameters[name]
        assert shown.kind is inspect.Parameter.KEYWORD_ONLY
        assert shown.default == (inspect.Parameter.empty if field.is_required() else field.default)
        assert f"{name}: {' '.join((field.description or '').split())}" in words
    assert "options" not in parameters


def test_an_option_of_two_configurations_is_that_of_the_first() -> None:
    @with_options_shown(TrainConfig, PlanConfig)
    def function(**options: object) -> None:
        """Do nothing."""

    assert inspect.signature(function).parameters["seed"].default == TrainConfig.model_fields["seed"].default
    assert (function.__doc__ or "").count("\n    seed: ") == 1
    assert (function.__doc__ or "").startswith("Do nothing.\n\nOptions:\n")
