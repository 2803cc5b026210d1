"""Run a function in a child process, to learn whether it ends that process.

For slides that were being read when an earlier call crashed (`at_hand`). The function's result and its errors do not
count: the command itself will meet them. Left out: a crash that only several threads together bring about.
"""

import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from pipeline.base import interrupts
from pipeline.disk.first_look import child_command, child_environment, how_ended

FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that a user, a scheduler or the system sends: they say nothing of the file."""
Work = tuple[Callable[..., object], tuple[Any, ...]]
"""A function of a module, and its arguments; both can be pickled."""


def crash_of(work: Work) -> str:
    """How `work` ends a child process that does it; empty if it does not, or if a signal from outside ended the child.

    Raises:
        OSError: no child can be started.
    """
    data = pickle.dumps(work)
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            child_command("second_look", "call_and_exit()"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=words,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C is for this process, which then ends the child
        ) as child,
        interrupts.undone(child.kill),
    ):
        child.communicate(data)
        if child.returncode == 0 or -child.returncode in FROM_OUTSIDE:
            return ""
        words.seek(0)
        return how_ended(child.returncode, words.read())


def call_and_exit() -> None:
    """Run in the child: call the function that standard input holds, and exit with 0 whatever it raises."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        function, arguments = pickle.load(sys.stdin.buffer)  # from this program's own parent
        function(*arguments)
    finally:
        os._exit(0)
