"""The options that stage slides: what they mean, and that no output keeps them."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.base import Config
from pipeline.config.stages import ExtractConfig
from pipeline.config.staging import StageFolder
from pipeline.config.tools import EmbedConfig, ImportConfig

COMMANDS: list[tuple[type[Config], dict[str, Any]]] = [
    (ExtractConfig, {"teacher": "uni"}),
    (ImportConfig, {"teacher": "uni", "slides_root": "s"}),
    (EmbedConfig, {"layout": "pt"}),
]


@pytest.mark.parametrize(("kind", "needed"), COMMANDS)
def test_the_folder_and_its_bound(kind: Any, needed: dict[str, Any]) -> None:
    assert kind.build(needed).stage_folder is None
    assert kind.build(needed | {"stage_dir": "d"}).stage_folder == StageFolder(Path("d"))
    both = kind.build(needed | {"stage_dir": "d", "stage_gb": 0.5})
    assert both.stage_folder == StageFolder(Path("d"), 500_000_000)


@pytest.mark.parametrize(("kind", "needed"), COMMANDS)
def test_they_change_no_record(kind: type[Config], needed: dict[str, Any]) -> None:
    staged, plain = kind.build(needed | {"stage_dir": "d", "stage_gb": 2}), kind.build(needed)
    assert staged.stored() == plain.stored()
    assert staged.deciding() == plain.deciding()


@pytest.mark.parametrize(("kind", "needed"), COMMANDS)
@pytest.mark.parametrize("gb", [0, -1, float("inf"), float("nan"), "much"])
def test_a_bound_must_be_one(kind: type[Config], needed: dict[str, Any], gb: object) -> None:
    with pytest.raises(ConfigError, match="stage_gb"):
        kind.build(needed | {"stage_dir": "d", "stage_gb": gb})


@pytest.mark.parametrize(("kind", "needed"), COMMANDS)
def test_a_bound_goes_with_a_folder(kind: type[Config], needed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="stage_gb: goes with --stage-dir"):
        kind.build(needed | {"stage_gb": 3})
