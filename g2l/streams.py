"""Standard streams that are closed before anything is opened, and standard error that cannot be written.

Imports only what the interpreter has loaded, as `g2l.__main__` does.
"""

import errno
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` is not loaded yet
    from typing import Any


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


WAIT_SECONDS = 1.0
"""How long a line waits for room in a pipe or terminal that its starter set not to block. Our choice."""


class _Lasting(io.FileIO):
    """A descriptor: what cannot be written to it is dropped, unless the reader of a pipe has gone."""

    def write(self, data: "Any", /) -> int:
        """Write a buffer of bytes; returns how many are done with."""
        try:
            written = super().write(data)
            if written is None:  # full, and set not to block
                import select  # rarely needed, and nothing is loaded early

                select.select((), (self,), (), WAIT_SECONDS)
                written = super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            written = None
        return len(memoryview(data).cast("B")) if written is None else written


def outlast_standard_error() -> None:
    """Let work go on where notes cannot be written: the disk of a log is full, or the terminal of a job in the
    background was closed. Each line is tried anew.
    """
    encoding = sys.stderr.encoding
    lasting = io.BufferedWriter(_Lasting(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(lasting, encoding=encoding, errors="backslashreplace", line_buffering=True)
