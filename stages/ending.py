"""How a command ends: what it prints, and errors as a line and an exit code, as `base.errors` lists them."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.base.errors import (
    DONE_IS_KEPT,
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PIPE,
    NO_MEMORY,
    G2LError,
    first_line,
    is_memory_gone,
    limit_of,
    words_of,
)
from pipeline.base.outside import printable
from pipeline.disk.files import odd_name

DEBUG_VARIABLE = "G2L_TRACEBACK"
"""Environment variable; 1 shows the traceback of an error."""


def show(text: str) -> None:
    """Print a result; control characters in file names become escapes."""
    with _naming_output():
        print(printable(text))


def ended(call: Callable[[], int | None]) -> int:
    """Call a command, which returns its exit code or `None` for 0, and report its errors; returns the exit code.

    Raises:
        Exception: what nobody expects and no limit of the machine explains, for its traceback is wanted.
    """
    try:
        os.getcwd()  # where it is gone, relative paths mean nothing and torch does not load
        code = call()
        if code == EXIT_INTERRUPTED:  # typer's code for Ctrl-C
            raise KeyboardInterrupt
        flush_output()
    except G2LError as error:
        return _fail(str(error), error)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `g2l ... | head`, `2>&1 | head`: the reader has closed the pipe
        for stream in (sys.stdout, sys.stderr):  # what they still hold fails no second time
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return EXIT_PIPE
    except OSError as error:
        return _fail(words_of(error), error)
    except UnicodeEncodeError as error:
        return _fail(f"{odd_name(error)} is a name that is not UTF-8. Rename it, or use a link to it", error)
    except Exception as error:
        if words := _words_of_limit(error):
            return _fail(words, error)
        if type(error).__module__.split(".")[0] not in ("click", "typer"):
            raise
        print_usage = getattr(error, "show", None)
        if print_usage is None:
            raise
        print_usage()
        return EXIT_ERROR
    return code or EXIT_OK


def _words_of_limit(error: Exception) -> str:
    """What to say of an error that a limit of the machine brought about; empty for others."""
    if limit_of(error) is not None:
        return first_line(error)
    if is_memory_gone():  # whatever is raised then may be for want of it
        return f"{first_line(error)}: {NO_MEMORY}. {DONE_IS_KEPT}"
    if _is_out_of_memory(error):
        return f"too little memory, here or on the GPU ({first_line(error)}). Finished work is kept"
    return ""


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, as where weights are too large for a device. What knows more says more."""
    if isinstance(error, ImportError):  # of a library larger than `ulimit -v` allows; other reasons stand behind it
        return str(error).endswith("failed to map segment from shared object")
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from pipeline.base.memory import is_out_of_memory  # loads torch

    return is_out_of_memory(error)


def flush_output() -> None:
    """Flush standard output, so that a full disk is reported.

    Raises:
        OSError: it cannot be written.
    """
    with _naming_output():
        sys.stdout.flush()


@contextmanager
def _naming_output() -> Iterator[None]:
    """Name standard output in the error of a block that cannot write to it."""
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise


def _fail(message: str, error: Exception) -> int:
    """Print an error as a line that names the limit of the machine behind it, if one was; returns the exit code.

    Raises:
        Exception: `error`, if its traceback is asked for.
    """
    if os.environ.get(DEBUG_VARIABLE) == "1":
        raise error
    limit = str(limit_of(error) or "")
    if limit and limit not in message:
        message = f"{message}: {limit}"
    print(printable(f"error: {message}"), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # avoid a second failure when the process ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_ERROR
