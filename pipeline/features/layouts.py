"""Write the embeddings of a slide in the file layout of a tool, and tell finished slides from others.

Each tool's module (`features/tools`) defines the names and contents of its files. Here is what all of them share: the
last file of a slide is written last and carries the mark, which says what made it, from which slide, and how
many patches it has. Without the mark the slide's other files do not count.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError, EmbedError
from pipeline.base.outside import parse_object, read_json, reading
from pipeline.cohort.plan import SlidePlan
from pipeline.config.groups import Grid, Resampling
from pipeline.disk.files import sha256_json
from pipeline.features.files import read_attributes
from pipeline.slides.geometry import PILLOW

MARK = "g2l"
"""Attribute of a file, or key of a JSON file, that holds the mark."""
MARK_VERSION = 1
UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")
"""What an encoder's name should not bring into the name of a folder."""


@dataclass(frozen=True)
class Mark:
    """What a finished slide says of itself.

    Attributes:
        made_by: model and settings, as JSON types; the same for all slides of a folder.
        slide: which slide, by its content.
        rows: patches with an embedding.
        failed: patches that were left out.
        sha256: hex digest of the features' and of the coordinates' little-endian bytes.
        files: bytes of the slide's other files, by kind.
    """

    made_by: dict[str, Any]
    slide: dict[str, Any]
    rows: int
    failed: int
    sha256: dict[str, str]
    files: dict[str, int]

    def checked(self) -> "Mark":
        """The mark, if its values are of the right types; for one that was read from a file.

        Raises:
            ValueError: a value is of another type than it should be.
        """
        tables = (self.made_by, self.slide, self.sha256, self.files)
        if not all(isinstance(table, dict) for table in tables) or not all(
            isinstance(count, int) and count >= 0 for count in (self.rows, self.failed)
        ):
            raise ValueError("values of other types")
        return self

    def text(self) -> str:
        """The mark as JSON, with a hash of all that the embeddings depend on."""
        whole = {"version": MARK_VERSION, "hash": sha256_json([self.made_by, self.slide])} | asdict(self)
        return json.dumps(whole, sort_keys=True)


@dataclass(frozen=True, eq=False)
class EmbeddedSlide:
    """One slide with its embeddings, on the way to its files.

    Attributes:
        plan: the slide and all patches that were tried.
        level_size_px: (width, height) of the level that patches are read from.
        made_by, content: what goes into the mark as `made_by` and `slide`.
        coords_l0_px: int64 (N, 2), (x, y) of the patches that could be embedded, level 0.
        tissue_fraction: float64 (N,), of their area.
        features: (N, D), in the type that is stored.
    """

    plan: SlidePlan
    level_size_px: tuple[int, int]
    made_by: dict[str, Any]
    content: dict[str, Any]
    coords_l0_px: NDArray[np.int64]
    tissue_fraction: NDArray[np.float64]
    features: NDArray[np.float32] | NDArray[np.float16]

    def mark(self, files: dict[str, int]) -> Mark:
        """The mark of its files."""
        rows = len(self.features)
        digests = {"features": _digest(self.features), "coords": _digest(self.coords_l0_px)}
        return Mark(self.made_by, self.content, rows, len(self.plan.coords_l0_px) - rows, digests, files)


def encoder_folder(encoder: str) -> str:
    """An encoder's name as part of a folder's."""
    return UNFIT.sub("_", encoder).strip("._") or "encoder"


Finish = Callable[[], Mark]
"""Gives the mark of a slide, once all of its files but the last are written."""


@dataclass(frozen=True)
class Writer:
    """How the files of a layout are written.

    Attributes:
        dtypes: types that its features may have, the usual one first.
        files: the files of a slide by kind, in the order of writing; the last one carries the mark.
        write: write these files, each complete or absent; the text of the mark goes into the last one. Raises
            `OSError` if a file cannot be written.
        read_mark: the text of the mark in such a last file; `None` if it has none. Raises `BenchmarkError` if the file
            cannot be read.
        write_list: write a list of the slides that are there, given where each slide is by its id; `None` for a layout
            without one. Raises `OSError` if it cannot be written.
    """

    dtypes: tuple[str, ...]
    files: Callable[["Place", str], dict[str, Path]]
    write: Callable[["Place", EmbeddedSlide, dict[str, Path], Finish], None]
    read_mark: Callable[[Path], str | None]
    write_list: Callable[["Place", dict[str, str]], None] | None = None


@dataclass(frozen=True)
class Place:
    """Where embeddings go: a folder, the layout of its files, the encoder's name, and the grid of the patches."""

    folder: Path
    writer: Writer
    encoder: str
    grid: Grid

    def files(self, slide_id: str) -> dict[str, Path]:
        """The files of a slide by kind, in the order of writing; the last one carries the mark."""
        return self.writer.files(self, slide_id)

    def marked_file(self, slide_id: str) -> Path:
        """The file of a slide that carries the mark."""
        return list(self.files(slide_id).values())[-1]

    def read_mark(self, slide_id: str) -> Mark | None:
        """The mark of a slide whose files are all there; `None` where it is not finished, or a file is cut short.

        Raises:
            EmbedError: there is a file of that name that `g2l embed`, or this version of it, did not make.
        """
        path = self.marked_file(slide_id)
        if not path.exists():
            return None
        try:
            text = self.writer.read_mark(path)
        except BenchmarkError:
            return None  # cut short: of no use to anybody
        if text is None:
            raise EmbedError(f"{path} was not made by g2l embed, and is not overwritten. Choose another --out")
        try:
            with reading(path, "no mark of g2l embed", BenchmarkError):
                values = parse_object(text)
                if values.pop("version") != MARK_VERSION:
                    raise EmbedError(f"{path} is of another version of g2l embed. Choose another --out")
                del values["hash"]
                mark = Mark(**values).checked()
        except BenchmarkError:
            return None
        return mark if self._file_bytes(slide_id) == mark.files else None

    def write(self, slide: EmbeddedSlide) -> Mark:
        """Write all files of a slide, each complete or absent, the one with the mark last.

        Raises:
            EmbedError: a file cannot be written.
        """
        slide_id = slide.plan.slide_id
        files = self.files(slide_id)
        finish = functools.cache(lambda: slide.mark(self._file_bytes(slide_id)))
        try:
            for path in files.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            self.writer.write(self, slide, files, finish)
        except OSError as error:
            where = self.marked_file(slide_id)
            raise EmbedError(
                f"cannot write {where}: {error.strerror or error}. Finished slides are safe: fix the cause, then "
                "run the same command again"
            ) from error
        return finish()

    def write_list(self, slides: dict[str, str]) -> None:
        """Write the layout's list of slides, if it has one; `slides` says where each slide is, by its id.

        Raises:
            EmbedError: it cannot be written.
        """
        if self.writer.write_list is None:
            return
        try:
            self.writer.write_list(self, slides)
        except OSError as error:
            raise EmbedError(f"cannot write the list of slides in {self.folder}: {error.strerror or error}") from error

    def _file_bytes(self, slide_id: str) -> dict[str, int]:
        """Bytes of a slide's files by kind, without the one with the mark; absent ones are left out."""
        *others, _ = self.files(slide_id).items()
        return {kind: os.path.getsize(path) for kind, path in others if os.path.isfile(path)}


def hdf5_mark(path: Path) -> str | None:
    """The mark in an HDF5 file, as its attribute.

    Raises:
        BenchmarkError: it cannot be read.
    """
    text: str | None = read_attributes(path)[""].get(MARK)
    return text


def json_mark(path: Path) -> str | None:
    """The mark in a JSON file, under its key.

    Raises:
        BenchmarkError: it cannot be read.
    """
    with reading(path, "not readable", BenchmarkError):
        value = read_json(path).get(MARK)
    return None if value is None else str(value)


def marked_resampling(text: Any) -> Resampling:
    """Who reduced the patches of a file with this mark; Pillow without one (`None`), and of earlier versions.

    Raises:
        ValueError, KeyError, TypeError: it is no mark, or names another program.
    """
    if text is None:
        return PILLOW
    resampling: Resampling = parse_object(text)["made_by"]["settings"].get("resampling", PILLOW)
    if resampling not in get_args(Resampling):
        raise ValueError(f"{resampling!r} reduced its patches, which is not known here")
    return resampling


def changed_since(text: Any, features: NDArray[Any], coords: NDArray[Any] | None) -> list[str]:
    """What of a file with this mark is not as `g2l embed` wrote it: `features`, `coords`; nothing without a mark
    (`None`), or if that is of another version.

    Half-precision features may have been read as float32. Coordinates in um are not compared: the mark has those in
    level-0 pixels.

    Raises:
        ValueError, KeyError, TypeError: it is no mark.
    """
    if text is None or (mark := parse_object(text))["version"] != MARK_VERSION:
        return []
    written = mark["sha256"]
    types = (features.dtype, np.float16)
    with np.errstate(over="ignore"):  # float32 values beyond float16, whose hash is that of float32
        is_changed = {"features": all(_digest(features.astype(kind)) != written["features"] for kind in types)}
    if coords is not None and coords.dtype.kind in "iu":
        is_changed["coords"] = _digest(coords.astype(np.int64)) != written["coords"]
    return [name for name, changed in is_changed.items() if changed]


def _digest(values: NDArray[Any]) -> str:
    """Hex SHA-256 of an array's little-endian bytes in rows."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()
