"""The options of `g2l evaluate` are those of all benchmarks, flat, in the order of the help; each sees its own part."""

from pathlib import Path
from typing import Any

import pytest
from support.options import assert_refused

from pipeline.config.base import Config, option
from pipeline.evaluate.cost.options import CostOptions
from pipeline.evaluate.options import benchmarks
from pipeline.evaluate.options.config import EvaluateConfig, evaluate_config
from pipeline.evaluate.options.shared import ComparedOptions, RunOptions
from pipeline.evaluate.patch_benchmark.options import PatchOptions


def build(**values: Any) -> EvaluateConfig:
    return evaluate_config().build({"models": ["uni"]} | values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"models": []}, "models: "),
        ({"folds": 1}, "folds: "),
        ({"resamples": 99}, "resamples: "),
        ({"probe_c": 0}, "probe_c: "),
        ({"cost_precisions": ["float8"]}, "cost_precisions: "),
        ({"slide": "x.csv"}, r"did you mean slides\?"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    assert_refused(evaluate_config(), {"models": ["uni"]} | values, words)


def test_options_stand_in_the_order_of_the_help() -> None:
    """Which is that of records and reports, old ones too."""
    assert list(evaluate_config().model_fields) == [
        *("models", "reference"),
        *("store", "teacher", "store_rows", "slides_root"),
        *("patches", "draws"),
        *("slides", "features", "label", "mil_epochs"),
        *("robustness", "ri_k", "margins", "robustness_sweep", "sweep_repeats"),
        *("cost", "cost_batch_sizes", "cost_precisions", "cost_rounds"),
        *("protocol", "probe_c", "knn", "folds", "resamples", "seed"),
        *("images_root", "patch_px", "cache", "batch_size", "precision", "device", "workers", "log"),
    ]
    assert evaluate_config().panels == {
        "models": "What is compared",
        "store": "Fidelity to the teacher",
        "patches": "Patch benchmark",
        "slides": "Slide benchmark",
        "robustness": "Robustness",
        "cost": "Cost",
        "protocol": "Scores of the benchmarks",
        "images_root": "Running",
    }


def test_a_part_has_what_its_class_declares_and_inherits() -> None:
    config = build(patches=Path("p.csv"), knn=7, seed=3, images_root=Path("images"), ri_k=5)
    assert config.part(PatchOptions) == PatchOptions(patches=Path("p.csv"), knn=7, seed=3, images_root=Path("images"))
    assert config.part(ComparedOptions).models == ["uni"]
    assert config.part(CostOptions) == CostOptions()
    assert config.part(RunOptions) == RunOptions()


def test_what_an_option_decides_is_said_at_the_option() -> None:
    config = build(workers=3, cache=Path("c"), batch_size=2, device="cpu", knn=7)
    unsaid = config.record().keys() - config.deciding().keys()
    assert unsaid == {"workers", "cache", "batch_size", "device"}
    assert config.stored().keys() == config.record().keys()


def test_every_part_makes_its_own_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = build(models=["uni@w.pt"], features=["a=features"], store=Path("s.zarr"), cache=Path("c")).absolute()
    assert config.models == [f"uni@{tmp_path}/w.pt"]
    assert config.features == [f"a={tmp_path}/features"]
    assert (config.store, config.cache) == (tmp_path / "s.zarr", tmp_path / "c")


def test_a_record_builds_the_same_configuration() -> None:
    config = build(features=["a=b"], cost_precisions=["float16"], probe_c=0.5)
    assert type(config).build(config.record()) == config


def test_the_class_follows_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate_config() is evaluate_config()
    monkeypatch.setattr(benchmarks, "BENCHMARKS", ("pipeline.evaluate.cost",))
    assert "draws" not in evaluate_config().model_fields
    assert "cost_rounds" in evaluate_config().model_fields


def test_two_benchmarks_cannot_have_an_option_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Config):
        draws: int = option(1, description="Another one.")

    known = benchmarks.options_of

    def options_of(room: str) -> type[Config]:
        return Other if room == "other" else known(room)

    monkeypatch.setattr(benchmarks, "options_of", options_of)
    monkeypatch.setattr(benchmarks, "BENCHMARKS", (*benchmarks.BENCHMARKS, "other"))
    with pytest.raises(AssertionError, match="Other: another part has an option of the same name"):
        evaluate_config()
