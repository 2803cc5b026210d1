"""The table of recipes; without torch."""

from typing import Any

from pipeline.base.console import table
from pipeline.config.base import Config
from pipeline.config.plan import PlanConfig
from pipeline.config.recipes import RECIPES, recipe_values, value_words
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.training.early_stop import EarlyStop

COMMAND_CONFIGS: dict[str, type[Config]] = {
    "plan": PlanConfig,
    "extract-teacher": ExtractConfig,
    "train-student": TrainConfig,
}
"""The commands that take a recipe, and their options."""
COHORT_SLIDES = 1000
"""About as many slides as the paper's cohorts have."""


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
        "docs/paper.md says how the paper was read.\n\n"
        f"{_on_the_early_stop()}"
    )


def _on_the_early_stop() -> str:
    """How soon the paper's early stop ends a run by chance, beside the steps of a cohort as large as the paper's."""
    train = recipe_values("paper", "train-student")
    stop = EarlyStop(train["early_stop"], train["early_stop_window"], train["early_stop_patience"])
    patches = COHORT_SLIDES * recipe_values("paper", "plan")["patches_per_slide"]
    steps = round(patches * (1 - PlanConfig().val_fraction)) // train["batch_size"]
    return (
        f"The paper's early stop ends a run by chance alone after about {stop.steps_by_chance():,.0f} steps, once the "
        f"loss falls little against its scatter. {COHORT_SLIDES:,} slides are {steps:,} steps an epoch, "
        f"{steps * train['epochs']:,} in all: such a run probably ends within its first epoch. To make the views of an "
        "epoch only when training comes to it, give extract-teacher `--views 2 --views-per-epoch fresh` and "
        "train-student `--views-per-epoch fresh`. To train all epochs, give train-student `--early-stop off`."
    )


def _source(choices: dict[str, Any]) -> str:
    """Who says so in the recipe of the paper, and why."""
    choice = choices["paper"]
    if choice is None:
        return "not set"
    return f"{choice.source}: {choice.why}" if choice.why else choice.source
