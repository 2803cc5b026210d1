"""An exported student in words, and what is damaged of it."""

from pathlib import Path

import pytest

from pipeline.base.errors import EncoderError
from stages.inspect import inspect_path


def test_inspect_refuses_a_damaged_student(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "projector.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(EncoderError, match=r"config.json: architecture is missing"):
        inspect_path(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "x", "pretrained_cfg": {"input_size": [3, 8, 8]}}')
    with pytest.raises(EncoderError, match=r"projector\.safetensors: not the projector of an exported student"):
        inspect_path(tmp_path)
