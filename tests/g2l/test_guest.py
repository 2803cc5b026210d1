"""What a call changes in the caller's process is put back, whatever happens in it."""

import logging
import os
import random
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from g2l import guest
from g2l.guest import LOGGER, QUIETER, VARIABLES, as_guest, environment_kept
from pipeline.base.console import Progress, say
from pipeline.base.devices import use_deterministic_kernels, use_tf32


def process() -> dict[str, Any]:
    """What must not change."""
    return {
        "environment": {name: os.environ.get(name) for name in VARIABLES},
        "levels": {name: logging.getLogger(name).level for name in QUIETER},
        "warnings": list(warnings.filters),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "flags": (
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
        ),
        "threads": torch.get_num_threads(),
        "float32": (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision),
        "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
    }


def change_all() -> None:
    """As the stages do."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    os.environ["DO_NOT_TRACK"] = "yes"
    use_deterministic_kernels(True)
    use_tf32(False)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.set_num_threads(3)
    warnings.filterwarnings("ignore", module="PIL")


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_put_back(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "mine")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = process()
    try:
        with as_guest(computes=True):
            change_all()
            assert process() != before
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert process() == before


def test_libraries_do_not_report_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    with as_guest():
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert "ORT_DISABLE_TELEMETRY" not in os.environ


def test_the_caller_may_change_other_variables_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another thread, say."""
    monkeypatch.setenv("SOME_OF_THE_CALLERS", "before")
    with environment_kept():
        os.environ["SOME_OF_THE_CALLERS"] = "after"
    assert os.environ["SOME_OF_THE_CALLERS"] == "after"


def test_every_variable_that_the_code_sets_is_among_them() -> None:
    """Read from the source: what is set by name, and what `privacy` sets."""
    root = Path(guest.__file__).parents[1]
    source = "\n".join(path.read_text() for folder in ("pipeline", "stages") for path in (root / folder).rglob("*.py"))
    set_by_name = set(__import__("re").findall(r"os\.environ\.setdefault\(\"(\w+)\"", source))
    from pipeline.base.privacy import MATPLOTLIB_FOLDER, SILENT

    assert set_by_name | set(SILENT) | {MATPLOTLIB_FOLDER} == set(VARIABLES)


def test_notes_go_to_the_logger_and_bars_nowhere(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.base.console.QUIET_SECONDS", 0.0)
    caplog.set_level(logging.INFO, LOGGER)
    for progress in (False, True):
        with as_guest(progress=progress):
            say("note: one % of them")
            say("warning: two")
            with Progress("working", 2, "things") as bar:
                bar.step()
        captured = capsys.readouterr()
        assert captured.out == ""
        assert [line.split(":")[0] for line in captured.err.splitlines()] == progress * ["note", "warning", "working"]
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("INFO", "note: one % of them"),
        ("WARNING", "warning: two"),
    ]


def test_calls_of_several_threads_take_turns() -> None:
    inside, most = [0], [0]

    def call() -> None:
        with as_guest():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threading.Event().wait(0.01)
            inside[0] -= 1

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
