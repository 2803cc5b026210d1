"""Recipes: named sets of options for `plan`, `extract-teacher` and `train-student`. Pure.

A recipe is a table of values and nothing more: a flag and the `--config` table win over it, and it wins over the
defaults. `g2l recipes` lists them, docs/paper.md says where each value is from. To add an option to a recipe, add a
line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.config.base import RECIPE, Config, option

C = TypeVar("C", bound=Config)
THE_PAPER = "the paper"
AS_READ = "the paper, as we read it"
OUR_CHOICE = "our choice"


@dataclass(frozen=True)
class RecipeValue:
    """A value that a recipe gives an option.

    Attributes:
        value: as in a TOML file.
        source: who says so: `THE_PAPER`; `AS_READ` where its words can be read in more than one way; `OUR_CHOICE` where
            it is silent.
        why: reason of a reading or a choice, or a word on what the paper says.
    """

    value: Any
    source: str
    why: str = ""


Recipe = Mapping[str, Mapping[str, RecipeValue]]
"""The options that a recipe sets, by command."""


def _said(value: Any, word: str = "") -> RecipeValue:
    return RecipeValue(value, THE_PAPER, word)


def _as_read(value: Any, why: str) -> RecipeValue:
    return RecipeValue(value, AS_READ, why)


def _chosen(value: Any, why: str) -> RecipeValue:
    return RecipeValue(value, OUR_CHOICE, why)


PAPER: Recipe = {
    "plan": {
        "patch_px": _said(224),
        "tile_px": _said(256, "tiles that do not overlap, of which each view is a crop"),
        "mpp": _chosen(0.5, "the resolution that the teacher was trained at"),
        "patches_per_slide": _chosen(1000, "the paper's number is not known"),
        "min_tissue": _chosen(0.5, "as in a repository of the same authors that follows the paper"),
    },
    "extract-teacher": {
        "views": _chosen(11, "the patch itself, to score on, and a view for each of ten epochs; see below"),
        "views_strength": _as_read("paper", "crop, flips, colours, hue, blur; the blur's width is our choice"),
    },
    "train-student": {
        "epochs": _chosen(10, "the paper's number is not known; the early stop comes first, see below"),
        "batch_size": _as_read(32, "over all GPUs; if it is each one's share of three, it is 96"),
        "lr": _said(1e-4),
        "final_lr": _chosen(0.0, "a cosine without a stated end, as torch's CosineAnnealingLR"),
        "weight_decay": _said(0.05),
        "weight_decay_schedule": _said("cosine"),
        "warmup": _chosen(0.0, "the paper mentions none"),
        "clip": _chosen(0.0, "the paper mentions none"),
        "early_stop": _as_read("consecutive", "counted in total, a noisy loss would end the run almost at once"),
        "early_stop_window": _said(100),
        "early_stop_patience": _said(10),
        "loss": _said("log-sum"),
        "alpha": _said(4.0),
        "augment": _said("none", "teacher and student see one and the same view"),
        "use_plain_view": _said(False, "every view of the paper's is drawn"),
    },
}
"""G2L (arXiv 2510.11176), as far as it could be established: docs/paper.md."""

DEFAULT: Recipe = {"plan": {}, "extract-teacher": {}, "train-student": {}}
"""Sets nothing: all options have their defaults."""

RECIPES: dict[str, Recipe] = {"default": DEFAULT, "paper": PAPER}


def recipe_values(recipe: Any, command: str) -> dict[str, Any]:
    """The options that a recipe sets for a command, by name; empty for what is no recipe, such as `None`: the
    configuration refuses a name that it does not know.
    """
    choices = RECIPES[recipe].get(command, {}) if isinstance(recipe, str) and recipe in RECIPES else {}
    return {name: choice.value for name, choice in choices.items()}


def with_recipe(config: type[C], options: dict[str, Any], command: str) -> C:
    """Build the configuration of a command; options that are not given come from the recipe that they name.

    Raises:
        ConfigError: a value is wrong.
    """
    return config.build(recipe_values(options.get(RECIPE), command) | options)


def departures(recipe: str, *, has_tiles: bool, num_views: int, strength: str | None) -> list[str]:
    """What the patches of a plan or store lack of the views of a recipe, in words; empty if nothing, or if the recipe
    says nothing of views. A recipe of `train-student` cannot make up for it.

    Args:
        has_tiles: whether the plan has tiles, which views are crops of.
        num_views: views of each patch.
        strength: of the views; `None` where the store names none.
    """
    views = recipe_values(recipe, "extract-teacher")
    lacks = []
    if "tile_px" in recipe_values(recipe, "plan") and not has_tiles:
        lacks.append("the plan has no tiles (--tile-px), so that views do not crop")
    if "views" in views and num_views < 2:
        lacks.append("each patch has one view only, the patch itself")
    elif "views_strength" in views and strength != views["views_strength"]:
        lacks.append(f"views have the strength {strength or 'mild'}, not {views['views_strength']}")
    return lacks


def departures_note(recipe: str, lacks: list[str]) -> str:
    """The note to a user who names a recipe that the stages before did not follow."""
    return f"note: --recipe {recipe}, but the stages before were run otherwise: {'; '.join(lacks)}"


def recipe_option() -> Any:
    """Define the option `--recipe`. What it sets is compared by value, so its name decides nothing."""
    return option(
        None,
        description="Named set of options; flags and --config override single ones. `g2l recipes` lists them [none].",
        decides="nothing",
    )
