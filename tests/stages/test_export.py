"""`export`: the student of a run, proven to be the trained one, or nothing at all."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from support.commands import leftovers, run_g2l
from support.exports import taken_by_timm_1_0_16
from support.homes import at_home, traces
from support.stores import make_store, plain_vit, train_config

from pipeline.base.errors import CheckpointError, EncoderError, G2LError, StoreError
from stages.export import _copy, export_student
from stages.inspect import inspect_path
from stages.train_student import train_student


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def without_weights_hash(student: Path) -> None:
    """Take from `student.json` what earlier versions did not write into it."""
    written = json.loads((student / "student.json").read_text())
    del written["encoder"]["weights_sha256"]
    (student / "student.json").write_text(json.dumps(written))


@pytest.mark.slow
def test_export_and_inspect_a_run(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    trained = train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "start")))
    shown = inspect_path(tmp_path / "run")
    for words in ("finished  yes", "log-sum, alpha 4", "epoch 2 of 2", "held-out patches"):
        assert words in shown
    words = export_student(tmp_path / "run", tmp_path / "student")
    assert "largest difference" in words
    model = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True).eval()
    reference = timm.create_model(f"local-dir:{trained.run.student}", pretrained=True).eval()
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    assert torch.equal(model(images), reference(images))
    for folder, beside in ((tmp_path / "student", "adapters"), (tmp_path / "run" / "student", "nothing")):
        shown = inspect_path(folder)
        assert re.search(rf"beside it +{beside}\n", shown)
        for words in (
            "test_vit",
            "32 dimensions",
            "12 dimensions",
            "32 px",
            f"local-dir:{folder}",
            "g2l.load_student",
            "distilled from",
            "epoch 2, step ",
            trained.run.read_identity()["plan"],
        ):
            assert words in shown
    assert not leftovers(tmp_path)
    with pytest.raises(G2LError, match="not overwritten"):
        export_student(tmp_path / "run", tmp_path / "student")


def test_a_run_from_a_relative_folder_is_exported_from_anywhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--student local-dir:start` stands in `run.json` as it was typed. The start is not asked for, here a folder of
    that name with something else.
    """
    record = json.loads((run / "run.json").read_text())
    assert record["student"]["name"].startswith("local-dir:/")
    record["student"]["name"] = "local-dir:start"
    (run / "run.json").write_text(json.dumps(record))
    (tmp_path / "away" / "start").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "away")
    assert "gives the run's embeddings (largest difference " in export_student(Path("../run"), Path("student"))
    without_weights_hash(run / "student")
    spoiled = run / "student" / "model.safetensors"
    weights = safetensors.torch.load_file(spoiled)
    safetensors.torch.save_file({name: value + 0.1 for name, value in weights.items()}, spoiled)
    with pytest.raises(StoreError, match="other embeddings"):
        export_student(Path("../run"), Path("other"))


def test_a_flipped_bit_in_the_weights_is_named(run: Path, tmp_path: Path) -> None:
    """It may change the embeddings by less than two machines do."""
    path = run / "student" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1  # the last bit of a number
    path.write_bytes(data)
    with pytest.raises(EncoderError, match=rf"{path}: not the weights that student\.json names: SHA-256 .*Delete"):
        export_student(run, tmp_path / "student")
    assert not (tmp_path / "student").exists()
    without_weights_hash(run / "student")
    assert "gives the run's embeddings" in export_student(run, tmp_path / "student")


WATCHED = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        with open(os.environ["G2L_TEST_ASKED"], "a") as f:
            f.write(f"{event} {arguments}\\n")
        raise OSError("no network in this test")

sys.addaudithook(refuse)
"""
"""A `sitecustomize`: whatever Python code asks of a network is refused, and noted, as a library may pass over it."""


@pytest.mark.slow
def test_export_of_every_format_asks_no_network_and_writes_nothing_at_home(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the hub not told to be offline, and a home that only lets itself be read (root writes there all the same, so
    it is looked at).
    """
    home, hooks, asked = tmp_path / "home", tmp_path / "hooks", tmp_path / "asked"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCHED)
    home.mkdir(mode=0o500)
    for name in at_home(home):
        monkeypatch.delenv(name, raising=False)
    variables = {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "G2L_TEST_ASKED": str(asked),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(hooks), os.environ.get("PYTHONPATH")))),
    }
    formats = [word for name in ("timm", "onnx", "torch-export") for word in ("--format", name)]
    done = run_g2l("export", run, "--out", tmp_path / "student", *formats, timeout=300, **variables)
    assert done.returncode == 0, done.stderr
    assert not asked.exists(), asked.read_text()
    assert traces(home) == []
    assert {"model.onnx", "model.pt2", "adapters"} <= set(os.listdir(tmp_path / "student"))
    assert taken_by_timm_1_0_16(tmp_path / "student") == "model.safetensors"
    lookup = "import socket; socket.getaddrinfo('localhost', 80)"  # the watch watches
    watched = subprocess.run(
        [sys.executable, "-c", lookup], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert "no network in this test" in watched.stderr
    assert asked.read_text().startswith("socket.getaddrinfo")


@pytest.mark.slow
def test_export_refuses_a_student_that_is_not_the_trained_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    student = plain_vit(tmp_path / "start")
    first = train_student(store, tmp_path / "run", train_config(student))
    second = train_student(store, tmp_path / "run2", train_config(student, seed=1))
    shutil.copy(second.run.student / "model.safetensors", first.run.student / "model.safetensors")
    with pytest.raises(EncoderError, match=r"run/student/model\.safetensors: not the weights that student\.json names"):
        export_student(tmp_path / "run", tmp_path / "student")
    without_weights_hash(first.run.student)
    with pytest.raises(StoreError, match="other embeddings"):
        export_student(tmp_path / "run", tmp_path / "student")
    assert not (tmp_path / "student").exists()
    assert not leftovers(tmp_path)
    (first.run.student / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(StoreError, match="timm does not load"):
        export_student(tmp_path / "run", tmp_path / "student")
    assert not (tmp_path / "student").exists()
    assert not leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["copy", "rename", "kill"])
def test_an_export_that_fails_leaves_nothing_and_can_be_repeated(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(source: str, to: str, **_options: Any) -> None:
        if where == "kill":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), to)

    with monkeypatch.context() as patched:
        patched.setattr(*((os, "rename") if where == "rename" else (shutil, "copyfile")), full)
        with pytest.raises(KeyboardInterrupt if where == "kill" else G2LError) as caught:
            export_student(run, tmp_path / "student")
    if where != "kill":
        assert "No space left on device" in str(caught.value)
        assert "[(" not in str(caught.value)
    assert not (tmp_path / "student").exists()
    assert not leftovers(tmp_path)
    (tmp_path / "student.g2l-part").mkdir()  # as a killed process leaves it
    export_student(run, tmp_path / "student")
    assert sorted(os.listdir(tmp_path / "student")) == sorted([*os.listdir(run / "student"), "adapters"])


@pytest.mark.slow
def test_export_refuses_a_place_inside_the_run(run: Path) -> None:
    with pytest.raises(G2LError, match="lies inside the run"):
        export_student(run, run / "student" / "x")
    assert not (run / "student" / "x").exists()


@pytest.mark.slow
def test_export_refuses_a_run_that_is_not_finished(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "student")
    with pytest.raises(G2LError, match="not finished"):
        export_student(run, tmp_path / "student")


def test_what_cannot_be_exported_is_told_before_any_model_is_built(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "student"
    with pytest.raises(CheckpointError, match="no such run"):
        export_student(run, out)
    run.mkdir()
    (run / "run.json").write_text('{"teacher": {"name": "t"}, "store": "", "student": {"patch_px": 32}}')
    with pytest.raises(CheckpointError, match=r"is not finished\. Run train-student again, then export"):
        export_student(run, out)
    (run / "student").mkdir()
    (run / "student" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no checkpoint to compare the student with"):
        export_student(run, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(G2LError, match="exists and is not overwritten"):
        export_student(run, out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(G2LError, match=r"loop exists and is not overwritten"):
        export_student(run, loop)


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_and_folders_follow_the_umask_and_not_the_run(
    tmp_path: Path, umask: int, file_mode: int, folder_mode: int
) -> None:
    """Runs of 0.1.0 have weights that their owner alone can read; others were made under another umask."""
    student = tmp_path / "run" / "student"
    (student / "projector").mkdir(parents=True, mode=0o750)
    (student / "model.safetensors").write_bytes(b"weights")
    (student / "model.safetensors").chmod(0o600)
    student.chmod(0o755)
    before = os.umask(umask)
    try:
        _copy(student, tmp_path / "aside", tmp_path / "out")
    finally:
        os.umask(before)
    aside = tmp_path / "aside"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (aside, *aside.iterdir())}
    assert modes == {"aside": folder_mode, "projector": folder_mode, "model.safetensors": file_mode}
