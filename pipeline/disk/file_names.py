"""Find files that a table names, although accents may be composed in the table and not on disk, or vice versa.

Older Mac disks, and archives made on them, spell `é` as `e` plus an accent (NFD); keyboards and tables use one letter
(NFC). The exact name comes first; otherwise names match if they are equal once composed.
"""

import os
from pathlib import Path

from pipeline.disk.tables import composed


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
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / other for other in names if composed(other) == composed(name)]
