"""Links to folders that are not followed when a tree is read: decision 0039 says which are."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.disk.asides import PART_OF_VOLUME

SYSTEM = ("/proc", "/sys", "/dev")
"""Folders in which the system shows itself: no end of entries, and no data of users."""
MEMORY = "/dev/shm"
"""A place of users' files below one of them."""


def leads_out(folder: Path | str, top: Path | str) -> bool:
    """Whether a folder is really one that the tree `top` lies in, `top` itself, or one of the system's (`/proc`): to
    follow a link to it would be to read the tree again with all beside it, or to find no end.
    """
    real = Path(os.path.realpath(folder))
    in_system = any(map(real.is_relative_to, SYSTEM)) and not real.is_relative_to(MEMORY)
    return in_system or Path(os.path.realpath(top)).is_relative_to(real)


def walk_once(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder of the tree `top` once, with the names of its files; follows links to folders that do not lead out.

    Raises:
        OSError: a folder went away, or may not be listed.
    """
    seen = set()
    for folder, folders, files in os.walk(top, onerror=raise_unlisted, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:  # links that lead back
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = [name for name in folders if not _is_link_out(Path(folder, name), top)]
        yield Path(folder), files


def raise_unlisted(error: OSError) -> None:
    """For `os.walk`, which passes over folders that it cannot list without a word. Only what new file systems come with
    is passed over: `lost+found` is often its administrator's alone.

    Raises:
        OSError: as `error`.
    """
    if not isinstance(error, PermissionError) or os.path.basename(str(error.filename)) != PART_OF_VOLUME:
        raise error


def _is_link_out(folder: Path, top: Path) -> bool:
    """Whether a folder is a link that is not followed when `top` is read."""
    return folder.is_symlink() and leads_out(folder, top)
