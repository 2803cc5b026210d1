"""Options of `g2l reproduce`."""

from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.evaluate.options.config import evaluate_config
from pipeline.public_sets.options import ReproduceConfig


def test_paths_in_a_record_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").mkdir()
    values = {"root": "set", "models": ["uni"], "features": ["a=f"], "beside": ["other"]}
    record = ReproduceConfig.build(values).stored()
    assert record["root"] == str(tmp_path / "set")
    assert record["features"] == [f"a={tmp_path / 'f'}"]
    assert record["beside"] == [str(tmp_path / "other")]
    assert ReproduceConfig.build(record).stored() == record


def test_root_and_models_are_required() -> None:
    with pytest.raises(ConfigError, match="root"):
        ReproduceConfig.build({"models": ["uni"]})
    with pytest.raises(ConfigError, match="models"):
        ReproduceConfig.build({"root": "x", "models": []})


def test_what_evaluate_has_too_means_the_same() -> None:
    shared = ReproduceConfig.model_fields.keys() & evaluate_config().model_fields.keys()
    assert len(shared) > 8
    for name in shared - {"protocol"}:
        ours, theirs = ReproduceConfig.model_fields[name], evaluate_config().model_fields[name]
        assert (ours.annotation, ours.default, ours.metadata) == (theirs.annotation, theirs.default, theirs.metadata)
