"""Options of the slide benchmark."""

from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.evaluate.slide_benchmark.options import SlideOptions


def test_epochs_are_one_or_more() -> None:
    with pytest.raises(ConfigError, match="mil_epochs: "):
        SlideOptions.build({"mil_epochs": 0})


def test_folders_of_features_are_recorded_by_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = SlideOptions(slides=Path("s.csv"), features=["a=features", "more"]).absolute()
    assert options.features == [f"a={tmp_path}/features", f"{tmp_path}/more"]
    assert options.slides == tmp_path / "s.csv"
    assert SlideOptions().absolute().features is None
