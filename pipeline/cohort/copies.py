"""Which slide files are one slide: links, hard links, copies under other names, files of one DICOM series.

Only files of equal size are read, parts of them first; where these are the same, all of it, so that nothing is called a
copy which is none. Of a slide in several files the named one decides, with parts of those beside it
(`slides.identity`). Empty files are no slides. What it leaves out: a slide that another program has saved anew.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from pipeline.disk.files import sha256_file
from pipeline.slides import dicom
from pipeline.slides.identity import parts_digest

Key = Callable[[Path], Hashable | None]


def copies_of_slides(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of indices into `paths` that are of one slide, each of two or more, ascending. Files that are missing,
    empty or unreadable are of none.
    """
    headers = [dicom.read_header(path) if path.suffix.lower() == dicom.SUFFIX else None for path in paths]
    series = [header.series if header else "" for header in headers]
    in_series = _split([[i for i, uid in enumerate(series) if uid]], lambda i: series[i])
    groups = [[i for i, uid in enumerate(series) if not uid]]
    for key in (_size, _digest_of_parts, _digest):
        groups = _split(groups, lambda i, key=_of_inode(key): key(paths[i]))  # type: ignore[misc]
    return sorted([*in_series, *groups])


def _split(groups: Iterable[Sequence[int]], key: Callable[[int], Hashable | None]) -> list[list[int]]:
    """Groups parted by a key, as far as two or more share it; what has none is left out."""
    parted: list[list[int]] = []
    for group in groups:
        by_key: dict[Hashable, list[int]] = {}
        for index in group:
            if (value := key(index)) is not None:
                by_key.setdefault(value, []).append(index)
        parted += [found for found in by_key.values() if len(found) > 1]
    return parted


def _of_inode(key: Key) -> Key:
    """The key, found once for all names of a file; `None` where it cannot be read."""
    known: dict[tuple[int, int], Hashable | None] = {}

    def of(path: Path) -> Hashable | None:
        try:
            stat = os.stat(path)
            inode = (stat.st_dev, stat.st_ino)
            if inode not in known:
                known[inode] = key(path)
            return known[inode]
        except (OSError, ValueError):  # the latter: a name that no file can have
            return None

    return of


def _size(path: Path) -> int | None:
    """Bytes of a file; `None` for an empty one and for what is no file."""
    return os.path.getsize(path) or None if os.path.isfile(path) else None


def _digest_of_parts(path: Path) -> str:
    """SHA-256 of parts of a slide's files, those beside the named one too."""
    return parts_digest(path)[0]


def _digest(path: Path) -> str:
    """SHA-256 of a whole file; parts of those beside it are among the parts already."""
    return sha256_file(path)
