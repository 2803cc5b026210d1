"""Standard streams that are closed, before anything is opened. Imports only `os` and `sys`, as `g2l.__main__` does."""

import os
import sys


def open_closed_streams() -> None:
    """Open /dev/null in place of standard input, output and error that are closed (`>&-`, some starters of daemons), so
    that there is something to write to, and no file that is opened takes their numbers.
    """
    for fd in range(3):  # what is opened gets the smallest free number
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))
