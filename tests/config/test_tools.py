"""Options of importing and embedding: bounds, and records."""

from pathlib import Path
from typing import Any

import pytest
from support.options import assert_refused

from pipeline.base.errors import ConfigError
from pipeline.config import feature_tools
from pipeline.config.base import Config
from pipeline.config.feature_tools import FeatureTool
from pipeline.config.tools import EmbedConfig, ImportConfig

IMPORT = {"slides_root": Path("s"), "teacher": "t"}


@pytest.mark.parametrize(
    ("config", "values", "words"),
    [
        (ImportConfig, {}, r"slides_root: missing; it must be given\n  teacher: missing; it must be given"),
        (ImportConfig, IMPORT | {"min_cosine": 1.01}, "min_cosine: "),
        (ImportConfig, IMPORT | {"val_fraction": 1.0}, "val_fraction: "),
        (ImportConfig, IMPORT | {"mpp": 0}, "mpp: "),
        (EmbedConfig, {}, r"layout: missing; it must be given \(one of trident, "),
        (EmbedConfig, {"layout": "tridnet"}, r"got 'tridnet'\) \(did you mean trident\?"),
        (EmbedConfig, {"layout": "pt", "min_tissue": -0.1}, "min_tissue: "),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(config: type[Config], values: dict[str, Any], words: str) -> None:
    assert_refused(config, values, words)


def test_a_layout_is_one_that_a_tool_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the list as it is when the option is given."""
    monkeypatch.setattr(feature_tools, "TOOLS", (FeatureTool("New", "none", "new"), FeatureTool("Read", "none", None)))
    assert EmbedConfig(layout="new").layout == "new"
    with pytest.raises(ConfigError, match="Input should be 'new'"):
        EmbedConfig.build({"layout": "trident"})


@pytest.mark.parametrize(
    "config", [ImportConfig(**IMPORT), EmbedConfig(layout="pt")], ids=lambda config: type(config).__name__
)
def test_a_record_builds_the_same_configuration(config: Config) -> None:
    assert type(config).build(config.record()) == config
