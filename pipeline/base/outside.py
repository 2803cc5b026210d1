"""The one boundary for files from outside: feature files, images, tables, plans, stores, JSON and TOML.

Read such a file inside `reading`: any failure, in any library, becomes one error that names the file, and the caller
goes on with the others. Before memory is allocated, a file's claimed size is checked against its bytes and against the
free memory: `require_claim`, `require_room`. Left out: libraries that end the whole process (OpenSlide's abort), which
no exception reports; see `disk.first_look`.
"""

import errno
import json
import os
import stat
import tomllib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.parsers import expat

from pipeline.base.cores import free_group_bytes
from pipeline.base.errors import G2LError, raise_if_limit

MOST_TEXT_BYTES = 1 << 28
"""256 MiB, the largest JSON or TOML file. Our choice: the plan of ten thousand slides is a tenth of it."""
MOST_RATIO = 1032
"""Most bytes that one byte of a deflated stream can expand to (zlib's technical notes: 1032 to 1)."""
SMALL_BYTES = 1 << 26
"""64 MiB: smaller claims are not checked. Our choice: every machine has that much memory."""
MOST_SHARE = 0.5
"""Share of the free memory that one file may use. Our choice: data read are usually copied once."""


class UnsafeError(ValueError):
    """A file claims more data than it has or than memory can hold, or points at another file."""


@contextmanager
def reading(path: Path | str, what: str, error: type[G2LError], fix: str = "") -> Iterator[None]:
    """Turn any exception of the block into one `error` that names the file. Errors of G2L, Ctrl-C and `SystemExit` pass
    unchanged.

    Args:
        what: the verdict on the file: "not a readable feature file", "damaged".
        fix: what the user can do, as a sentence.

    Raises:
        G2LError: of the class `error`: the file cannot be read.
        LimitError: this process may open or start no more; that is not the file's fault.
    """
    try:
        yield
    except G2LError:
        raise
    except Exception as problem:  # noqa: BLE001  (the point of this boundary: libraries' errors are not listed by hand)
        raise_if_limit(problem)
        advice = f". {fix}" if fix else ""
        raise error(f"{path}: {what} ({one_line(problem)}){advice}") from None


def one_line(problem: BaseException) -> str:
    """An error's first sentence on one line (torch's messages are long), or its type if the message is empty."""
    if isinstance(problem, MemoryError):
        return "it needs more memory than there is"
    if isinstance(problem, RecursionError):
        return "nested too deeply"
    if place := _place_of(problem):
        return place
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    if isinstance(problem, KeyError) and " " not in text:
        text = f"no {text}"  # a bare key; HDF5 raises KeyError with whole sentences
    if text and not any(letter.isalpha() for letter in text):  # a bare number, as of a missing place in a list
        return f"damaged or cut off: {type(problem).__name__} {text}"
    return " ".join(text.split()).split(". ")[0] or type(problem).__name__


def _place_of(problem: BaseException) -> str:
    """Where text is not what it should be; "" of other errors."""
    if isinstance(problem, UnicodeDecodeError):
        return f"it is not {problem.encoding.upper()} text from byte {problem.start + 1} on"
    if isinstance(problem, json.JSONDecodeError):
        where = f"line {problem.lineno}, column {problem.colno}"
        return f"it is not JSON from {where} on: {problem.msg.lower()}" if problem.doc.strip() else "it is empty"
    if isinstance(problem, expat.ExpatError):
        where = f"line {problem.lineno}, column {problem.offset + 1}"
        return f"it is not XML from {where} on: {expat.ErrorString(problem.code)}"
    return ""


def require_regular(path: Path) -> int:
    """The size of a regular file in bytes, following links. Refuses pipes and devices, which may never end.

    Raises:
        OSError: there is no such file, or it is a folder.
        UnsafeError: it is a pipe or device.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeError("a pipe or device, not a file")
    return status.st_size


NO_FILE = "no such file"


def file_trouble(path: Path) -> str:
    """Why a path is not that of a file, in words; "" if it is, also if it may not be read. Opens nothing, so that no
    pipe holds it up.
    """
    try:
        require_regular(path)
    except IsADirectoryError:
        return "it is a folder, not a file"
    except UnsafeError as error:
        return f"it is {error}"
    except (FileNotFoundError, NotADirectoryError):
        return f"a link to {os.path.realpath(path)}, which is not there" if os.path.islink(path) else NO_FILE
    except ValueError:  # a name that no file can have
        return NO_FILE
    except OSError as error:
        return one_line(error)
    return ""


def read_bytes(path: Path, most: int = MOST_TEXT_BYTES) -> bytes:
    """Read a regular file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        UnsafeError: it is larger, or not a regular file.
    """
    if (size := require_regular(path)) > most:
        raise UnsafeError(f"{format_size(size)}; the limit is {format_size(most)}")
    with open(path, "rb") as f:
        data = f.read(most + 1)
    if len(data) > most:  # it grew meanwhile
        raise UnsafeError(f"more than {format_size(most)}")
    return data


def read_part(path: Path, start: int, count: int) -> bytes:
    """`count` bytes of a regular file from `start` on, fewer where it ends.

    Raises:
        OSError: it cannot be read.
        UnsafeError: it is not a regular file.
    """
    require_regular(path)
    with open(path, "rb") as f:
        f.seek(start)
        return f.read(count)


def is_there(path: Path) -> bool:
    """Whether anything has the name of an optional file. A broken link counts, so that reading it fails instead of
    passing for an absent file.
    """
    return os.path.lexists(path)


def read_json(path: Path, most: int = MOST_TEXT_BYTES) -> dict[str, Any]:
    """Read a JSON file that holds an object; for use inside `reading`.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is too large, is not JSON, or holds no object.
    """
    return parse_object(read_bytes(path, most).decode())


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON text that holds an object.

    Raises:
        ValueError, RecursionError: it is not JSON, or holds no object.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not an object")
    return value


def read_toml(path: Path, most: int = MOST_TEXT_BYTES) -> dict[str, Any]:
    """Read the tables of a TOML file, perhaps with a byte order mark, as Windows writes it; for use inside `reading`.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is too large, or is not TOML.
    """
    return tomllib.loads(read_bytes(path, most).decode().removeprefix("\ufeff"))


def require_claim(claimed: int, stored: int, what: str) -> None:
    """Check that `stored` bytes can expand to the `claimed` bytes at deflate's best ratio.

    Raises:
        UnsafeError: they cannot.
    """
    if claimed > SMALL_BYTES and claimed > MOST_RATIO * stored:
        raise UnsafeError(f"{what} claims {format_size(claimed)}, but the file has only {format_size(stored)}")


def require_room(num_bytes: int, what: str, share: float = MOST_SHARE) -> None:
    """Check that memory has room for `num_bytes`.

    Raises:
        UnsafeError: they need more than `share` of the free memory.
    """
    free = free_memory_bytes() if num_bytes > SMALL_BYTES else None
    if free is not None and num_bytes > share * free:
        raise UnsafeError(f"{what} needs {format_size(num_bytes)} of memory; {format_size(free)} are free")


def free_memory_bytes() -> int | None:
    """Memory still available to this process, on the machine and in its control group; `None` if the system does not
    say.
    """
    limits: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if (free := free_group_bytes()) is not None:
        limits.append(free)
    return min(limits, default=None)


def printable(text: str) -> str:
    """`text` made safe for a terminal: escapes control characters (but for line ends and tabs), direction marks and
    lone surrogates, so that a file name cannot move the cursor, colour the line or hide a part of it.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else ascii(c)[1:-1]
        for c in text
    )


def format_size(num_bytes: int) -> str:
    """Format bytes in binary units: 29.0 TiB."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
