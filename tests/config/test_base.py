"""What an option decides, and where it is written, is said once, at the option."""

from pathlib import Path
from typing import Any

import pytest
from support.stores import make_store, plain_vit, train_config

from pipeline.config.base import Config, OneOf, option
from pipeline.config.stages import ExtractConfig, PlanConfig, TrainConfig
from pipeline.config.tools import EmbedConfig, EvaluateConfig, ImportConfig
from pipeline.training.run_folder import run_identity

RECORDED = (PlanConfig, ExtractConfig, TrainConfig, ImportConfig, EmbedConfig, EvaluateConfig)
"""Configurations of commands whose output is continued or made again."""
OTHER_VALUES: dict[str, Any] = {
    "weights": "w.pt", "teacher": ["other"], "teacher_weight": [1.0], "epochs": 7, "batch_size": 24, "lr": 0.5,
    "weight_decay": 0.5, "warmup": 0.5, "clip": 5.0, "loss": "mse", "alpha": 2.0, "augment": "none",
    "checkpoint_every": 77, "keep": "best", "val_every": 3, "val_rows": 99, "device": "mps", "precision": "bfloat16",
    "workers": 5, "deterministic": False, "slides_root": Path("elsewhere"), "seed": 9,
}  # fmt: skip
"""Of TrainConfig, beside the student."""


@pytest.mark.parametrize("config", RECORDED)
def test_every_option_says_what_it_decides(config: type[Config]) -> None:
    for name in config.model_fields:
        assert config.says(name, "decides") in ("value", "effect", "nothing"), name
        assert isinstance(config.says(name, "stored"), bool)


@pytest.mark.parametrize("config", RECORDED)
def test_how_the_work_is_done_decides_nothing(config: type[Config]) -> None:
    """A run goes on with other threads and on another card; a seed always counts."""
    for name in {"workers", "device", "retry_failures", "max_failures"} & config.model_fields.keys():
        if (config, name) != (PlanConfig, "device"):
            assert config.says(name, "decides") == "nothing", name
    if "seed" in config.model_fields:
        assert config.says("seed", "decides") == "value"


def test_the_examples_are_all_options_of_training() -> None:
    assert OTHER_VALUES.keys() == TrainConfig.model_fields.keys() - {"student"}
    assert all(TrainConfig.model_fields[name].default != value for name, value in OTHER_VALUES.items())


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_run_is_continued_under_the_values_that_decide(name: str, tmp_path: Path) -> None:
    teacher, student = make_store(tmp_path / "store.zarr").first, plain_vit(tmp_path / "vit")
    before = train_config(student, weights="scratch")
    after = before.model_copy(update={name: OTHER_VALUES[name]})
    identities = [run_identity(teacher, {}, config, "float32", 1) for config in (before, after)]
    decides = TrainConfig.says(name, "decides") == "value" and name != "precision"  # what it came to stands there
    assert (identities[0] != identities[1]) == decides


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
