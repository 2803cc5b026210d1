"""The table of recipes; without torch."""

from typing import Any

from pipeline.base.console import table
from pipeline.config.base import Config
from pipeline.config.recipes import RECIPES, value_words
from pipeline.config.stages import ExtractConfig, PlanConfig, TrainConfig

COMMAND_CONFIGS: dict[str, type[Config]] = {
    "plan": PlanConfig,
    "extract-teacher": ExtractConfig,
    "train-student": TrainConfig,
}
"""The commands that take a recipe, and their options."""


def recipes_table() -> str:
    """All options that a recipe sets: a row each, with the value in every recipe, and where the paper's is from."""
    rows = []
    for command, config in COMMAND_CONFIGS.items():
        for name in config.model_fields:
            choices = {recipe: options[command].get(name) for recipe, options in RECIPES.items()}
            if any(choices.values()):
                default = value_words(config.model_fields[name].default)
                values = [value_words(choice.value) if choice else default for choice in choices.values()]
                rows.append((command, "--" + name.replace("_", "-"), *values, _source(choices)))
    header = ("command", "option", *RECIPES, "source of the paper's value")
    return (
        f"{table(rows, header)}\n\n--recipe NAME sets the values of a recipe; flags and --config override single ones. "
        "docs/paper.md says how the paper was read."
    )


def _source(choices: dict[str, Any]) -> str:
    """Who says so in the recipe of the paper, and why."""
    choice = choices["paper"]
    if choice is None:
        return "not set"
    return f"{choice.source}: {choice.why}" if choice.why else choice.source
