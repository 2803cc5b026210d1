"""Patches that come as image files: look through them once, then read them at an encoder's input size.

An image is cut to its central square and resampled once to the encoder's side (bicubic with antialiasing, as Pillow
does it); transparency becomes white. Left out: colour profiles and orientation tags.
"""

import hashlib
import io
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.base.console import Progress, counted
from pipeline.base.errors import BenchmarkError, raise_if_limit
from pipeline.base.outside import UnsafeError, one_line, read_bytes, reading
from pipeline.config.groups import Decode
from pipeline.disk.file_names import name_trouble
from pipeline.disk.tables import Problem, Record
from pipeline.evaluate.benchmark import PatchSource
from pipeline.report.content import Exclusion
from pipeline.student.resolve import NamedModel

warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
"""Pillow's warnings name no image, and what is wrong with one is told as an error. Said once for the process: a filter
for a block is no matter of one thread.
"""

PREPARATION = "central square, bicubic, white behind transparency"
"""What `read_image` does; part of the key that embeddings are kept under."""

MODES_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
MODES_OF_ONE_BYTE = ("1", "L", "P", "RGB", "CMYK", "YCbCr", *MODES_WITH_ALPHA)
"""Pillow's modes of 8 bits a channel; others would be cut off rather than scaled when they are made RGB."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Formats that are opened, whatever a file is called. Pillow knows more, and starts another program for some
(Ghostscript for PostScript).
"""
MOST_PIXELS = 89_478_485
"""Of an image: Pillow's own limit, 256 MB of RGB, beyond which it warns (`Image.MAX_IMAGE_PIXELS`)."""
MOST_IMAGE_BYTES = 1 << 30
"""1 GiB, of an image's file. Our choice: twice what that many pixels take without compression."""
MAX_SIZES_NAMED = 4
"""Sizes of images that a note lists. Our choice."""


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
        return {"images": [self.sha256[i] for i in self.usable()], "patch_px": patch_px, "preparation": PREPARATION}


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The images of a benchmark's table or folder `source`, looked through; `paths` are all of them."""

    source: Path
    paths: list[Path]
    scanned: ScannedImages

    @property
    def usable(self) -> NDArray[np.int64]:
        """Indices of the images that can be used, ascending."""
        return self.scanned.usable()

    @property
    def exclusions(self) -> list[Exclusion]:
        """The images that cannot be used, and why."""
        return [Exclusion(str(self.paths[i]), problem) for i, problem in self.scanned.problems.items()]

    def notes(self) -> list[str]:
        """How many images are left out, if any."""
        if not self.scanned.problems:
            return []
        return [
            f"left out of {self.source}: {len(self.scanned.problems):,} of {counted(len(self.paths), 'image')}; the "
            "report lists them"
        ]

    def patch_source(self, name: str) -> PatchSource:
        """The usable images as patches to embed."""
        paths = [self.paths[i] for i in self.usable]
        return PatchSource(name, range(len(paths)), lambda row, out: read_image(paths[row], out), self.scanned.data_key)

    def resampling_notes(self, sides_px: Iterable[int]) -> list[str]:
        """How many images were cut and resampled for models whose inputs have these sides, if any."""
        sides, sizes = sorted(set(sides_px)), self.scanned.sizes
        count = sum(n for (w, h), n in sizes.items() if not {w, h} <= set(sides) or len(sides) > 1)
        if not count:
            return []
        listed = ", ".join(f"{w} x {h}" for w, h in list(sizes)[:MAX_SIZES_NAMED])
        return [
            f"{counted(count, 'image was', 'images were')} cut to the central square and resampled to an encoder's "
            f"input of {', '.join(str(side) for side in sides)} px; the sizes are "
            f"{listed}{', ...' if len(sizes) > MAX_SIZES_NAMED else ''} px."
        ]


def decode_notes(models: Iterable[NamedModel], decode: Decode = "full") -> list[str]:
    """Which students saw tiles decoded at another size in training than those of the patches that are scored, if any.

    Args:
        decode: of these patches.

    Raises:
        EncoderError: a student's description is damaged.
    """
    learnt = {model.label: model.decode for model in models if model.student is not None}
    words = {"half": "half their size", "full": "full size"}
    return [
        f"{label} was trained on tiles decoded at {words[size]} (plan --decode {size}); these patches are of others."
        for label, size in learnt.items()
        if size != decode
    ]


def require_images_root(folder: Path | None) -> None:
    """Check the folder that paths of images start from, if the user named one.

    Raises:
        BenchmarkError: it is no folder.
    """
    if folder is not None and not os.path.isdir(folder):
        raise BenchmarkError(f"the images' folder {folder} is not a folder; correct --images-root")


def path_problems(root: Path, records: Iterable[Record]) -> list[Problem]:
    """Cells of the column `path` that, below `root`, cannot name a file; by their lines."""
    troubles = ((line, row["path"], name_trouble(root / row["path"])) for line, row in records)
    return [(line, f"path {name!r} {trouble}") for line, name, trouble in troubles if trouble]


def look_through(paths: Sequence[Path], workers: int, source: Path) -> ImageFiles:
    """Scan the images of `source`, a table or folder.

    Raises:
        BenchmarkError: none can be used.
    """
    images = ImageFiles(source, list(paths), scan_images(paths, workers))
    if len(images.scanned.problems) == len(paths):
        raise BenchmarkError(
            f"{source}: none of its {len(paths)} images can be used; the first, {paths[0]}: {images.exclusions[0].why}"
        )
    return images


def scan_images(paths: Sequence[Path], workers: int) -> ScannedImages:
    """Read and decode every file once; nothing is raised for a bad one."""
    with ThreadPoolExecutor(workers) as pool, Progress("looking through images", len(paths), "images") as progress:
        results = []
        for result in pool.map(_scan, paths):
            results.append(result)
            progress.step()
    return ScannedImages(
        sha256=[image.sha256 for image in results],
        problems={i: image.problem for i, image in enumerate(results) if image.problem},
        sizes=dict(sorted(Counter(image.size for image in results if not image.problem).items())),
        pixels=[image.pixels for image in results],
        plain=frozenset(i for i, image in enumerate(results) if image.is_plain),
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
    digest = ""
    try:
        data = read_bytes(path, MOST_IMAGE_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        if not data:
            return _Scanned(digest, "the file is empty")
        image = _decode(data)
    except UnidentifiedImageError:  # Pillow's own words hold an address in memory
        return _Scanned(digest, f"not readable as an image (none of {', '.join(FORMATS)})")
    except OSError as error:
        raise_if_limit(error)
        if not digest:
            return _Scanned("", error.strerror or type(error).__name__)
        return _Scanned(digest, f"not readable as an image ({one_line(error)})")
    except Exception as error:  # noqa: BLE001  (of one image: whatever Pillow's decoders raise is its failure alone)
        raise_if_limit(error)
        return _Scanned(digest, f"not readable as an image ({one_line(error)})")
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    extrema = np.array(image.getextrema())  # of each channel the least and the largest
    return _Scanned(digest, "", image.size, pixels, bool((extrema[:, 0] == extrema[:, 1]).all()))


def _decode(data: bytes) -> Image.Image:
    """An RGB image of a file's bytes.

    Raises:
        ValueError: it has more than 8 bits a channel, or more than `MOST_PIXELS`.
        Exception: any of Pillow's, of a damaged file or one of another format.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise UnsafeError(f"{image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS:,} are read")
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
    with reading(path, "could be read before, but not now", BenchmarkError):
        image = _decode(read_bytes(path, MOST_IMAGE_BYTES))
    side, target = min(image.size), out.shape[0]
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    out[:] = np.asarray(image if side == target else image.resize((target, target), Image.Resampling.BICUBIC))
