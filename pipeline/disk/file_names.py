"""Files that a table names: accents may be composed in the table and not on the disk, or the other way round.

A Mac's older disks and archives made on one spell `é` as `e` and an accent (NFD), keyboards and tables as one letter
(NFC). The exact name counts first; otherwise a file is meant whose name is the same when both are composed.
"""

import os
from pathlib import Path

from pipeline.disk.tables import composed


def files_named(path: Path) -> list[Path]:
    """The file or folder `path` if it is there, else those whose names are the same when composed; sorted."""
    if str(path).isascii() or os.path.lexists(path):
        return [path] if os.path.lexists(path) else []
    found = [Path(path.anchor)]
    for part in path.parts[1:] if path.anchor else path.parts:
        found = [inner for folder in found for inner in _inside(folder, part)]
    return sorted(found)


def file_named(path: Path) -> Path:
    """The only file that `path` can mean; `path` itself if there is none or are several."""
    if str(path).isascii():
        return path
    found = files_named(path)
    return found[0] if len(found) == 1 else path


def name_trouble(path: Path) -> str:
    """Why it is not clear which file is meant; empty if it is, or there is none."""
    found = [] if str(path).isascii() else files_named(path)
    if len(found) < 2:
        return ""
    names = " and ".join(ascii(str(file)) for file in found)
    return f"could be {names}, which differ only in how letters with accents are written; rename one"


def _inside(folder: Path, name: str) -> list[Path]:
    """What is in a folder and has this name, exactly or composed."""
    if os.path.lexists(folder / name):
        return [folder / name]
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / other for other in names if composed(other) == composed(name)]
