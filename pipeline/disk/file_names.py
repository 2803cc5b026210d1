"""Find files that a table names, although accents may be composed in the table and not on disk, or vice versa.

Older Mac disks, and archives made on them, spell `é` as `e` plus an accent (NFD); keyboards and tables use one letter
(NFC). The exact name comes first; otherwise names match if they are equal once composed. A folder is listed once for
all names that are looked for in it, until it changes.
"""

import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pipeline.disk.tables import composed

MOST_FOLDERS = 64
"""Folders whose names are kept in memory. Our choice: a table names the files of few folders, one after the other."""
SETTLED_SECONDS = 10.0
"""How long a folder must have been unchanged for its names to be kept. Our choice: the time of a change is exact to two
seconds on the coarsest file systems, and a file server's clock may be some seconds off.
"""


def files_named(path: Path) -> list[Path]:
    """The file or folder `path` if it exists, else all whose composed names equal its own; sorted."""
    if str(path).isascii() or os.path.lexists(path):
        return [path] if os.path.lexists(path) else []
    matches = [Path(path.anchor)]
    for part in path.parts[1:] if path.anchor else path.parts:
        matches = [inner for folder in matches for inner in _inside(folder, part)]
    return sorted(matches)


def file_named(path: Path) -> Path:
    """The one file that matches `path`; `path` itself if none or several match."""
    if str(path).isascii():
        return path
    matches = files_named(path)
    return matches[0] if len(matches) == 1 else path


def name_trouble(path: Path) -> str:
    """Why `path` is ambiguous; empty if at most one file matches."""
    matches = [] if str(path).isascii() else files_named(path)
    if len(matches) < 2:
        return ""
    names = " and ".join(ascii(str(file)) for file in matches)
    return f"could be {names}, which differ only in the encoding of accents; rename one"


def _inside(folder: Path, name: str) -> list[Path]:
    """Entries of a folder with this name, exact or else composed."""
    if os.path.lexists(folder / name):
        return [folder / name]
    try:
        names = _names_in(folder)
    except OSError:
        return []
    return [folder / other for other in names.get(composed(name), ())]


def _names_in(folder: Path) -> Mapping[str, Sequence[str]]:
    """The names in a folder by their composed forms.

    Raises:
        OSError: it cannot be listed.
    """
    status = os.stat(folder)
    # tar, `rsync -a` and `cp -a` set the time of a folder back once its files are there; nothing sets ctime back.
    # A time to come that they bring along, of a clock that was wrong, says nothing: each change sets ctime, too.
    now = time.time()
    if now - max(status.st_ctime, status.st_mtime if status.st_mtime <= now else 0.0) < SETTLED_SECONDS:
        return _list_names(folder)
    place = os.path.abspath(folder)
    return _kept_names(place, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(MOST_FOLDERS)
def _kept_names(folder: str, device: int, inode: int, modified_ns: int, changed_ns: int) -> Mapping[str, Sequence[str]]:
    """As `_list_names`, kept; the numbers tell the folder's state."""
    return _list_names(Path(folder))


def _list_names(folder: Path) -> Mapping[str, Sequence[str]]:
    """As `_names_in`, of the folder as it is now."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(composed(name), []).append(name)
    return names
