"""Identify a slide: tell it from other slides, and from itself after a change.

OpenSlide's quickhash covers only the coarsest level, and is absent if that level is large. So an identity also holds
the file's size, the level sizes, the mpp, and a SHA-256: of the whole file if it is small, else of its head, its tail
and evenly spaced blocks between them, 2 MB in all. Left out: a change that keeps the file's length and misses every
block; `--check-files` with the manifest's sha256 finds it.

OpenSlide's quickhash of a DICOM slide is a hash of its series' UID, of a Zeiss slide one of its identifiers and
metadata: they say nothing of the pixels, so that the file's bytes always count, of DICOM with those of the other
levels' files in its folder. Of a Hamamatsu index of several images, all images count.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.base.errors import SlideError, raise_if_limit
from pipeline.disk.files import sha256_file
from pipeline.slides import dicom
from pipeline.slides.info import SlideInfo

BLOCK_BYTES = 1 << 16
NUM_BLOCKS = 32
"""Blocks read from a large file, including the first and the last. Our choice: 2 MiB in all, one block in every 30 MB
of a 1 GB slide.
"""
MIRAX, HAMAMATSU = ".mrxs", (".vms", ".vmu")
"""Formats of several files, whose named file may be the same for all slides."""
ZEISS = "zeiss"
"""OpenSlide's name of the format CZI."""
MIRAX_HEAD = "Slidedat.ini"
"""File of a MIRAX slide's data folder that OpenSlide reads first (openslide.org/formats/mirax)."""
OF_FILE_MANAGERS = re.compile(r"\..*|thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Names of files that macOS, Windows and NAS devices lay into any folder that somebody looks at (`.DS_Store`, `._name`,
`Thumbs.db`): they are no part of a slide.
"""
IMAGE_FILE = re.compile(rb"^ImageFile([^=\r\n]*)=[ \t]*([^\r\n]+?)[ \t]*\r?$", re.MULTILINE)
"""An image of a Hamamatsu index: its place, as (x,y) or (layer,x,y) or nothing, and the name of its file."""
OTHER_LAYER = re.compile(rb"\([ \t]*0*[1-9][0-9]*[ \t]*(,[^,]*,[^,]*)?\)[ \t]*")
"""The place of an image of another focus layer, which OpenSlide leaves out."""
MAX_INDEX_BYTES = 1 << 20
"""Largest Hamamatsu index file; a larger file is not one. Our choice."""
FILE_FACTS = ("file_bytes", "sha256", "series_sha256")
"""Fields that follow the file's bytes: damaging or repairing a tile changes them."""
MPP_ROUNDING = 1e-6
"""Largest relative difference between two readings of one mpp."""


@dataclass(frozen=True)
class SlideIdentity:
    """What tells a slide from others; `None` if a record of an earlier version does not say.

    Attributes:
        quickhash: OpenSlide's, if the slide has one.
        size_l0_px: (width, height) of level 0.
        file_bytes: size of the slide's file and of the files beside it that belong to it (`_files`).
        level_sizes_px: (width, height) of each level, finest first.
        own_mpp: um/px according to the slide, if it says so.
        sha256: hex digest of the parts that were read.
        series_sha256: of a DICOM slide, hex digest of parts of all files of its series in its folder that hold pixels
            of levels (`series_digest`), of a Hamamatsu index of several images that of all images (`images_digest`);
            `None` for other slides.
        is_hash_of_pixels: whether the quickhash says something of pixels; no record keeps it.
    """

    quickhash: str | None
    size_l0_px: tuple[int, int]
    file_bytes: int | None = None
    level_sizes_px: tuple[tuple[int, int], ...] | None = None
    own_mpp: float | None = None
    sha256: str | None = None
    series_sha256: str | None = None
    is_hash_of_pixels: bool = field(default=True, compare=False)

    @property
    def is_content(self) -> bool:
        """Whether it depends on the file's content, not only on sizes."""
        return self.sha256 is not None or self.quickhash is not None

    @property
    def parts_sha256(self) -> str:
        """What stands for the bytes of all its files: `sha256`, of a slide of several files hashed with the others."""
        if self.series_sha256 is None:
            return self.sha256 or ""
        return hashlib.sha256(f"{self.sha256}{self.series_sha256}".encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """The fields that a plan keeps besides quickhash and size, as JSON types; `series_sha256` only of slides that
        have one, so that the records of all others are those of earlier versions.
        """
        values = asdict(self)
        del values["quickhash"], values["size_l0_px"], values["is_hash_of_pixels"]
        if self.series_sha256 is None:
            del values["series_sha256"]
        return values | {"level_sizes_px": [list(size) for size in self.level_sizes_px or ()]}

    def changes(self, now: "SlideIdentity") -> list[str]:
        """How a slide differs from this record, each as `name: then -> now`; empty if it is the same slide.

        Fields missing from the record are not compared, except the quickhash: a slide has one or has none. Equal
        quickhashes mean the same slide, though its file may have been damaged or repaired: `file_changes`. Not so of
        slides whose quickhash says nothing of pixels (`hashes_pixels`).
        """
        same_quickhash = self.quickhash is not None and self.quickhash == now.quickhash and now.is_hash_of_pixels
        left_out = ("is_hash_of_pixels", *(FILE_FACTS if same_quickhash else ()))
        return self._compare(now, [name for name in asdict(self) if name not in left_out])

    def file_changes(self, now: "SlideIdentity") -> list[str]:
        """How the file's bytes differ from this record."""
        return self._compare(now, FILE_FACTS)

    def _compare(self, now: "SlideIdentity", names: Sequence[str]) -> list[str]:
        """The fields among `names` that differ, as `name: then -> now`."""
        changed = []
        for name in names:
            value, other = getattr(self, name), getattr(now, name)
            if value is None and name != "quickhash":
                continue
            if name == "own_mpp" and other is not None and abs(value / other - 1) <= MPP_ROUNDING:
                continue
            if value != other:
                changed.append(f"{name}: {_short(value)} -> {_short(other)}")
        return changed


def identity_from_record(
    record: Mapping[str, Any] | None, quickhash: str | None, size_l0_px: tuple[int, int]
) -> SlideIdentity:
    """The inverse of `SlideIdentity.record`; versions that kept no record give `None`.

    Raises:
        KeyError, TypeError, ValueError: it is not such a record.
    """
    if record is None:
        return SlideIdentity(quickhash, size_l0_px)
    sizes = tuple((int(w), int(h)) for w, h in record["level_sizes_px"])
    return SlideIdentity(quickhash, size_l0_px, **{**record, "level_sizes_px": sizes})


def read_identity(path: Path, info: SlideInfo) -> SlideIdentity:
    """Read the identity of an open slide.

    Raises:
        SlideError: the file cannot be read.
    """
    try:
        sha256, total = parts_digest(path)
        series = series_digest(path) if info.vendor == dicom.VENDOR else images_digest(path)
    except OSError as error:
        raise_if_limit(error)
        raise SlideError(f"{path}: the slide cannot be read ({error.strerror})") from None
    return SlideIdentity(
        info.quickhash,
        info.size_l0_px,
        total,
        info.level_sizes_px,
        info.own_mpp,
        sha256,
        series,
        hashes_pixels(info.vendor),
    )


def hashes_pixels(vendor: str) -> bool:
    """Whether OpenSlide's quickhash says something of pixels in slides of that vendor, by OpenSlide's name for it."""
    return vendor not in (dicom.VENDOR, ZEISS)


def identity_as_recorded(path: Path, now: SlideIdentity, file_bytes: int | None) -> SlideIdentity:
    """The identity to compare with a record of `file_bytes`: as it is `now`, or where that is a record of an earlier
    version, with what file managers left in the data folder of an .mrxs slide, which counted then.

    Raises:
        SlideError: a file cannot be read.
    """
    if path.suffix.lower() != MIRAX or file_bytes in (None, now.file_bytes):
        return now
    try:
        sha256, total = parts_digest(path, strays=True)
    except OSError as error:
        raise_if_limit(error)
        raise SlideError(f"{path}: the slide cannot be read ({error.strerror})") from None
    return replace(now, file_bytes=total, sha256=sha256) if total == file_bytes else now


def parts_digest(path: Path, *, strays: bool = False) -> tuple[str, int]:
    """Hex SHA-256 of parts of a slide's files, and the total size of the files in bytes; with `strays` also of files
    that are no part of it (`OF_FILE_MANAGERS`).

    Raises:
        OSError: a file cannot be read.
    """
    digest, total = hashlib.sha256(), 0
    for name, part in _files(path, strays):
        size = os.path.getsize(part)
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        for block in _parts(part, size):
            digest.update(block)
        total += size
    return digest.hexdigest(), total


def series_digest(path: Path) -> str:
    """Hex SHA-256 of parts of the files in a DICOM file's folder that hold its series' levels, whatever their names and
    however often a file is there. Label and overview are left out: nothing reads them, and they are often removed.

    Raises:
        OSError: a file cannot be read.
    """
    own, levels = dicom.read_header(path), [path]
    if own and own.series:
        files = (file for file in path.absolute().parent.iterdir() if os.path.isfile(file))
        headers = ((file, dicom.read_header(file)) for file in files)
        levels = [
            file for file, h in headers if h and h.is_slide and h.series == own.series and h.kind not in dicom.NO_LEVEL
        ]
    return hashlib.sha256("".join(sorted({parts_digest(file)[0] for file in levels})).encode()).hexdigest()


def images_digest(path: Path) -> str | None:
    """Hex SHA-256 of parts of all images that a Hamamatsu index names, as far as OpenSlide reads them and they are
    there; `None` if it names one alone, which `parts_digest` covers, and of any other file.

    Raises:
        OSError: a file cannot be read.
    """
    images = _images(path)
    if len(images) < 2:
        return None
    digest = hashlib.sha256()
    for image in images:
        file = path.parent / image.lstrip("/")
        digest.update(
            f"{image}\0{parts_digest(file)[0] if os.path.isfile(file) else ''}\0".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def _images(path: Path) -> list[str]:
    """Names of the images of a Hamamatsu index, in its order; none of any other file, or of one that is no index.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix.lower() not in HAMAMATSU or os.path.getsize(path) > MAX_INDEX_BYTES:
        return []
    return [os.fsdecode(name) for place, name in IMAGE_FILE.findall(path.read_bytes()) if not OTHER_LAYER.match(place)]


def _files(path: Path, strays: bool) -> list[tuple[str, Path]]:
    """The files of a slide with their names, the named file first, as "". Adds the data folder of an .mrxs file, and
    the first image that a Hamamatsu index names. A DICOM series counts as the named file alone; see `series_digest`,
    and `images_digest` for further images.
    """
    suffix, folder = path.suffix.lower(), path.with_suffix("")
    beside: list[Path] = []
    if suffix == MIRAX and folder.is_dir():
        beside = sorted(folder.iterdir()) if strays else data_files(folder)
    elif suffix in HAMAMATSU and os.path.getsize(path) <= MAX_INDEX_BYTES:
        image = IMAGE_FILE.search(path.read_bytes())
        beside = [path.parent / os.path.basename(os.fsdecode(image[2]))] if image else []
    return [("", path), *((file.name, file) for file in beside if os.path.isfile(file))]


def data_files(folder: Path) -> list[Path]:
    """What lies in the data folder of a MIRAX slide and belongs to it, in order.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted(file for file in folder.iterdir() if not OF_FILE_MANAGERS.fullmatch(file.name))


def mirax_trouble(path: Path) -> str:
    """Why OpenSlide does not know a file as a MIRAX slide, in words; empty if it is none, or nothing is wrong with its
    name and its folder.
    """
    folder = path.with_suffix("")
    if path.suffix.lower() != MIRAX:
        return ""
    if path.suffix != MIRAX:
        return f"OpenSlide knows a MIRAX slide by its ending in small letters. Rename the file to {folder.name}{MIRAX}"
    if os.path.isfile(folder / MIRAX_HEAD):
        return ""
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        return f"the pixels of a MIRAX slide lie in a folder of its name, {folder.name}/, which this user may not read"
    what = f"it has no {MIRAX_HEAD}" if os.path.isdir(folder) else "there is none"
    link = ", also of a link: make one of the folder, too" if os.path.islink(path) else ""
    return (
        f"the pixels of a MIRAX slide lie in a folder of its name beside it, {folder.name}/, and {what}. Copy the "
        f"whole folder to there (OpenSlide looks beside the named file{link})"
    )


def _parts(path: Path, size: int) -> Iterator[bytes]:
    """A file's bytes in blocks; for a large file, evenly spaced blocks including the first and the last."""
    with open(path, "rb") as f:
        if size <= BLOCK_BYTES * NUM_BLOCKS:
            while block := f.read(BLOCK_BYTES):
                yield block
            return
        for number in range(NUM_BLOCKS):
            f.seek((size - BLOCK_BYTES) * number // (NUM_BLOCKS - 1))
            yield f.read(BLOCK_BYTES)


def _short(value: Any) -> str:
    """A value for a message; a digest is cut to its first digits."""
    return value[:12] if isinstance(value, str) else str(value)


def check_sha256(path: Path, sha256: str) -> None:
    """Check a slide's SHA-256 against the manifest's.

    Raises:
        SlideError: they differ, or the slide cannot be read.
    """
    try:
        actual = sha256_file(path)
    except OSError as error:
        raise_if_limit(error)
        raise SlideError(f"{path}: the slide cannot be read ({error.strerror})") from None
    if actual != sha256.lower():
        raise SlideError(f"{path}: its SHA-256 is not the manifest's; the file is damaged or another one")
