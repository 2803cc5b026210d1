"""A study is extended, but not under another base."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.base import read_options
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.study.folder import StudyFolder, base_record


def start(folder: Path, *, command: str = "ablate", **options: Any) -> StudyFolder:
    study = StudyFolder(folder)
    common = {"options": base_record({"student": "s", **options}), "yardstick": {"rows": "abc"}}
    study.start(command, common, {"student": "s", "seeds": 3})
    return study


def test_a_study_goes_on_under_the_same_base_only(tmp_path: Path) -> None:
    start(tmp_path / "out", epochs=3)
    study = start(tmp_path / "out", epochs=3, workers=5, seed=7)  # these decide no base
    assert read_options(study.folder / "config.toml", "ablate")["seeds"] == 3
    with pytest.raises(ConfigError, match=r"options.epochs: 3 -> 4\n.*choose another --out"):
        start(tmp_path / "out", epochs=4)
    with pytest.raises(ConfigError, match="command: 'ablate' -> 'curve'"):
        start(tmp_path / "out", command="curve", epochs=3)


def test_an_option_that_is_newer_than_the_study_has_its_default(tmp_path: Path) -> None:
    study = start(tmp_path / "out")
    record = json.loads(study.study_path.read_text())
    del record["options"]["val_every"]
    study.study_path.write_text(json.dumps(record))
    start(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"options.val_every: 1 -> 2"):
        start(tmp_path / "out", val_every=2)


def test_an_augmentation_that_the_store_decides_is_not_recorded() -> None:
    assert "augment" not in base_record({"student": "s"})
    assert base_record({"student": "s", "augment": "flips"})["augment"] == "flips"


def test_what_is_no_study_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no study; nothing is overwritten"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    study = start(tmp_path / "out")
    study.study_path.write_text("{}")
    with pytest.raises(ConfigError, match=r"study.json.*damaged"):
        start(tmp_path / "out")


def test_a_record_behind_a_broken_link_is_damaged_and_not_absent(tmp_path: Path) -> None:
    study = start(tmp_path / "out")
    study.study_path.unlink()
    study.study_path.symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"study.json.*damaged"):
        start(tmp_path / "out")


def test_runs_and_sums_have_places_of_their_own(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    assert study.run("loss-mse", 3) == tmp_path / "runs" / "loss-mse" / "3"
    assert study.sums("loss-mse", 3) == tmp_path / "scores" / "loss-mse" / "3.json"


def test_scores_that_a_kill_left_half_written_go(tmp_path: Path) -> None:
    study = start(tmp_path / "out")
    left = [path.with_name(path.name + ASIDE_SUFFIX) for path in (study.study_path, study.sums("loss-mse", 3))]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    start(tmp_path / "out")
    assert not any(path.exists() for path in left)
