"""Work in a forked process that is killed at a given one of its changes to the file system.

A script imports what it needs once and forks for each try, which saves seconds for each, and every gap between two
writes can be tried.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
"""Audit events of changes, beside files that are opened to be written."""


def attempt(work: Callable[[], object], kill_at: int, count_file: Path | None = None) -> int:
    """Run `work` in a fork, killed before its `kill_at`-th change (0: never); its exit code, negative after a kill.

    A run that comes to its end writes its number of changes to `count_file`.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            opened = event == "open" and isinstance(arguments[0], str) and str(arguments[1])[:1] in "wax"
            if event in CHANGES or opened:
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        status = 1
        try:
            work()
            status = 0
        finally:
            if count_file:
                count_file.write_text(str(count))
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
