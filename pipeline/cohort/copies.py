"""Find slide files that are the same slide: links, hard links, copies under other names, files of one DICOM series.

Reads only files of equal size: parts of them first, then whole files if the parts agree, so that every reported copy is
one. A slide of several files is compared by its named file, with parts of the files beside it (`slides.identity`).
Ignores empty files. `near_copies` finds slides whose files differ, though OpenSlide's quickhash does not. Left out:
slides that another program has saved again.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from pipeline.disk.files import sha256_file
from pipeline.slides import dicom
from pipeline.slides.identity import parts_digest

Key = Callable[[Path], Hashable | None]


def copies_of_slides(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of two or more indices into `paths` that are the same slide, ascending. Missing, empty and unreadable
    files are in no group.
    """
    headers = [dicom.read_header(path) if path.suffix.lower() == dicom.SUFFIX else None for path in paths]
    series = [header.series if header else "" for header in headers]
    in_series = _split([[i for i, uid in enumerate(series) if uid]], lambda i: series[i])
    groups = [[i for i, uid in enumerate(series) if not uid]]
    for key in (_size, _digest_of_parts, _digest):
        groups = _split(groups, lambda i, key=_of_inode(key): key(paths[i]))  # type: ignore[misc]
    return sorted([*in_series, *groups])


def near_copies(quickhashes: Sequence[str | None]) -> list[list[int]]:
    """Groups of two or more indices of slides with the same quickhash, ascending: one slide, whatever else its file
    holds. Give `None` for slides without one, and for DICOM, where it is the series' UID.
    """
    return sorted(_split([range(len(quickhashes))], lambda i: quickhashes[i]))


def near_copy_warning(others: Iterable[str]) -> str:
    """The audit's warning for a slide of such a group; `others` are the ids of the rest of the group."""
    return f"the same slide as {' and '.join(map(repr, others))}, by OpenSlide's quickhash, though their files differ"


def _split(groups: Iterable[Sequence[int]], key: Callable[[int], Hashable | None]) -> list[list[int]]:
    """Split groups by a key into groups of two or more that share it; drops indices without a key."""
    parted: list[list[int]] = []
    for group in groups:
        by_key: dict[Hashable, list[int]] = {}
        for index in group:
            if (value := key(index)) is not None:
                by_key.setdefault(value, []).append(index)
        parted += [indices for indices in by_key.values() if len(indices) > 1]
    return parted


def _of_inode(key: Key) -> Key:
    """The key, computed once for all names of a file; `None` for unreadable files."""
    known: dict[tuple[int, int], Hashable | None] = {}

    def of(path: Path) -> Hashable | None:
        try:
            stat = os.stat(path)
            inode = (stat.st_dev, stat.st_ino)
            if inode not in known:
                known[inode] = key(path)
            return known[inode]
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return None

    return of


def _size(path: Path) -> int | None:
    """Size of a file in bytes; `None` if it is empty or not a file."""
    return os.path.getsize(path) or None if os.path.isfile(path) else None


def _digest_of_parts(path: Path) -> str:
    """SHA-256 of parts of a slide's files, including those beside the named one."""
    return parts_digest(path)[0]


def _digest(path: Path) -> str:
    """SHA-256 of a whole file; `_digest_of_parts` has compared the files beside it."""
    return sha256_file(path)
