"""The recipe that an output was made by, and what departs from it, for `g2l inspect`."""

from collections.abc import Sequence

from pipeline.base.errors import ConfigError
from pipeline.base.outside import is_there, read_toml, reading
from pipeline.cohort.plan import Plan
from pipeline.config.base import RECIPE
from pipeline.config.recipes import RECIPES, Departure, departures, departures_of_views
from pipeline.store.store import Store


def recipe_rows(named: tuple[str, Sequence[Departure]] | None) -> list[tuple[str, object]]:
    """A recipe, and what departs from it, an option a line; nothing without a recipe."""
    if named is None:
        return []
    name, departed = named
    return [("recipe", name), *(("not the recipe's", f"{each.command} {each.words()}") for each in departed)]


def recipe_of_plan(plan: Plan) -> list[tuple[str, object]]:
    """The recipe that a plan was made by, and what departs from it as this version has it."""
    recipe = plan.config.recipe
    return recipe_rows((recipe, departures(recipe, "plan", plan.config.model_dump(mode="json")))) if recipe else []


def recipe_of_store(store: Store) -> list[tuple[str, object]]:
    """The same of the teacher's embeddings and their plan, by the name in the record of the options; of the plan alone
    where no such record is at hand, as of a store in a bucket.
    """
    path = store.first.folder / "config.toml"
    recipe = None
    if is_there(path):
        with reading(path, "damaged", ConfigError):
            recipe = read_toml(path).get("extract-teacher", {}).get(RECIPE)
    if not (isinstance(recipe, str) and recipe in RECIPES):
        return recipe_of_plan(store.plan)
    plan = departures(recipe, "plan", store.plan.config.model_dump(mode="json"))
    views = store.first.views_at_hand
    fresh = bool(store.first.rounds)
    return recipe_rows(
        (recipe, [*plan, *departures_of_views(recipe, views.count, store.first.views_strength, fresh=fresh)])
    )
