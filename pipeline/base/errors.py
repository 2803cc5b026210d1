"""Errors that a user can act on, and the exit codes of the command.

Every message says what is wrong, names the value and the file, and says how to fix it. `ValueError` and these errors
are for users; `assert` is for invariants of the code.
"""

import difflib
import errno
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

EXIT_OK = 0
"""All done."""
EXIT_ERROR = 1
"""Wrong use or wrong input; finished work is kept."""
EXIT_PARTIAL = 3
"""Done, but some slides or patches failed; they are listed."""
EXIT_DIFFERENT = 4
"""`reproduce`: done, but a value is farther from the published one than the recipe allows."""
EXIT_INTERRUPTED = 130
"""Stopped by Ctrl-C; the same command continues. SIGTERM gives 143, SIGHUP 129: 128 plus the signal's number."""
EXIT_PIPE = 141
"""The reader of the output has gone."""


class G2LError(Exception):
    """Base of all errors that are shown to the user without a traceback."""


class ConfigError(G2LError):
    """An option or configuration file is wrong."""


class ManifestError(G2LError):
    """A manifest cannot be used; the message names the rows."""


Source = Literal["slide", "annotations", "tissue"]
"""What of a slide is at fault: itself, its file of annotations, or its file of corrected tissue."""


class SlideError(G2LError):
    """A slide cannot be used: it does not open, has no mpp, is too coarse, or is not the planned slide.

    Attributes:
        facts: what is known about it nevertheless, as columns of a plan's audit.
        about: what of it is at fault.
    """

    def __init__(self, message: str, facts: Mapping[str, Any] = MappingProxyType({}), about: Source = "slide") -> None:
        super().__init__(message)
        self.facts, self.about = facts, about


class AnnotationError(G2LError):
    """Annotations of a slide that cannot be used."""


class PatchError(G2LError):
    """One patch cannot be read from a slide that opens."""


class EmptyPatchError(PatchError):
    """Most of the patch was never scanned: the slide has no pixels there."""


class PlanError(G2LError):
    """A plan cannot be built, read or used."""


class StoreError(G2LError):
    """A store is damaged, incomplete, or belongs to another plan, teacher or configuration."""


class EncoderError(G2LError):
    """An encoder cannot be built or its weights do not fit."""


class ExportError(G2LError):
    """A file of an export cannot be written, or does not reproduce the student's embeddings."""


class BenchmarkError(G2LError):
    """A benchmark's data cannot be used as they are, or embeddings are not finite."""


class EmbedError(G2LError):
    """A folder of embeddings belongs to another model or configuration, or cannot be written."""


class CheckpointError(G2LError):
    """No checkpoint of a run can be used, or it belongs to another configuration."""


class DivergedError(G2LError):
    """A loss, gradient or weight of a training run is not finite."""


class BusyError(G2LError):
    """Another process is working on the same output."""


class LimitError(G2LError):
    """This process may open no more files, start no more processes or threads, or has no memory left. That is no fault
    of a slide, patch or file, so none is listed as failed: the command ends.
    """


LIMITS = MappingProxyType(
    {
        errno.ENFILE: "this machine may have no more files open (Linux: fs.file-max). End other programs",
        errno.EMFILE: "this process may have no more files open. Raise the limit (ulimit -n), or lower --workers",
        errno.EAGAIN: "no more processes or threads may be started. Raise the limit (ulimit -u), or lower --workers "
        "and OMP_NUM_THREADS",
    }
)
"""Errors of the system at a limit, each with what it means and what helps. The words of the first begin with those of
the second.
"""
NO_THREAD = "can't start new thread"
"""What Python's `threading` says."""
NO_MEMORY = (
    "this process has no memory left. Raise the limit (ulimit -v), give the job or container more, or lower --workers "
    "and --batch-size"
)
MEMORY_WORDS = re.compile(
    r"(?<![\w./\\-])(memory|(bad_|m|re)?alloc(ate|ated|ation|ator)?)(?![\w/\\-])|DefaultCPUAllocator"
    r"|alloc_cpu\.cpp|failed to map segment|could not create a primitive",
    re.IGNORECASE,
)
"""Words in the errors of the system, codecs, torch and oneDNN that say so; no parts of the paths in others."""
NO_TEXT = "could not get source code"
"""What Python's `inspect` says of a module whose text cannot be read, as torch does when it loads."""
MODEST_BYTES = 1 << 28
"""256 MiB: a process that cannot have as much has none left. Our choice: few regions of a slide take more."""
DONE_IS_KEPT = "What is finished is kept: the same command continues"


def limit_of(error: BaseException) -> LimitError | None:
    """The limit that an error, or one from which it arose, comes from; `None` if it is of something else.

    OpenSlide and other libraries only say the system's words. A file that asks for more memory than there is, is no
    limit: it is one where a modest piece cannot be had either.
    """
    told: BaseException | None = error
    for _ in range(8):  # deep enough for libraries, and an end to a ring
        if told is None or isinstance(told, LimitError):
            return told
        if words := _limit_in_words(told):
            return LimitError(f"{words}. {DONE_IS_KEPT}")
        told = told.__cause__ or told.__context__
    return None


def _limit_in_words(error: BaseException) -> str:
    """The limit that one error alone comes from, in words; empty if it is of something else."""
    text = str(error)
    is_thread = NO_THREAD in text
    if (is_thread or _is_of_memory(error)) and is_memory_gone():  # a thread's stack is memory
        return NO_MEMORY
    for number, words in LIMITS.items():
        is_words = number in (errno.EMFILE, errno.ENFILE) and os.strerror(number) in text
        if is_words or (is_thread and number == errno.EAGAIN) or _is_errno(error, number):
            return words
    return ""


def _is_errno(error: BaseException, number: int) -> bool:
    """Whether an error is the system's of this number. With EAGAIN, only that of `fork`, which names no file; a lock's
    does, and that of a stream that would block has Python's words.
    """
    if not isinstance(error, OSError) or error.errno != number:
        return False
    return number != errno.EAGAIN or (error.filename is None and error.strerror == os.strerror(number))


def _is_of_memory(error: BaseException) -> bool:
    """Whether an error may be of memory that could not be had. Libraries that are loaded late fail to load then."""
    if isinstance(error, MemoryError | ImportError | SystemError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or str(error) == NO_TEXT
    return MEMORY_WORDS.search(str(error)) is not None


def is_memory_gone() -> bool:
    """Whether this process cannot have `MODEST_BYTES` more. Takes the addresses alone, and gives them back."""
    try:
        mmap.mmap(-1, MODEST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return True
    return False


def raise_if_limit(error: BaseException) -> None:
    """Raise the limit that an error comes from, if it does.

    Raises:
        LimitError: it does.
    """
    limit = limit_of(error)
    if limit is not None:
        raise limit from None


NO_PLACE = "No usable temporary directory"
"""What Python's `tempfile` says where it can write nowhere."""


def words_of(error: OSError) -> str:
    """The system's error message, with the paths it concerns."""
    if isinstance(error, FileNotFoundError) and error.filename is None and _working_folder_is_gone():
        return "the working folder has been deleted or moved away; change to one that exists (cd)"
    if error.filename is None and str(error.strerror).startswith(NO_PLACE):
        return f"{error.strerror}. Set TMPDIR to a folder that can be written"
    paths = [os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes)]
    return ": ".join([" -> ".join(paths), error.strerror or str(error)]).removeprefix(": ")


def _working_folder_is_gone() -> bool:
    """Whether relative paths mean nothing any more."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


LIKENESS = 0.6
"""Least similarity of a mistyped name to a known one (`difflib`'s ratio). Its default."""


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """ " (did you mean NAME?)" if `typed` nearly matches a known name, ignoring case; "" otherwise."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(typed.lower(), by_lower, n=1, cutoff=LIKENESS)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)
