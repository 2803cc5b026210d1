"""The command `g2l`, or another program, in forks of a process that has torch and timm loaded: a start costs
milliseconds, not seconds.

The code, arguments and files are those of the installed command. `support.warm` stops such runs by the clock; here
the test has the process, and kills it when it sees what it waits for.
"""

import contextlib
import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from support.commands import child_environment

IMPORTED_LATE = ["cv2", "sklearn.linear_model", "torch.utils.tensorboard"]
"""What training imports in functions only: seconds of each fork that trains."""
PRELOADED = ["stages.plan", "stages.extract_teacher", "stages.train_student", *IMPORTED_LATE]
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

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end; returns `returncode`."""
        self._process.join(timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; returns what it said, errors included."""
        assert self.wait(timeout) is not None, f"still at work after {timeout} s"
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


def forking() -> ForkServerContext:
    """What forks; the process that does is started with the first fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def fork_program(arguments: Sequence[object], log: Path, environment: Mapping[str, str]) -> ForkedRun:
    """Start `python ARGUMENTS` (`-c PROGRAM`, `-m MODULE` or a file) in a fork with this environment; what it and its
    libraries say goes to `log`.
    """
    process = forking().Process(target=run_program, args=([*map(str, arguments)], log, dict(environment)))
    process.start()
    return ForkedRun(process, log)


@contextlib.contextmanager
def forked_commands(logs: Path) -> Iterator[ForkedCommands]:
    """Commands in forks; the process that forks is started with the first one and shared."""
    before = dict(os.environ)
    os.environ.update(child_environment())
    logs.mkdir(parents=True, exist_ok=True)
    try:
        yield ForkedCommands(forking(), logs)
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


def run_program(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    """The program, in the fork."""
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target in (1, 2):
        os.dup2(file, target)
    os.close(file)
    first, *rest = arguments
    sys.argv = [first, *rest] if first not in ("-c", "-m") else [first, *rest[1:]]
    if first == "-c":
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(first, run_name="__main__")
