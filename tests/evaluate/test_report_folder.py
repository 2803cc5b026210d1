"""The folder of an evaluation: begun, continued with the same options, and never overwritten with others."""

from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.base import to_toml
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.report_folder import start_folder


def test_a_report_from_before_there_were_protocols_is_one_of_the_plain_one(tmp_path: Path) -> None:
    config = EvaluateConfig(models=["a"])
    record = {name: value for name, value in config.record().items() if name != "protocol"}
    (tmp_path / "evaluate.toml").write_text(to_toml({"evaluate": {"out": str(tmp_path)} | record}))
    (tmp_path / "report.json").write_text('{"settings": {"precision": "float32"}}')
    with pytest.raises(ConfigError, match="protocol: 'plain' -> 'balanced'"):
        start_folder(tmp_path, config, "float32")
    start_folder(tmp_path, EvaluateConfig(models=["a"], protocol="plain"), "float32")
