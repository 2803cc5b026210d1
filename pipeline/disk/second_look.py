"""Run a function in a child process, to learn whether it ends that process, or hangs.

For slides that were being read when an earlier call crashed (`at_hand`). The function's result and its errors do not
count: the command itself will meet them. Left out: a crash that only several threads together bring about.
"""

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from pipeline.base import interrupts
from pipeline.disk.first_look import (
    FROM_OUTSIDE,
    child_command,
    child_environment,
    how_ended,
    is_told_within,
    nameless_file,
)

SECONDS = 300.0
"""Time limit from one patch to the next. Our choice: from a slow network share one takes some seconds."""
Work = tuple[Callable[..., object], tuple[Any, ...]]
"""A function of a module, and its arguments; both can be pickled."""


def crash_of(work: Work) -> str:
    """How `work` ends a child process that does it, or that it does not end; empty if it does, or if a signal from
    outside ended the child.

    Raises:
        OSError: no child can be started.
    """
    with nameless_file() as given, nameless_file() as words:
        pickle.dump(work, given)
        given.seek(0)
        with (
            subprocess.Popen(
                child_command("second_look", "call_and_exit()"),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=words,
                env=child_environment(),
                start_new_session=True,  # Ctrl-C is for this process, which then ends the child
            ) as child,
            interrupts.undone(child.kill),
        ):
            num_steps, is_silent = _follow(child)
            if is_silent:
                child.kill()
                return f"reading it came to a halt for {SECONDS:g} s"
        words.seek(0)
        if child.returncode == 0 or -child.returncode in FROM_OUTSIDE:
            return ""
        trouble = how_ended(child.returncode, words.read())
    if not num_steps:
        raise OSError(f"no process can be started to read slides again ({trouble})")
    return trouble


def _follow(child: subprocess.Popen[bytes]) -> tuple[int, bool]:
    """Wait until the child ends, or says nothing for too long; returns how many steps it has told, and whether it went
    silent.
    """
    assert child.stdout is not None
    num_steps = 0
    while is_told_within(child.stdout, SECONDS):
        told = os.read(child.stdout.fileno(), 1 << 16)
        if not told:
            return num_steps, False
        num_steps += len(told)
    return num_steps, True


_is_child = False


def tell_step() -> None:
    """In such a child, show its parent that it is at work; elsewhere nothing."""
    if _is_child:
        os.write(1, b".")


def call_and_exit() -> None:
    """Run in the child: call the function that standard input holds, and exit with 0 whatever it raises.

    Tells a step on standard output before it begins, and for each region that is read (`at_hand.note_slide`).
    """
    global _is_child
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    function, arguments = pickle.load(sys.stdin.buffer)  # from this program's own parent
    _is_child = True
    tell_step()
    try:
        function(*arguments)
    finally:
        os._exit(0)
