"""No command leaves a trace in the user's home, and ONNX Runtime is told not to report before it loads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import G2L, child_environment
from support.extraction import TEACHER, plan_cohort, write_cohort, write_teacher
from support.homes import at_home, traces
from support.warm import WarmCommands

from pipeline.base.privacy import MATPLOTLIB_FOLDER, leave_no_trace
from pipeline.cohort.plan_hdf5 import write_plan

LOADS = """
import os, pathlib
import pipeline
import matplotlib.font_manager
import huggingface_hub, onnxruntime, torch, timm
place = pathlib.Path(os.environ["MPLCONFIGDIR"])
print(place, place.is_dir())
"""


STOPPED = """
import os, pathlib, signal, time
import pipeline
from pipeline.base import interrupts
interrupts.install()
place = pathlib.Path(os.environ["MPLCONFIGDIR"])
place.mkdir()
(place / "fonts").touch()
print(place, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(20)
"""


NO_NETWORK = """
import os, sys
def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["G2L_TEST_CALLS"], "a") as calls:
            print(event, *arguments[1:], file=calls)
sys.addaudithook(guard)
"""
"""A `sitecustomize` that notes each call of a network, whoever makes it in Python."""


def without_empty(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if value}


@pytest.mark.slow
def test_loading_libraries_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    home = tmp_path / "home"
    home.mkdir()
    environment = without_empty(child_environment() | at_home(home))
    done = subprocess.run([sys.executable, "-c", LOADS], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    place, existed = done.stdout.split()[-2:]
    assert existed == "True"
    assert not Path(place).exists()  # gone with the process
    assert not traces(home)


def test_a_signal_leaves_no_temporary_folder() -> None:
    environment = without_empty(child_environment() | {MATPLOTLIB_FOLDER: ""})
    done = subprocess.run([sys.executable, "-c", STOPPED], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143, done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv(MATPLOTLIB_FOLDER, "/mine")
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    leave_no_trace()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert os.environ[MATPLOTLIB_FOLDER] == "/mine"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_without_a_temporary_folder_it_starts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image of a container that cannot be written to."""

    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.delenv(MATPLOTLIB_FOLDER, raising=False)
    monkeypatch.setattr("tempfile.gettempdir", none)
    leave_no_trace()
    assert MATPLOTLIB_FOLDER not in os.environ


NOTHING_TEMPORARY = """
mount --make-rprivate /
for place in /tmp /var/tmp; do mount --bind $place $place && mount -o remount,bind,ro $place || exit 99; done
cd /tmp && exec "$@"
"""
"""A script of the shell in namespaces of its own, as a container that is read-only: it cannot write temporary files."""


@pytest.mark.slow
def test_commands_that_need_no_temporary_files_run_where_none_can_be_written(tmp_path: Path) -> None:
    within = ["unshare", "-rm", "sh", "-c", NOTHING_TEMPORARY, "sh"]
    hidden = ("TMPDIR", "TEMP", "TMP", MATPLOTLIB_FOLDER)
    environment = {name: value for name, value in child_environment().items() if name not in hidden}
    if shutil.which("unshare") is None or subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    assert subprocess.run([*within, "touch", "/tmp/g2l-written"], capture_output=True).returncode
    plan = tmp_path / "plan.h5"
    write_plan(plan_cohort(write_cohort(tmp_path / "slides", 2)), plan)
    answers: dict[tuple[object, ...], str] = {
        ("--version",): "g2l ",
        ("--help",): "extract-teacher",
        ("models", "uni"): "Page: ",
        ("inspect", plan): "slides        2 of 2 cases",
        ("demo", "--out", "/dev/shm/g2l-demo"): "Set TMPDIR to a folder that can be written",
    }
    for words, answer in answers.items():
        command = [*within, G2L, *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        assert answer in done.stdout + done.stderr, (words, done.stderr)
        assert done.returncode == (words[0] == "demo"), done.stderr


@pytest.mark.slow
def test_no_command_leaves_anything_in_the_home_or_calls_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands are forks of a process that has imported everything with this home and under this guard; the first and
    the last of them import what they need themselves.
    """
    pytest.importorskip("onnxruntime")
    home, at = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    manifest = write_cohort(at / "slides")
    weights = write_teacher(at / "teacher.safetensors")
    small = ("--patch-px", 64, "--min-tissue", 0, "--val-fraction", 0.5, "--patches-per-slide", 12)
    short = "--weights scratch --epochs 1 --batch-size 4"
    commands: list[tuple[object, ...]] = [
        ("make-manifest", at / "slides", "--out", at / "m.csv"),
        ("plan", manifest, "--out", at / "plan.h5", "--overlays", at / "overlays", *small),
        ("extract-teacher", at / "plan.h5", "--out", at / "s.zarr", "--teacher", TEACHER, "--weights", weights),
        ("train-student", at / "s.zarr", "--out", at / "run", *f"--student {TEACHER} {short}".split()),
        ("export", at / "run", "--out", at / "student", "--format", "onnx", "--format", "torch-export"),
        ("embed", at / "student", at / "slides", "--out", at / "embedded", "--layout", "trident", "--min-tissue", 0),
        (
            "evaluate",
            "--out",
            at / "report",
            "--store",
            at / "s.zarr",
            "--models",
            f"teacher={at / 'run'}@teacher",
            "--models",
            f"student={at / 'student'}",
            "--cost",
        ),
        ("inspect", at / "s.zarr"),
        ("verify", at / "s.zarr"),
        ("models", "uni"),
    ]
    for name in at_home(home):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    guard, calls = tmp_path / "guard" / "sitecustomize.py", tmp_path / "calls.txt"
    guard.parent.mkdir()
    guard.write_text(NO_NETWORK)
    path = os.pathsep.join(filter(None, (str(guard.parent), os.environ.get("PYTHONPATH"))))
    listen = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    environment = child_environment() | {"PYTHONPATH": path, "G2L_TEST_CALLS": str(calls)}
    subprocess.run([sys.executable, "-c", listen], env=environment, check=True)
    assert calls.read_text().startswith("socket.connect")  # the guard sees
    calls.unlink()
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("G2L_TEST_CALLS", str(calls))
    with WarmCommands(tmp_path / "logs") as run:
        for command in commands:
            done = run.run(list(command), timeout=300, fresh=command in (commands[0], commands[-1]))
            assert done.code == 0, (command, done.err)
            assert not traces(home), command
            assert not calls.exists(), (command, calls.read_text())
    assert not traces(home)
    assert not calls.exists()
