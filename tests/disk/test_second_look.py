"""A function in a child process: what ends the child is told, and nothing else counts."""

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.disk import second_look
from pipeline.disk.first_look import FROM_OUTSIDE
from pipeline.disk.second_look import crash_of

WORK = """
import os, time

def write(path):
    path.write_text("read")

def fail():
    raise ValueError("met by the command itself")

def hang(seconds):
    from pathlib import Path
    from pipeline.disk.at_hand import note_slide
    for _ in range(4):  # a slow one, which goes on
        time.sleep(seconds)
        note_slide(Path("a"))
    time.sleep(60)

def die(number):
    os.write(2, b"\\nlast words\\n")
    os.kill(os.getpid(), number)
    time.sleep(60)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that the child imports by its name."""
    (tmp_path / "work_of_a_child.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("work_of_a_child")
    del sys.modules["work_of_a_child"]


def test_the_child_does_the_work(work: Any, tmp_path: Path) -> None:
    assert crash_of((work.write, (tmp_path / "a",))) == ""
    assert (tmp_path / "a").read_text() == "read"


def test_an_error_is_no_crash(work: Any) -> None:
    assert crash_of((work.fail, ())) == ""


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE])
def test_a_crash_is_told_with_the_last_words(work: Any, number: signal.Signals) -> None:
    assert crash_of((work.die, (number,))) == f"reading it crashes the process ({number.name}: last words)"


def test_a_library_that_exits_counts_as_a_crash() -> None:
    assert crash_of((os._exit, (3,))) == "reading it crashes the process (exit code 3)"


@pytest.mark.parametrize("number", FROM_OUTSIDE)
def test_a_signal_from_outside_says_nothing_of_the_file(work: Any, number: signal.Signals) -> None:
    assert crash_of((work.die, (number,))) == ""


@pytest.mark.slow
def test_work_that_hangs_is_ended_and_told(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow slide counts as long as it goes on."""
    monkeypatch.setattr(second_look, "SECONDS", 2.0)  # a start takes less
    started = time.monotonic()
    assert crash_of((work.hang, (0.9,))) == "reading it came to a halt for 2 s"
    assert 5.0 < time.monotonic() - started < 30.0


def test_a_child_that_cannot_begin_says_nothing_of_the_slide(work: Any, tmp_path: Path) -> None:
    """The module is gone, say with the network folder it lay on."""
    (tmp_path / "work_of_a_child.py").unlink()
    with pytest.raises(OSError, match=r"no process can be started to read slides again .*ModuleNotFoundError"):
        crash_of((work.fail, ()))
