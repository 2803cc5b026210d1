"""Errors that a user can act on, and the exit codes of the command.

Every message says what is wrong, which value, which file, and how to mend it. `ValueError` and these are for users;
`assert` is for invariants of the code.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

EXIT_OK = 0
"""All done."""
EXIT_ERROR = 1
"""Wrong use or wrong input; nothing that was finished before is lost."""
EXIT_PARTIAL = 3
"""Done, but some slides or patches failed; they are listed."""
EXIT_INTERRUPTED = 130
"""Stopped by Ctrl-C; the same command continues. Of SIGTERM it is 143, of SIGHUP 129: 128 and the signal's number."""
EXIT_PIPE = 141
"""Nobody reads the output any more."""


class G2LError(Exception):
    """Base of every error that is shown to the user without a traceback."""


class ConfigError(G2LError):
    """An option or configuration file is wrong."""


class ManifestError(G2LError):
    """A manifest cannot be used; the message names the rows."""


class SlideError(G2LError):
    """A slide cannot be used: it does not open, has no mpp, is too coarse, or is not the planned one.

    Attributes:
        facts: what is known of it all the same: columns of a plan's audit.
    """

    def __init__(self, words: str, facts: Mapping[str, Any] = MappingProxyType({})) -> None:
        super().__init__(words)
        self.facts = facts


class PatchError(G2LError):
    """One patch cannot be read from a slide that opens."""


class EmptyPatchError(PatchError):
    """Most of the patch was never scanned: the slide has no pixels at this place."""


class PlanError(G2LError):
    """A plan cannot be built, read or used."""


class StoreError(G2LError):
    """A store is damaged, incomplete, or belongs to another plan, teacher or setting."""


class EncoderError(G2LError):
    """An encoder cannot be built or its weights do not fit."""


class ExportError(G2LError):
    """A file of an export cannot be written, or does not give the student's embeddings."""


class BenchmarkError(G2LError):
    """The data of a benchmark cannot be used as they are, or embeddings hold what is no number."""


class EmbedError(G2LError):
    """A folder of embeddings is of another model or setting, or cannot be written."""


class CheckpointError(G2LError):
    """No checkpoint of a run can be used, or it belongs to another configuration."""


class BusyError(G2LError):
    """Another process works on the same output."""


def words_of(error: OSError) -> str:
    """The system's error in words, with the paths that it is about."""
    paths = [os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes)]
    return ": ".join([" -> ".join(paths), error.strerror or str(error)]).removeprefix(": ")


LIKENESS = 0.6
"""How alike a mistyped name and a known one are at least (`difflib`'s ratio). Its own default."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """ " (did you mean NAME?)" for a name that is nearly a known one, whatever its capitals; "" otherwise."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=LIKENESS)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
