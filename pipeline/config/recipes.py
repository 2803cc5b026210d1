"""Recipes: named sets of options for `plan`, `extract-teacher` and `train-student`. Pure.

A recipe is a table of values and nothing more: a flag and the `--config` table win over it, and it wins over the
defaults. `g2l recipes` lists them, docs/paper.md says where each value is from. To add an option to a recipe, add a
line here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator

from pipeline.config.base import RECIPE, Config, OneOf, option

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


def lower_case(name: Any) -> Any:
    """The name of a recipe as the table has it; what is no text stays as it is."""
    return name.lower() if isinstance(name, str) else name


RecipeName = Annotated[str | None, OneOf(RECIPES.keys), BeforeValidator(lower_case)]
"""Type of the option `--recipe`: a name in any capitals."""


def recipe_values(recipe: Any, command: str) -> dict[str, Any]:
    """The options that a recipe sets for a command, by name; empty for what is no recipe, such as `None`: the
    configuration refuses a name that it does not know.
    """
    name = lower_case(recipe)
    choices = RECIPES[name].get(command, {}) if isinstance(name, str) and name in RECIPES else {}
    return {name: choice.value for name, choice in choices.items()}


def with_recipe(config: type[C], options: dict[str, Any], command: str) -> C:
    """Build the configuration of a command; options that are not given come from the recipe that they name.

    Raises:
        ConfigError: a value is wrong.
    """
    return config.build(recipe_values(options.get(RECIPE), command) | options)


@dataclass(frozen=True)
class Departure:
    """An option whose value is not the recipe's.

    Attributes:
        command: the stage that it is an option of.
        option: its name, as in a TOML file.
        recipe: the recipe's value.
        used: the value that the stage was run with; `None` for an option that was off.
    """

    command: str
    option: str
    recipe: Any
    used: Any

    def words(self) -> str:
        """The departure as a user would type it."""
        return f"--{self.option.replace('_', '-')} {value_words(self.used)}, not {value_words(self.recipe)}"


def departures(recipe: str, command: str, used: Mapping[str, Any]) -> list[Departure]:
    """Where the resolved options of a command are not those of a recipe, in the recipe's order.

    Args:
        used: values by option; those that are not in it are not looked at.
    """
    wanted = recipe_values(recipe, command)
    return [
        Departure(command, name, value, used[name])
        for name, value in wanted.items()
        if name in used and used[name] != value
    ]


def departures_of_views(recipe: str, num_views: int, strength: str | None, *, fresh: bool = False) -> list[Departure]:
    """The same of the views of a store, which `extract-teacher` has embedded.

    Args:
        num_views: of each patch, the patch itself included.
        strength: of the views; `None` where the store names none, whose views are mild.
        fresh: whether each epoch shows a view of its own, whatever their number is.
    """
    used: dict[str, Any] = {} if fresh else {"views": num_views}
    if num_views > 1 or fresh:
        used["views_strength"] = strength or "mild"
    return departures(recipe, "extract-teacher", used)


def departures_note(recipe: str, departed: Sequence[Departure]) -> str:
    """The note to a user who names a recipe that the stages before did not follow."""
    listing = "; ".join(f"{each.command} {each.words()}" for each in departed)
    return f"note: --recipe {recipe}, but the stages before were run otherwise: {listing}"


def value_words(value: Any) -> str:
    """A value as a flag takes it; "not set" for an option that is off."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def recipe_option() -> Any:
    """Define the option `--recipe`. What it sets is compared by value, so its name decides nothing."""
    return option(
        None,
        description="Named set of options; flags and --config override single ones. `g2l recipes` lists them [none].",
        decides="nothing",
    )
