"""The one boundary for what comes from outside: feature files, images, tables, plans, stores, JSON and TOML of others.

Whoever reads such a file does it within `reading`: whatever goes wrong in there, in any library, becomes one named
error of that file, and the caller goes on with the others. What a file claims to be is held against what it has, and
against the memory there is, before anything of that size is made: `require_claim`, `require_room`. What it leaves out:
a library that ends the whole process (OpenSlide's abort), which no exception tells.
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

from pipeline.base.errors import G2LError

MOST_TEXT_BYTES = 1 << 28
"""256 MiB, the most of a JSON or TOML file. Our choice: the plan of ten thousand slides is a tenth of it."""
MOST_RATIO = 1032
"""Bytes that one byte of a deflated stream can become, at most (zlib's technical notes: 1032 to 1)."""
SMALL_BYTES = 1 << 26
"""64 MiB: what is not larger is not held against the file's size. Our choice: no machine lacks it."""
MOST_SHARE = 0.5
"""Of the free memory that one file may take. Our choice: what is read is copied once, as a rule."""
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much a container may use: cgroups 2, and 1."""


class UnsafeError(ValueError):
    """A file claims more than it has or than there is room for, or would have something else read."""


@contextmanager
def reading(path: Path | str, what: str, error: type[G2LError], mend: str = "") -> Iterator[None]:
    """Turn whatever the block raises into one `error` that names the file; errors of G2L pass as they are, and so do
    Ctrl-C and `SystemExit`.

    Args:
        what: what the file then is: "not a readable feature file", "damaged".
        mend: what the user can do, as a sentence.

    Raises:
        G2LError: of the class `error`: the file cannot be read as what it should be.
    """
    try:
        yield
    except G2LError:
        raise
    except Exception as problem:  # noqa: BLE001  (the point of this boundary: libraries' errors are not listed by hand)
        way_out = f". {mend}" if mend else ""
        raise error(f"{path}: {what} ({one_line(problem)}){way_out}") from None


def one_line(problem: BaseException) -> str:
    """An error's message in one line, or its type if it has none; of torch's long ones the first sentence."""
    if isinstance(problem, MemoryError):
        return "it would take more memory than there is"
    if isinstance(problem, RecursionError):
        return "nested too deeply"
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    if isinstance(problem, KeyError) and " " not in text:
        text = f"no {text}"  # a name; HDF5's sentences stay as they are
    return " ".join(text.split()).split(". ")[0] or type(problem).__name__


def require_regular(path: Path) -> int:
    """The bytes of a regular file, through links; pipes and devices, which may never end, are refused.

    Raises:
        OSError: there is no such file, or it is a folder.
        UnsafeError: it is something else.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeError("a pipe or device, not a file")
    return found.st_size


def read_bytes(path: Path, most: int = MOST_TEXT_BYTES) -> bytes:
    """The bytes of a regular file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        UnsafeError: it is larger, or no regular file.
    """
    if (size := require_regular(path)) > most:
        raise UnsafeError(f"{format_size(size)}; at most {format_size(most)} are read")
    with open(path, "rb") as f:
        data = f.read(most + 1)
    if len(data) > most:  # it has grown
        raise UnsafeError(f"more than {format_size(most)}")
    return data


def is_there(path: Path) -> bool:
    """Whether an optional file is there, or anything in its place: a link that leads nowhere is, so that reading it
    fails by name instead of being taken for no file.
    """
    return os.path.lexists(path)


def read_json(path: Path, most: int = MOST_TEXT_BYTES) -> dict[str, Any]:
    """The object in a JSON file; for use within `reading`.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is too large, no JSON, or something else than an object.
    """
    return parse_object(read_bytes(path, most).decode())


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises:
        ValueError, RecursionError: it is no JSON, or something else than an object.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not an object")
    return value


def read_toml(path: Path, most: int = MOST_TEXT_BYTES) -> dict[str, Any]:
    """The tables of a TOML file; for use within `reading`.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is too large, or no TOML.
    """
    return tomllib.loads(read_bytes(path, most).decode())


def require_claim(claimed: int, stored: int, what: str) -> None:
    """See that `stored` bytes can hold what they claim, compressed as far as deflate can.

    Raises:
        UnsafeError: they cannot.
    """
    if claimed > SMALL_BYTES and claimed > MOST_RATIO * stored:
        raise UnsafeError(f"{what} claims {format_size(claimed)}, but the file has {format_size(stored)} of it")


def require_room(num_bytes: int, what: str, share: float = MOST_SHARE) -> None:
    """See that there is memory for something.

    Raises:
        UnsafeError: it would take more than `share` of what is free.
    """
    free = free_memory_bytes() if num_bytes > SMALL_BYTES else None
    if free is not None and num_bytes > share * free:
        raise UnsafeError(f"{what} would take {format_size(num_bytes)} of memory; {format_size(free)} are free")


def free_memory_bytes() -> int | None:
    """Memory that this process may still get; `None` where the system does not say."""
    found: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for place in MEMORY_LIMITS:
        try:
            found.append(int(Path(place).read_text()))
        except (OSError, ValueError):  # no container, or "max"
            continue
    return min(found, default=None)


def printable(text: str) -> str:
    """`text` for a terminal: line ends stay, other control characters, those that turn the direction of writing, and
    what is no text show as escapes, so that no name of a file moves the cursor, colours the line or hides a part.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else ascii(c)[1:-1]
        for c in text
    )


def format_size(num_bytes: int) -> str:
    """Bytes in words, with binary units: 29.0 TiB."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
