"""The folder of an evaluation: begun, continued with the same options, and never overwritten with others."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.base import to_toml
from pipeline.evaluate.options.config import EvaluateConfig, evaluate_config
from pipeline.evaluate.report_folder import read_precision, start_folder


def test_a_report_from_before_there_were_protocols_is_one_of_the_plain_one(tmp_path: Path) -> None:
    config = evaluate_config()(models=["a"])
    record = {name: value for name, value in config.record().items() if name != "protocol"}
    (tmp_path / "evaluate.toml").write_text(to_toml({"evaluate": {"out": str(tmp_path)} | record}))
    (tmp_path / "report.json").write_text('{"settings": {"precision": "float32"}}')
    with pytest.raises(ConfigError, match="protocol: 'plain' -> 'g2l'"):
        start_folder(tmp_path, config, "float32")
    start_folder(tmp_path, evaluate_config()(models=["a"], protocol="plain"), "float32")


def finish(out: Path, precision: str = "float32") -> None:
    (out / "report.json").write_text(f'{{"settings": {{"precision": "{precision}"}}}}')


def options(**values: Any) -> EvaluateConfig:
    return evaluate_config().build({"models": ["a"]} | values)


def test_a_new_folder_holds_the_options(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    start_folder(out, options(seed=3), "float32")
    written = (out / "evaluate.toml").read_text()
    assert "seed = 3" in written
    assert str(out) in written
    assert [path.name for path in out.iterdir()] == ["evaluate.toml"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and holds no report; nothing is overwritten"):
        start_folder(tmp_path, options(), "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_report_is_begun_again_with_the_same_options_only(tmp_path: Path) -> None:
    start_folder(tmp_path, options(seed=1), "float32")
    finish(tmp_path)
    start_folder(tmp_path, options(seed=1), "float32")
    before = (tmp_path / "evaluate.toml").read_bytes()
    with pytest.raises(ConfigError, match=r"\(report -> now\):\n  seed: 1 -> 2\nChoose another --out"):
        start_folder(tmp_path, options(seed=2), "float32")
    with pytest.raises(ConfigError, match="precision: 'float32' -> 'bfloat16'"):
        start_folder(tmp_path, options(seed=1), "bfloat16")
    assert (tmp_path / "evaluate.toml").read_bytes() == before


def test_an_evaluation_that_failed_may_be_mended(tmp_path: Path) -> None:
    start_folder(tmp_path, options(seed=1), "float32")
    start_folder(tmp_path, options(seed=2), "bfloat16")
    assert "seed = 2" in (tmp_path / "evaluate.toml").read_text()


def test_a_report_may_be_moved(tmp_path: Path) -> None:
    start_folder(tmp_path / "old", options(), "float32")
    finish(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    start_folder(tmp_path / "new", options(), "float32")
    assert str(tmp_path / "new") in (tmp_path / "new" / "evaluate.toml").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}', "\ud800"])
def test_a_damaged_report_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    start_folder(tmp_path, options(), "float32")
    (tmp_path / "report.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    for call in (
        lambda: read_precision(tmp_path / "report.json"),
        lambda: start_folder(tmp_path, options(), "float32"),
    ):
        with pytest.raises(ConfigError, match=r"report\.json.*\n?.*Delete the folder, or choose another --out"):
            call()


def test_damaged_options_are_named(tmp_path: Path) -> None:
    start_folder(tmp_path, options(), "float32")
    finish(tmp_path)
    (tmp_path / "evaluate.toml").write_text("no toml")
    with pytest.raises(ConfigError, match=r"evaluate\.toml"):
        start_folder(tmp_path, options(), "float32")


@pytest.mark.parametrize("name", ["evaluate.toml", "report.json"])
def test_a_file_behind_a_broken_link_is_damaged_and_not_absent(tmp_path: Path, name: str) -> None:
    start_folder(tmp_path, options(), "float32")
    finish(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(ConfigError, match=rf"{name}: damaged"):
        start_folder(tmp_path, options(), "float32")


def test_a_report_of_the_protocol_that_was_called_balanced_is_continued(tmp_path: Path) -> None:
    config = evaluate_config()(models=["a"])
    record = config.record() | {"protocol": "balanced"}
    (tmp_path / "evaluate.toml").write_text(to_toml({"evaluate": record}))
    (tmp_path / "report.json").write_text('{"settings": {"precision": "float32"}}')
    start_folder(tmp_path, config, "float32")
    with pytest.raises(ConfigError, match="protocol: 'g2l' -> 'eva'"):
        start_folder(tmp_path, evaluate_config()(models=["a"], protocol="eva"), "float32")
