"""Write the images of a set that publishes larger files: as PNG, once, in a folder that is complete or absent.

The folder records the files that its images were cut from; if they are others now, the images are cut anew.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.console import say
from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import read_json, reading
from pipeline.disk.asides import aside_name, remove
from pipeline.disk.files import write_json
from pipeline.disk.folders import is_free, move, new_folder
from pipeline.slides.identity import parts_digest

Picture = tuple[str, NDArray[np.uint8]]
"""Name below the folder, with `/` for folders, and RGB pixels, uint8 (H, W, 3)."""
CUT_FROM_FILE = "cut_from.json"
"""In the folder: `{"files": [{"path", "bytes", "mtime_ns", "sha256"}, ...]}`; the hash is of parts of a large file."""
COMPRESSION = 1
"""Of zlib, 0 to 9. Our choice: tissue compresses little, and 1 is some five times as fast as 6."""


def write_pictures(folder: Path, sources: Iterable[Path], pictures: Callable[[], Iterable[Picture]]) -> bool:
    """Write the pictures to `folder`, unless they are there and were cut from the same files; returns whether it did.

    The caller holds the lock of the folder above. The folder is filled aside and renamed: if it is there, it is whole.

    Args:
        sources: all files that the pictures depend on.

    Raises:
        BenchmarkError: a source cannot be read, or the folder holds something else.
        OSError: it cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    cut_from = {"files": [_file_facts(path) for path in sources]}
    if not is_free(folder):
        if _recorded_sources(folder) == cut_from:
            return False
        say(f"note: {folder} was cut from other files, or they have changed; it is cut anew")
        aside = folder.with_name(aside_name(f"{folder.name}.old"))
        move(folder, aside)
        remove(aside)
    with new_folder(folder, CUT_FROM_FILE) as aside:
        aside.mkdir()
        for name, pixels in pictures():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, format="PNG", compress_level=COMPRESSION)
        write_json(aside / CUT_FROM_FILE, cut_from)
    return True


def _file_facts(path: Path) -> dict[str, Any]:
    """What tells a source from others, and from itself after a change.

    Raises:
        BenchmarkError: it cannot be read.
    """
    with reading(path, "cannot be read", BenchmarkError):
        sha256, size = parts_digest(path)
        mtime_ns = os.stat(path).st_mtime_ns
    return {"path": str(path.absolute()), "bytes": size, "mtime_ns": mtime_ns, "sha256": sha256}


def _recorded_sources(folder: Path) -> dict[str, Any]:
    """What the images of a folder were cut from.

    Raises:
        BenchmarkError: it does not say, so that it may hold something else.
    """
    path = folder / CUT_FROM_FILE
    with reading(path, "does not say what the images beside it were cut from", BenchmarkError, f"Delete {folder}"):
        return read_json(path)
