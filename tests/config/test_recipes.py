"""Recipes: every option that one names exists, takes its value, and is recorded; each value has a source."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.places import ROOT
from support.stores import make_store, plain_vit, plan_of_rows, train_config

from pipeline.base.errors import ConfigError
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.base import Config
from pipeline.config.plan import PlanConfig
from pipeline.config.recipes import (
    AS_READ,
    OUR_CHOICE,
    RECIPES,
    THE_PAPER,
    departures,
    departures_note,
    departures_of_views,
    recipe_values,
    value_words,
    with_recipe,
)
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.store.teachers import choose_teachers
from pipeline.training.identity import run_identity

COMMANDS: dict[str, tuple[type[Config], dict[str, Any]]] = {
    "plan": (PlanConfig, {}),
    "extract-teacher": (ExtractConfig, {"teacher": "t"}),
    "train-student": (TrainConfig, {"student": "s"}),
}
"""The commands that take a recipe, with the options that they need."""
EVERY = [(recipe, command) for recipe in RECIPES for command in COMMANDS]


@pytest.mark.parametrize(("recipe", "command"), EVERY)
def test_every_option_of_a_recipe_exists_and_takes_its_value(recipe: str, command: str) -> None:
    config, needed = COMMANDS[command]
    values = recipe_values(recipe, command)
    assert values.keys() <= config.model_fields.keys()
    built = config.build(needed | values)
    assert {name: getattr(built, name) for name in values} == values
    assert None not in values.values(), "a record cannot say that an option is off, and the recipe would return"


@pytest.mark.parametrize(("recipe", "command"), EVERY)
def test_a_record_of_a_recipe_is_whole(recipe: str, command: str) -> None:
    """Read again it gives the same, whichever single options differ from the recipe: its own default, for example."""
    config, needed = COMMANDS[command]
    values = recipe_values(recipe, command)
    built = config.build(needed | values | {"recipe": recipe})
    off = {"tile_px": PlanConfig().patch_px, "views": 1, "views_strength": "mild"}  # where the default is no value
    for changed in ({}, *({name: off.get(name, config.model_fields[name].default)} for name in values)):
        one = built.model_copy(update=changed)
        assert config.build(values | one.record()) == one


def test_recipes_name_no_other_commands() -> None:
    assert all(options.keys() == COMMANDS.keys() for options in RECIPES.values())


@pytest.mark.parametrize(("recipe", "command"), EVERY)
def test_every_value_has_a_source_and_every_choice_or_reading_a_reason(recipe: str, command: str) -> None:
    for name, choice in RECIPES[recipe][command].items():
        assert choice.source in (THE_PAPER, AS_READ, OUR_CHOICE), name
        assert choice.why or choice.source == THE_PAPER, name


def test_what_the_paper_says_is_in_its_recipe() -> None:
    """The published values: arXiv 2510.11176, as docs/paper.md has them."""
    said = {name: c.value for name, c in RECIPES["paper"]["train-student"].items() if c.source == THE_PAPER}
    assert said == {
        "lr": 1e-4,
        "weight_decay": 0.05,
        "weight_decay_schedule": "cosine",
        "early_stop_window": 100,
        "early_stop_patience": 10,
        "loss": "log-sum",
        "alpha": 4.0,
        "augment": "none",
        "use_plain_view": False,
    }


def test_what_the_paper_leaves_open_is_said_to_be_read() -> None:
    """In the recipe, and in the row of docs/paper.md that names the option."""
    read = {
        name: c.value for options in RECIPES["paper"].values() for name, c in options.items() if c.source == AS_READ
    }
    assert read == {"views_strength": "paper", "batch_size": 32, "early_stop": "consecutive"}
    lines = (ROOT / "docs" / "paper.md").read_text().splitlines()
    for name in read:
        rows = [line for line in lines if line.startswith("|") and f"`--{name.replace('_', '-')}`" in line]
        assert any("our reading" in row or "our choice" in row for row in rows), name


def test_the_default_sets_nothing() -> None:
    assert all(not recipe_values("default", command) for command in COMMANDS)


@pytest.mark.parametrize("name", [None, "papr", 3, ["paper"]])
def test_what_is_no_recipe_sets_nothing_and_is_refused_by_name(name: Any) -> None:
    assert recipe_values(name, "plan") == {}
    assert recipe_values("paper", "evaluate") == {}
    if name is not None:
        with pytest.raises(ConfigError, match="recipe: Input should be"):
            PlanConfig.build({"recipe": name})


def test_a_run_does_not_depend_on_how_its_options_were_given(tmp_path: Path) -> None:
    """By a recipe or one by one; and a recipe without effect is the run of an earlier version."""
    teachers = choose_teachers(make_store(tmp_path / "store.zarr"), None, None)
    student = plain_vit(tmp_path / "vit")
    plain, named = train_config(student), train_config(student, recipe="default")
    values = recipe_values("paper", "train-student")
    single, by_recipe = train_config(student, **values), train_config(student, **values, recipe="paper")
    identities = [run_identity(teachers, {}, each.deciding(), 1) for each in (plain, named, single, by_recipe)]
    assert identities[0] == identities[1] != identities[2] == identities[3]
    assert not {"final_lr", "early_stop", "recipe"} & identities[1]["options"].keys()


def test_a_plan_keeps_the_name_of_its_recipe_and_its_hash(tmp_path: Path) -> None:
    plain = plan_of_rows()
    named = replace(plain, config=plain.config.model_copy(update={"recipe": "paper"}))
    write_plan(named, tmp_path / "plan.h5")
    read = read_plan(tmp_path / "plan.h5")
    assert read.config.recipe == "paper"
    assert read.hash == plain.hash


@pytest.mark.parametrize(("recipe", "command"), EVERY)
def test_every_departure_from_a_recipe_is_listed_and_nothing_else(recipe: str, command: str) -> None:
    config, needed = COMMANDS[command]
    values = recipe_values(recipe, command)
    built = config.build(needed | values | {"seed": 5} if "seed" in config.model_fields else needed | values)
    assert departures(recipe, command, built.model_dump(mode="json")) == []
    for name, value in values.items():
        (found,) = departures(recipe, command, {**built.model_dump(mode="json"), name: None})
        assert (found.command, found.option, found.recipe, found.used) == (command, name, value, None)
        assert found.words() == f"--{name.replace('_', '-')} not set, not {value_words(value)}"
    assert departures(recipe, command, {}) == []


def test_a_departure_is_said_as_it_is_typed() -> None:
    used = {"mpp": 0.25, "patches_per_slide": 1000}
    assert [each.words() for each in departures("paper", "plan", used)] == ["--mpp 0.25, not 0.5"]
    (plain,) = departures("paper", "train-student", {"use_plain_view": True, "lr": 1e-4, "batch_size": 32})
    assert plain.words() == "--use-plain-view on, not off"


def test_views_that_a_store_lacks_are_departures() -> None:
    assert departures_of_views("paper", 11, "paper") == departures_of_views("default", 1, None) == []
    assert [each.words() for each in departures_of_views("paper", 4, None)] == [
        "--views 4, not 11",
        "--views-strength mild, not paper",
    ]
    one = departures_of_views("paper", 1, None)
    assert [each.words() for each in one] == ["--views 1, not 11"]
    assert departures_of_views("paper", 3, "paper", fresh=True) == []
    assert departures_note("paper", one).endswith("run otherwise: extract-teacher --views 1, not 11")


@pytest.mark.parametrize("name", ["Paper", "PAPER", "paper"])
def test_a_recipe_is_named_in_any_capitals(name: str) -> None:
    built = with_recipe(PlanConfig, {"recipe": name}, "plan")
    assert (built.recipe, built.tile_px) == ("paper", 256)
