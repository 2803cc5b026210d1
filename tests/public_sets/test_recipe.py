"""Recipes: every one is complete, and names what exists."""

import inspect
import os
import re
from pathlib import Path

import pytest
from support.places import ROOT

from pipeline.base.errors import ConfigError
from pipeline.evaluate.options.config import evaluate_config
from pipeline.public_sets.measured import MEASURED
from pipeline.public_sets.published import published_values
from pipeline.public_sets.recipe import LEFT_OUT, SetRecipe, find_recipe, left_out_sets, set_recipes
from pipeline.public_sets.whole import why_not_whole

WANTED = {"tils", "idc", "breakhis", "bach", "bracs", "pcam", "gleason", "aggc", "tiger", "chimera", "tp53"}
WANTED |= {"pathorob-camelyon", "pathorob-tcga", "pathorob-tolkach-esca"}
"""The sets of issue 10."""
COUNTS_NOT_KNOWN = {"chimera", "tils-brca", "pathorob-tcga"}
"""Sets of which no source that we saw says how much they hold."""
each = pytest.mark.parametrize("recipe", set_recipes().values(), ids=set_recipes().keys())


def test_every_set_is_read_or_its_absence_is_explained() -> None:
    assert set_recipes().keys() | left_out_sets().keys() >= WANTED
    assert not set_recipes().keys() & left_out_sets().keys()


@each
def test_a_recipe_is_complete(recipe: SetRecipe) -> None:
    for text in (recipe.title, recipe.about, recipe.terms, recipe.how, recipe.citation):
        assert len(text) > 5
    assert recipe.url.startswith("https://")
    assert "--root" in recipe.how
    parameters = list(inspect.signature(recipe.load_reader()).parameters)
    assert len(parameters) == 3


@each
def test_its_metrics_exist_and_say_why_they_tolerate_what(recipe: SetRecipe) -> None:
    assert recipe.metrics
    assert len({metric.name for metric in recipe.metrics}) == len(recipe.metrics)
    for metric in recipe.metrics:
        assert MEASURED[metric.name].section == recipe.benchmark
        assert 0 < metric.tolerance <= 0.1
        assert len(metric.why) > 5
        assert not metric.reference or any(value.model == metric.reference for value in published_values())


@each
def test_its_options_are_those_of_evaluate(recipe: SetRecipe) -> None:
    assert {recipe.benchmark, *recipe.options} <= evaluate_config().model_fields.keys()
    for name in recipe.options:
        evaluate_config().build({"models": ["a"], name: recipe.options[name]})


def test_a_variant_changes_its_recipe_and_nothing_else() -> None:
    base, variant = find_recipe("breakhis"), find_recipe("breakhis-200x")
    assert (variant.variant_of, base.variant_of) == ("breakhis", "")
    assert (base.reader_options, variant.reader_options) == ({"magnification": "40X"}, {"magnification": "200X"})
    assert (base.citation, base.metrics, base.how) == (variant.citation, variant.metrics, variant.how)
    assert find_recipe("gleason-eva").metrics != find_recipe("gleason").metrics


@each
def test_its_counts_agree_with_each_other(recipe: SetRecipe) -> None:
    counts = recipe.counts
    if counts is None:
        assert recipe.name in COUNTS_NOT_KNOWN
        return
    assert len(counts.source) > 5
    assert counts.total is not None or counts.distinct
    for numbers in counts.by.values():
        assert sum(numbers.values()) == counts.total
    assert set(counts.by) <= {"label", "split"}
    in_title = {int(number.replace(",", "")) for number in re.findall(r"\d+,\d{3}", recipe.title)}
    assert recipe.name == "tp53" or in_title <= {counts.total}  # tp53: of its slides, 15 have no status


def test_a_variant_never_has_the_counts_of_its_recipe() -> None:
    whole, study = find_recipe("tils").counts, find_recipe("tils-brca").counts
    assert whole is not None
    assert study is None
    zooms = [find_recipe(f"breakhis{zoom}").counts for zoom in ("", "-100x", "-200x", "-400x")]
    assert sum(counts.total or 0 for counts in zooms if counts) == 7909


def test_the_counts_of_tp53_are_those_of_the_manifest() -> None:
    recipe = find_recipe("tp53")
    rows = recipe.load_reader()(ROOT / "data_manifests", ROOT, recipe.reader_options).rows
    assert why_not_whole(recipe.counts, rows, 0) == ""
    assert why_not_whole(recipe.counts, rows[1:], 0).startswith("1,118 of 1,119 slides are there; by label: ")


def test_unknown_sets_and_those_left_out_are_named() -> None:
    with pytest.raises(ConfigError, match=r"brekhis: no such public set \(did you mean breakhis"):
        find_recipe("brekhis")
    with pytest.raises(ConfigError, match="aggc cannot be reproduced: AGGC 2022"):
        find_recipe("aggc")


def test_the_recipes_are_those_of_data_manifests() -> None:
    """Package data, so that they are there in any folder; a link shows them beside the manifests."""
    shown, packaged = ROOT / "data_manifests" / "benchmarks", ROOT / "pipeline" / "data" / "benchmarks"
    assert os.path.realpath(shown) == os.path.realpath(packaged)
    assert {path.stem for path in packaged.glob("*.toml")} - {Path(LEFT_OUT).stem} == {
        name for name, recipe in set_recipes().items() if not recipe.variant_of
    }
