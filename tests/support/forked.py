"""The command `g2l` in forks of a process that has torch and timm loaded: a start costs milliseconds, not seconds.

The code, arguments and files are those of the installed command. `support.warm` stops such runs by the clock; here
the test has the process, and kills it when it sees what it waits for.
"""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from support.commands import child_environment

PRELOADED = ["stages.plan", "stages.extract_teacher", "stages.train_student"]
"""What the forks need not import. The process that forks is one for all tests, so that it has all of it."""


class ForkedRun:
    """A command that runs, with what tests use of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess, log: Path) -> None:
        self._process, self._log = process, log

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal's number if it died of one; `None` while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`."""
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; returns what it said, errors included."""
        self._process.join(timeout)
        assert self.returncode is not None, f"still at work after {timeout} s"
        return self._log.read_text() if self._log.exists() else "", None


class ForkedCommands:
    """Starts commands; what they say goes to files in a folder."""

    def __init__(self, context: ForkServerContext, logs: Path) -> None:
        self._context, self._logs, self._count = context, logs, 0

    def start(self, *arguments: object) -> ForkedRun:
        """Start `g2l ARGUMENTS`."""
        self._count += 1
        log = self._logs / f"{self._count}.log"
        words, now = [str(word) for word in arguments], dict(os.environ)  # the process that forks may be older
        process: BaseProcess = self._context.Process(target=call, args=(words, log, now))
        process.start()
        return ForkedRun(process, log)


@contextlib.contextmanager
def forked_commands(logs: Path) -> Iterator[ForkedCommands]:
    """Commands in forks; the process that forks is started with the first one and shared."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = dict(os.environ)
    os.environ.update(child_environment())
    logs.mkdir(parents=True, exist_ok=True)
    try:
        yield ForkedCommands(context, logs)
    finally:
        os.environ.clear()
        os.environ.update(before)


def call(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    """The command, in the fork, in the environment of whoever starts it."""
    os.environ.clear()
    os.environ.update(environment)
    with open(log, "w") as f, contextlib.redirect_stdout(f), contextlib.redirect_stderr(f):
        from stages import cli

        sys.argv = ["g2l", *arguments]
        cli.main()
