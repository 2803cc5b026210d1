"""Find slide files that are the same slide: links, hard links, copies under other names, files of one DICOM series.

Reads only files of equal size: parts of them first, then whole files if the parts agree, so that every reported copy is
one. A slide of several files is compared by its named file, with parts of the files beside it (`slides.identity`).
Ignores empty files. `near_copies` finds slides whose files differ, though OpenSlide's quickhash or their pixels do not.
Left out: slides that another program has encoded again, turned or cropped, and copies that are read at another mpp.
"""

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import raise_if_limit
from pipeline.disk.files import sha256_file
from pipeline.slides import dicom
from pipeline.slides.glass import strips
from pipeline.slides.identity import parts_digest

Key = Callable[[Path], Hashable | None]

BY_QUICKHASH, BY_PIXELS = "OpenSlide's quickhash", "the pixels of their tissue thumbnails"
"""How near-copies are known, in words."""


def copies_of_slides(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of two or more indices into `paths` that are the same slide, ascending. Missing, empty and unreadable
    files are in no group.
    """
    headers = [dicom.read_header(path) if path.suffix.lower() == dicom.SUFFIX else None for path in paths]
    series = [header.series if header else "" for header in headers]
    in_series = _split([[i for i, uid in enumerate(series) if uid]], lambda i: series[i])
    groups = [[i for i, uid in enumerate(series) if not uid]]
    for key in (_size, _digest_of_parts, _digest):
        groups = _split(groups, lambda i, key=_by_inode(key): key(paths[i]))  # type: ignore[misc]
    return sorted([*in_series, *groups])


def near_copies(quickhashes: Sequence[str | None], pixels: Sequence[str | None] = ()) -> list[list[int]]:
    """Groups of two or more indices of slides with the same quickhash or the same pixels, ascending: one slide,
    whatever else its file holds. A slide that shares its quickhash with one and its pixels with another joins both.

    Args:
        quickhashes: `None` for slides without one, and for DICOM, where it is the series' UID.
        pixels: `pixels_digest` of each slide; empty if they are not known. OpenSlide's quickhash covers the TIFF file's
            description, too, and is absent where each level is large, so that equal pixels show more copies.
    """
    group_of = {index: [index] for index in range(len(quickhashes))}
    for keys in (quickhashes, pixels):
        for first, *others in _split([range(len(keys))], keys.__getitem__):
            for other in others:
                if group_of[other] is not group_of[first]:
                    group_of[first] += group_of[other]
                    group_of.update(dict.fromkeys(group_of[other], group_of[first]))
    groups = {min(group): sorted(group) for group in group_of.values() if len(group) > 1}
    return [groups[first] for first in sorted(groups)]


def pixels_digest(
    thumbnail: NDArray[np.uint8], unreadable: NDArray[np.bool_], size_l0_px: tuple[int, int]
) -> str | None:
    """SHA-256 of a slide's decoded thumbnail (H, W, 3) and its size, which a change of the file's metadata leaves as it
    is. `None` if what is readable is of one colour: blank slides look alike.
    """
    readable = ~unreadable
    first = thumbnail[np.unravel_index(readable.argmax(), readable.shape)]
    parts = ((thumbnail[rows] != first).any(axis=2) & readable[rows] for rows in strips(*readable.shape))
    if not any(part.any() for part in parts):
        return None
    digest = hashlib.sha256(repr((size_l0_px, thumbnail.shape)).encode())
    digest.update(np.ascontiguousarray(thumbnail).data)
    return digest.hexdigest()


def near_copy_warning(others: Iterable[str], by: str = BY_QUICKHASH) -> str:
    """The audit's warning for a slide of such a group; `others` are the ids of the rest of the group."""
    return f"the same slide as {' and '.join(map(repr, others))}, by {by}, though their files differ"


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


def _by_inode(key: Key) -> Key:
    """The key, computed once for all names of a file; `None` for unreadable files."""
    known: dict[tuple[int, int], Hashable | None] = {}

    def of(path: Path) -> Hashable | None:
        try:
            stat = os.stat(path)
            inode = (stat.st_dev, stat.st_ino)
            if inode not in known:
                known[inode] = key(path)
            return known[inode]
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise_if_limit(error)
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
