"""Options of importing, embedding and evaluating: bounds, and paths that records hold."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config import feature_tools
from pipeline.config.base import Config
from pipeline.config.feature_tools import FeatureTool
from pipeline.config.tools import EmbedConfig, EvaluateConfig, ImportConfig

IMPORT = {"slides_root": Path("s"), "teacher": "t"}


@pytest.mark.parametrize(
    ("config", "values", "words"),
    [
        (ImportConfig, {}, r"slides_root: Field required\n  teacher: Field required"),
        (ImportConfig, IMPORT | {"min_cosine": 1.01}, "min_cosine: "),
        (ImportConfig, IMPORT | {"val_fraction": 1.0}, "val_fraction: "),
        (ImportConfig, IMPORT | {"mpp": 0}, "mpp: "),
        (EmbedConfig, {}, "layout: Field required"),
        (EmbedConfig, {"layout": "tridnet"}, r"got 'tridnet'\) \(did you mean trident\?"),
        (EmbedConfig, {"layout": "pt", "min_tissue": -0.1}, "min_tissue: "),
        (EvaluateConfig, {"models": []}, "models: "),
        (EvaluateConfig, {"models": ["uni"], "folds": 1}, "folds: "),
        (EvaluateConfig, {"models": ["uni"], "resamples": 99}, "resamples: "),
        (EvaluateConfig, {"models": ["uni"], "probe_c": 0}, "probe_c: "),
        (EvaluateConfig, {"models": ["uni"], "cost_precisions": ["float8"]}, "cost_precisions.0: "),
        (EvaluateConfig, {"models": ["uni"], "slide": "x.csv"}, r"did you mean slides\?"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(config: type[Config], values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"these options are wrong:\n  (.|\n)*{words}"):
        config.build(values)


def test_a_layout_is_one_that_a_tool_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the list as it is when the option is given."""
    monkeypatch.setattr(feature_tools, "TOOLS", (FeatureTool("New", "none", "new"), FeatureTool("Read", "none", None)))
    assert EmbedConfig(layout="new").layout == "new"
    with pytest.raises(ConfigError, match="Input should be 'new'"):
        EmbedConfig.build({"layout": "trident"})


def test_models_and_features_are_recorded_by_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    models = ["uni", "before=run@before", "x=uni@scratch", "uni@w.pt"]
    config = EvaluateConfig(models=models, features=["a=features", "more"], store=Path("s.zarr")).absolute()
    assert config.models == ["uni", f"before={tmp_path}/run@before", "x=uni@scratch", f"uni@{tmp_path}/w.pt"]
    assert config.features == [f"a={tmp_path}/features", f"{tmp_path}/more"]
    assert config.store == tmp_path / "s.zarr"
    assert EvaluateConfig(models=["uni"]).absolute().features is None


@pytest.mark.parametrize(
    "config",
    [ImportConfig(**IMPORT), EmbedConfig(layout="pt"), EvaluateConfig(models=["uni"])],
    ids=lambda config: type(config).__name__,
)
def test_a_record_builds_the_same_configuration(config: Config) -> None:
    assert type(config).build(config.record()) == config
