"""What an option decides, and where it is written, is said once, at the option; numbers are finite."""

import math
import re
from pathlib import Path
from typing import Annotated

import pytest
import torch

from pipeline.base.errors import ConfigError
from pipeline.config import stages, studies, tools
from pipeline.config.base import Config, OneOf, differences, option
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.config.studies import AblateConfig, CurveConfig
from pipeline.config.tools import EmbedConfig, ImportConfig
from pipeline.evaluate.options.config import evaluate_config
from pipeline.public_sets import options

RECORDED = (
    PlanConfig,
    ExtractConfig,
    TrainConfig,
    ImportConfig,
    EmbedConfig,
    evaluate_config(),
    AblateConfig,
    CurveConfig,
)
"""Configurations of commands whose output is continued or made again."""


@pytest.mark.parametrize("config", RECORDED)
def test_every_option_says_what_it_decides(config: type[Config]) -> None:
    for name in config.model_fields:
        assert config.says(name, "decides") in ("value", "effect", "nothing"), name
        assert all(isinstance(config.says(name, of), bool) for of in ("stored", "in_card", "in_plan", "added"))


@pytest.mark.parametrize("config", RECORDED)
def test_how_the_work_is_done_decides_nothing(config: type[Config]) -> None:
    """A run goes on with other threads and on another card; a seed always counts."""
    for name in {"workers", "device", "retry_failures", "max_failures"} & config.model_fields.keys():
        if (config, name) != (PlanConfig, "device"):
            assert config.says(name, "decides") == "nothing", name
    if "seed" in config.model_fields:
        assert config.says("seed", "decides") == "value"


def test_records_leave_out_what_is_for_one_call_and_hold_absolute_paths() -> None:
    config = ExtractConfig(teacher="t", weights=Path("w.pt"), retry_failures=True, workers=3)
    stored = config.stored()
    assert "retry_failures" not in stored
    assert stored["workers"] == 3
    assert Path(stored["weights"]).is_absolute()


def test_a_card_tells_no_path_of_the_machine() -> None:
    config = TrainConfig(student="s", weights="/home/someone/w.pt", slides_root=Path("/home/someone/slides"))
    told = config.for_card()
    assert "someone" not in str(told)
    assert told["alpha"] == 4.0


def test_one_of_a_registry_follows_the_registry() -> None:
    words = {"one": 1, "two": 2}
    mark = OneOf(words.keys)
    assert mark.check("two") == "two"
    with pytest.raises(ValueError, match="'one' or 'two'"):
        mark.check("three")
    words["three"] = 3
    assert mark.check("three") == "three"


def test_an_option_needs_a_default_or_is_required() -> None:
    class Some(Config):
        wanted: int = option(description="Wanted.")
        free: int = option(1, description="Free.", decides="nothing")

    assert Some.model_fields["wanted"].is_required()
    assert Some(wanted=2).deciding() == {"wanted": 2}


class Newer(Config):
    """Options of an earlier version, and one that it lacked."""

    recipe: str | None = option(None, description="", decides="nothing")
    seed: int = option(0, description="")
    window: int = option(100, description="", added=True)


def test_an_option_that_earlier_versions_lacked_is_recorded_where_it_changes_something() -> None:
    assert Newer().record() == Newer().deciding() == Newer(window=100).record() == {"seed": 0}
    assert Newer(window=7).record() == Newer(window=7).deciding() == {"seed": 0, "window": 7}
    assert Newer.build(Newer(window=7).record()) == Newer(window=7)


def test_the_record_of_a_recipe_has_all_values_and_decides_the_same() -> None:
    named = Newer(recipe="r")
    assert named.record() == named.stored() == named.for_card() == {"recipe": "r", "seed": 0, "window": 100}
    assert named.deciding() == Newer().deciding()


class Changed(Config):
    """An option that earlier versions lacked, and whose default is no longer what they did."""

    recipe: str | None = option(None, description="", decides="nothing")
    by: str = option("new", description="", added=True, earlier="old")


def test_a_record_without_an_option_means_what_earlier_versions_did() -> None:
    assert (Changed().record(), Changed().deciding()) == ({"by": "new"}, {"by": "new"})
    assert (Changed(by="old").record(), Changed(by="old").deciding()) == ({}, {})
    for by in ("old", "new"):
        assert Changed.from_record(Changed(by=by).record()).by == by
        assert Changed.from_record(Changed(recipe="r", by=by).record()).by == by
        assert Changed.build(Changed(by=by).stored()).by == by  # what `--config` reads
    assert (Changed().by, Changed.from_record({}).by) == ("new", "old")


def test_a_word_of_a_registry_may_be_off() -> None:
    class Chosen(Config):
        word: Annotated[str | None, OneOf(lambda: ["a", "b"])] = option(None, description="")

    assert Chosen().word is None
    assert Chosen.build({"word": "b"}).word == "b"
    with pytest.raises(ConfigError, match="word: Input should be 'a' or 'b'"):
        Chosen.build({"word": "c"})


def float_options() -> list[tuple[type[Config], str]]:
    """Every option of every configuration that is a number with a fraction, or a list of such."""
    kinds: list[type[Config]] = [evaluate_config()]
    for module in (stages, studies, tools, options):
        kinds += [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Config)]
    return [
        (kind, name)
        for kind in dict.fromkeys(kinds)
        for name, field in kind.model_fields.items()
        if "float" in re.findall(r"\w+", str(field.annotation))
    ]


def test_the_options_that_are_fractions_are_found() -> None:
    assert {"lr", "teacher_weight", "mpp", "probe_c", "level"} <= {name for _, name in float_options()}


@pytest.mark.parametrize("word", ["inf", "-inf", "nan", math.inf, math.nan])
@pytest.mark.parametrize(("kind", "name"), float_options())
def test_every_fraction_must_be_finite(kind: type[Config], name: str, word: str | float) -> None:
    value = [word] if "list[" in str(kind.model_fields[name].annotation) else word
    with pytest.raises(ConfigError, match=rf"{name}(\.0)?: Input should be a finite number"):
        kind.build({name: value})


def test_what_a_record_leaves_unsaid_is_named_in_a_difference() -> None:
    config, unsaid = PlanConfig(annotation_origin="slide", seed=3), PlanConfig.unsaid()
    lines = differences(PlanConfig().deciding(), config.deciding(), unsaid)
    assert lines == ["annotation_origin: 'auto' -> 'slide'", "seed: 0 -> 3"]
    within = differences({"options": PlanConfig().deciding()}, {"options": config.deciding()}, {"options": unsaid})
    assert within == [f"options.{line}" for line in lines]


def test_a_value_of_many_lines_is_told_by_its_first() -> None:
    """Such as a model where its name is wanted."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"student: .* \(got Sequential\(\)$"):
        TrainConfig.build({"student": model})


@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_no_numbers(value: bool) -> None:
    """Python takes them for 1 and 0."""
    for name in ("min_tissue", "patches_per_slide", "seed"):
        with pytest.raises(ConfigError, match=rf"{name}: Input should be a number, not true or false \(got {value}\)"):
            PlanConfig.build({name: value})
    assert PlanConfig.build({"min_tissue": value}, is_record=True).min_tissue == value  # of an earlier version


def test_what_may_be_true_or_false_may_be() -> None:
    for value in (True, False):
        config = ExtractConfig.build({"teacher": "uni", "patch_qc": value})
        assert config.patch_qc is value
