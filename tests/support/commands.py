"""The command `g2l` in a process of its own, or called in this one, and what it must not leave."""

import contextlib
import functools
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import typer.main

from stages import cli

G2L = Path(sys.executable).with_name("g2l")
"""The installed command."""


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and locks below a folder."""
    return [path for path in folder.rglob("*") if path.name.endswith((".g2l-part", ".g2l-lock"))]


def without_leftovers(output: Path) -> None:
    """See that nothing half-written and no lock is left beside an output or in it."""
    assert leftovers(output.parent) == []


def child_environment() -> dict[str, str]:
    """Environment of a child that shares the cores with the tests and has no network."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run_g2l(*arguments: object, timeout: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command `g2l` in a process of its own, to its end; `variables` are of its environment."""
    command, environment = [G2L, *map(str, arguments)], child_environment() | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


def start_g2l(*arguments: object, stderr: int = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
    """Start the command `g2l` in a process of its own; `variables` are of its environment."""
    command, environment = [G2L, *map(str, arguments)], child_environment() | variables
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)


def stop_g2l(
    *arguments: object,
    out: Path,
    ready: Callable[[], bool],
    stop: signal.Signals = signal.SIGKILL,
    wait: float = 0.0,
    start: Callable[..., Any] = start_g2l,
) -> subprocess.CompletedProcess[str]:
    """Start the command and send `stop` once it is `ready`, while it makes the folder `out`; `start` may be that of
    forks (`support.forked`), whose standard output has errors as well.

    A busy machine may let a command come to its end first: then `out` is what it was before and the command runs again.
    """
    before = out.with_name(out.name + ".before")
    if out.exists():
        shutil.copytree(out, before)
    for _ in range(8):
        process = start(*arguments)
        try:
            while process.poll() is None and not ready():
                time.sleep(0.005)
            time.sleep(wait)
        finally:
            process.send_signal(stop)
        said, errors = process.communicate()
        if process.returncode != 0:
            shutil.rmtree(before, ignore_errors=True)
            return subprocess.CompletedProcess(arguments, process.returncode, said, errors)
        shutil.rmtree(out)
        if before.exists():
            shutil.copytree(before, out)
    raise AssertionError(f"the command always ended before it could be stopped:\n{errors or said}")


built = functools.cache(typer.main.get_command)
"""The command line of an app, which typer builds anew for each call: a tenth of a second."""


def call_g2l(*arguments: object) -> tuple[int, str, str]:
    """Call the command `g2l` in this process; returns exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["g2l", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(typer.main, "get_command", built),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def succeed(*arguments: object) -> str:
    """`call_g2l` of a command that must end well; returns all that it said."""
    code, out, errors = call_g2l(*arguments)
    assert code == 0, out + errors
    return out + errors


def called(*words: object) -> subprocess.CompletedProcess[str]:
    """`call_g2l`, with what came of it as of a process; seconds less than in one, as torch is loaded already."""
    return subprocess.CompletedProcess(words, *call_g2l(*words))
