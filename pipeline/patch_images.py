"""Patches that come as image files: looked through once, then read at an encoder's input size.

An image is cut to its central square and resampled once to the encoder's side (bicubic with antialiasing, as Pillow
does it); transparency becomes white. Left out: colour profiles and orientation tags.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.compute import first_line
from pipeline.errors import BenchmarkError
from pipeline.runlog import Progress

PREPARATION = "central square, bicubic, white behind transparency"
"""What `read_image` does; part of the key that embeddings are kept under."""

MODES_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
MODES_OF_ONE_BYTE = ("1", "L", "P", "RGB", "CMYK", "YCbCr", *MODES_WITH_ALPHA)
"""Pillow's modes of 8 bits a channel; others would be cut off rather than scaled when they are made RGB."""

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What Pillow raises for a file that is no image, or a damaged one."""


@dataclass(frozen=True)
class ScannedImages:
    """What looking through image files found.

    Attributes:
        sha256: hex SHA-256 of each file's bytes, "" where it cannot be read.
        problems: why an image cannot be used, by its index.
        sizes: how many images have which (width, height), pixels.
        pixels: hex SHA-256 of each image's size and RGB pixels, the same for copies that were saved in other ways; ""
            where it cannot be used.
        plain: indices of images of one colour throughout.
    """

    sha256: list[str]
    problems: dict[int, str]
    sizes: dict[tuple[int, int], int]
    pixels: list[str]
    plain: frozenset[int]

    def usable(self) -> NDArray[np.int64]:
        """Indices of the images that can be used, ascending."""
        return np.array([i for i in range(len(self.sha256)) if i not in self.problems], dtype=np.int64)

    def data_key(self, patch_px: int) -> dict[str, Any]:
        """What the usable images are, at an encoder's input size: a key for their embeddings."""
        return {
            "images": [self.sha256[i] for i in self.usable()],
            "patch_px": patch_px,
            "preparation": PREPARATION,
        }


def scan_images(paths: Sequence[Path], workers: int) -> ScannedImages:
    """Read and decode every file once; nothing is raised for a bad one."""
    with ThreadPoolExecutor(workers) as pool, Progress("looking through images", len(paths), "images") as progress:
        results = []
        for result in pool.map(_scan, paths):
            results.append(result)
            progress.step()
    return ScannedImages(
        sha256=[found.sha256 for found in results],
        problems={i: found.problem for i, found in enumerate(results) if found.problem},
        sizes=dict(sorted(Counter(found.size for found in results if not found.problem).items())),
        pixels=[found.pixels for found in results],
        plain=frozenset(i for i, found in enumerate(results) if found.is_plain),
    )


@dataclass(frozen=True)
class _Scanned:
    """What one file is; see `ScannedImages`. `problem` is "" if there is none."""

    sha256: str
    problem: str
    size: tuple[int, int] = (0, 0)
    pixels: str = ""
    is_plain: bool = False


def _scan(path: Path) -> _Scanned:
    """Read and decode one file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return _Scanned("", error.strerror or type(error).__name__)
    digest = hashlib.sha256(data).hexdigest()
    if not data:
        return _Scanned(digest, "the file is empty")
    try:
        image = _decode(data)
    except UNREADABLE as error:
        return _Scanned(digest, f"not readable as an image ({first_line(error)})")
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    extrema = np.array(image.getextrema())  # of each channel the least and the largest
    return _Scanned(digest, "", image.size, pixels, bool((extrema[:, 0] == extrema[:, 1]).all()))


def _decode(data: bytes) -> Image.Image:
    """An RGB image of a file's bytes.

    Raises:
        ValueError: it has more than 8 bits a channel. Any of `UNREADABLE` for a damaged file.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.mode not in MODES_OF_ONE_BYTE:
            raise ValueError(f"pixels of type {image.mode}, not of 8 bits")
        if image.mode in MODES_WITH_ALPHA or "transparency" in image.info:
            transparent = image.convert("RGBA")
            white = Image.new("RGBA", transparent.size, "white")
            return Image.alpha_composite(white, transparent).convert("RGB")
        return image.convert("RGB")


def read_image(path: Path, out: NDArray[np.uint8]) -> None:
    """Fill `out`, uint8 (P, P, 3), with an image file's central square.

    Raises:
        BenchmarkError: it cannot be read any more.
    """
    try:
        image = _decode(path.read_bytes())
    except UNREADABLE as error:
        raise BenchmarkError(f"{path}: could be read before, but not now ({first_line(error)})") from None
    side, target = min(image.size), out.shape[0]
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    out[:] = np.asarray(image if side == target else image.resize((target, target), Image.Resampling.BICUBIC))
