"""Which slide files are one slide: links, hard links, copies under other names, files of one DICOM series.

Only files of equal size are read, parts of them first; where these are the same, all of it, so that nothing is called a
copy which is none. Of a slide in several files the named one decides, with the one beside it that tells slides apart
(`companion`). Empty files are no slides. What it leaves out: a slide that another program has saved anew.
"""

import hashlib
import os
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from pipeline import dicom
from pipeline.files import sha256_file

NUM_PARTS = 16
PART_BYTES = 1 << 16
"""Parts of a file that are hashed first, evenly over it. Our choice: 1 MiB in all, a few reads."""
MIRAX, HAMAMATSU = ".mrxs", (".vms", ".vmu")
MIRAX_INDEX = "Slidedat.ini"
IMAGE_FILE = re.compile(rb"^ImageFile[^=\r\n]*=[ \t]*([^\r\n]+?)[ \t]*\r?$", re.MULTILINE)
MAX_INDEX_BYTES = 1 << 20
"""Of a Hamamatsu index file; larger ones are none. Our choice."""
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
    """SHA-256 of parts of a file, and of its companion's whole."""
    digest, size = hashlib.sha256(), os.path.getsize(path)
    with open(path, "rb") as f:
        for part in range(NUM_PARTS):
            f.seek(part * max(size - PART_BYTES, 0) // (NUM_PARTS - 1))
            digest.update(f.read(PART_BYTES))
    if beside := companion(path):
        digest.update(sha256_file(beside).encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a whole file; its companion is in the parts' already."""
    return sha256_file(path)


def companion(path: Path) -> Path | None:
    """The file beside a slide's that tells it from others, whose own file may be the same for all: the index of a
    MIRAX slide, the first image of a Hamamatsu one. `None` for slides in one file, or if it is not there.
    """
    suffix = path.suffix.lower()
    beside = None
    if suffix == MIRAX:
        beside = path.with_suffix("") / MIRAX_INDEX
    elif suffix in HAMAMATSU and os.path.getsize(path) <= MAX_INDEX_BYTES:
        found = IMAGE_FILE.search(path.read_bytes())
        beside = path.parent / os.path.basename(os.fsdecode(found[1])) if found else None
    return beside if beside is not None and os.path.isfile(beside) else None
