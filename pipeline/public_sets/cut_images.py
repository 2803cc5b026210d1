"""Write the images of a set that publishes larger files: as PNG, once, in a folder that is complete or absent."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.disk.folders import is_free, new_folder

Picture = tuple[str, NDArray[np.uint8]]
"""Name below the folder, with `/` for folders, and RGB pixels, uint8 (H, W, 3)."""
COMPRESSION = 1
"""Of zlib, 0 to 9. Our choice: tissue compresses little, and 1 is some five times as fast as 6."""


def write_pictures(folder: Path, pictures: Callable[[], Iterable[Picture]]) -> bool:
    """Write the pictures to `folder` unless it is there already; returns whether it wrote them.

    The caller holds the lock of the folder above. The folder is filled aside and renamed: if it is there, it is whole.

    Raises:
        OSError: it cannot be written.
    """
    if not is_free(folder):
        return False
    with new_folder(folder, "") as aside:
        aside.mkdir()
        for name, pixels in pictures():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, format="PNG", compress_level=COMPRESSION)
    return True
