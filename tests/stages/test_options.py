"""Options of commands: made from configurations, taken from flags, a file and defaults, and checked."""

from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.base import to_toml
from pipeline.config.stages import PlanConfig, TrainConfig
from stages.options import Call


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "g2l.toml"
    file.write_text('[plan]\nmanifest = "m.csv"\nseed = 7\nmpp = 1\n[train-student]\nepochs = 3\n')
    config, paths = Call.read("plan", {"seed": 9}, file).resolve(PlanConfig, manifest=None, out=tmp_path / "p.h5")
    assert (config.seed, config.mpp, config.patch_px) == (9, 1.0, 224)
    assert paths == {"manifest": Path("m.csv"), "out": tmp_path / "p.h5"}


def test_a_record_resolves_to_the_same_configuration(tmp_path: Path) -> None:
    config = TrainConfig(student="x", epochs=7, lr=0.5, slides_root=None, deterministic=False)
    file = tmp_path / "config.toml"
    file.write_text(to_toml({"train-student": {"store": "s.zarr", "out": "run"} | config.record()}))
    again, paths = Call.read("train-student", {}, file).resolve(TrainConfig, store=None, out=None)
    assert again == config
    assert paths == {"store": Path("s.zarr"), "out": Path("run")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[plan]\nsede = 1\n", "sede"),
        ("[plan]\nseed = -1\n", "seed"),
        ('[plan]\nseed = "one"\n', "seed"),
        ("seed = 1\n", "seed must be in the table"),
        ("[train_student]\nlr = 0.5\n", r"\[train_student\] is not a command"),
        ("[plan]\nmpp = 1000\n", "mpp"),
        ("[plan\n", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_named(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "g2l.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        Call.read("plan", {}, file).resolve(PlanConfig)
