"""A process that may have no more files open, little more memory, or not list a folder."""

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def few_files_left(spare: int = 0) -> Iterator[None]:
    """In the block, this process can open `spare` files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    highest = max(map(int, os.listdir("/dev/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(spare):
            os.close(opened.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)


@contextmanager
def little_memory_left(spare_bytes: int = 1 << 26) -> Iterator[None]:
    """In the block, this process can have `spare_bytes` of addresses more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def unlisted(folder: Path) -> Callable[[Any], Any]:
    """In the place of `os.scandir`: may not list `folder`, also where tests run as the administrator."""
    scandir = os.scandir

    def scan(place: Any = ".") -> Any:
        if Path(place) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return scandir(place)

    return scan
