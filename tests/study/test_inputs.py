"""Results that a study keeps are told by what files hold, not by their paths."""

import os
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.study.inputs import benchmark_inputs, model_content, run_inputs


def test_weights_are_told_by_their_bytes(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"one")
    first = run_inputs("s", str(file))
    os.utime(file, ns=(1, 1))
    assert run_inputs("s", str(file)) == run_inputs("s", f"{file}::ema") == first
    file.write_bytes(b"two")
    assert run_inputs("s", str(file)) != first
    assert run_inputs("s", "scratch") == run_inputs("hf-hub:a/b", "pretrained") == {}


def test_a_model_folder_is_told_by_what_it_is_built_from(tmp_path: Path) -> None:
    run, student = tmp_path / "run", tmp_path / "run" / "student"
    student.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (student / "config.json").write_text("{}")
    first = model_content(run)
    assert model_content(student) == run_inputs(f"local-dir:{student}", "scratch")["student"] == first
    (student / "README.md").write_text("x")
    assert model_content(run) == first
    (student / "model.safetensors").write_bytes(b"x")
    assert model_content(run) != first


def test_weights_that_are_gone_or_no_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.pt: No such file"):
        run_inputs("s", str(tmp_path / "gone.pt"))
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ConfigError, match=r"pipe.pt: it is no regular file"):
        run_inputs("s", str(tmp_path / "pipe.pt"))


def test_tables_images_features_and_models_are_inputs(tmp_path: Path) -> None:
    for name in ("images/a.png", "features/s1.h5", "store.zarr/c/0", "weights.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "patches.csv").write_text("path,label\na.png,x\nmissing.png,y\n")
    (tmp_path / "slides.csv").write_text("slide_id,label\ns1,x\n")
    (tmp_path / "images" / "back").symlink_to(tmp_path / "images")
    values = {
        "models": [f"m=resnet18@{tmp_path / 'weights.pt'}", "resnet18"],
        "patches": str(tmp_path / "patches.csv"),
        "images_root": str(tmp_path / "images"),
        "slides": str(tmp_path / "slides.csv"),
        "features": [f"mine={tmp_path / 'features'}"],
        "store": str(tmp_path / "store.zarr"),
        "folds": 2,
        "label": "label",
    }
    before = benchmark_inputs(values)
    assert [name.split()[0] for name in before] == ["models", "patches", "slides", "features", "store"]
    assert benchmark_inputs(values) == before
    changes = {"images/a.png": "patches", "images/missing.png": "patches", "patches.csv": "patches",
               "slides.csv": "slides", "features/s2.h5": "features", "store.zarr/c/0": "store",
               "weights.pt": "models"}  # fmt: skip
    for file, option in changes.items():
        with (tmp_path / file).open("a") as opened:
            opened.write("path,label\n")
        after = benchmark_inputs(values)
        assert {name.split()[0] for name in after if after[name] != before[name]} == {option}, file
        before = after
    (tmp_path / "slides.csv").unlink()
    with pytest.raises(ConfigError, match=r"slides.csv: No such file"):
        benchmark_inputs(values)


def test_a_folder_of_images_is_an_input_and_links_may_lead_back(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "back").symlink_to(tmp_path)
    (tmp_path / "x" / "a.png").write_text("a")
    before = benchmark_inputs({"patches": str(tmp_path)})
    (tmp_path / "x" / "a.png").write_text("longer")
    assert benchmark_inputs({"patches": str(tmp_path)}) != before
