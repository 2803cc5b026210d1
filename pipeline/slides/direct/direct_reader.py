"""Read JPEG and JPEG 2000 tiles of a TIFF directly: each is decoded once, to the pixels that OpenSlide gives.

OpenSlide decodes every tile under a patch again for the next patch, and returns premultiplied RGBA that has to be taken
apart. Here the tiles under neighbouring patches are shared. Taken are levels of JPEG tiles in slides that OpenSlide
calls Aperio or generic TIFF, and of JPEG 2000 tiles in Aperio's. What is left to OpenSlide: everything else, regions
beyond the level or over a missing tile, tiles that do not decode (so that OpenSlide's word decides what is damaged),
JPEG 2000 with subsampled colours, and levels that OpenSlide interpolates. A level is compared with OpenSlide's at three
places before it is used.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.direct.levels import APERIO, TiledLevel
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.direct.tiled_tiff import NotDirectError, TiledTiff

VENDORS = (APERIO, "generic-tiff")
"""Slides, by OpenSlide's property, whose levels are the pages of a TIFF, unshifted."""
WHOLE = 1e-9
"""Distance from a whole number below which a level's ratio is whole: then OpenSlide does not interpolate."""
Reference = Callable[[int, tuple[int, int], tuple[int, int]], NDArray[np.uint8] | None]
"""Reads a region of a level as `TiledTiff.read` does, by OpenSlide; `None` where parts of it were not scanned."""


def places_to_compare(level: TiledLevel) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Three regions of a level, (corner, size) in its pixels: the tiles a quarter, half and three quarters of the way
    through those that are there; fewer if there are fewer.
    """
    there = np.flatnonzero(level.lengths)
    chosen = sorted({int(there[len(there) * part // 4]) for part in (1, 2, 3)}) if len(there) else []
    corners = [
        (index % level.num_columns * level.tile_width, index // level.num_columns * level.tile_height)
        for index in chosen
    ]
    return [
        (corner, (min(level.tile_width, level.width - corner[0]), min(level.tile_height, level.height - corner[1])))
        for corner in corners
    ]


class DirectReader:
    """Reads what can be read directly of a slide, once it was seen to be what OpenSlide reads; safe to use from many
    threads.

    Args:
        path: the slide's file.
        vendor: according to OpenSlide.
        level_sizes: (width, height) of its levels, pixels.
        ratios: OpenSlide's level-0 pixels per pixel of each level.
        cache: keeps the tiles of this and other slides.
        reference: gives what reads a region by OpenSlide, which may raise anything; a weak reference, so that the slide
            that has it and this reader is closed when it is dropped.
        file: a copy that is read in place of `path`.
    """

    def __init__(
        self,
        path: Path,
        vendor: str,
        level_sizes: Sequence[tuple[int, int]],
        ratios: Sequence[float],
        cache: TileCache,
        reference: Callable[[], Reference | None],
        file: Path | None = None,
    ) -> None:
        self._path, self._ratios, self._reference = path, ratios, reference
        self._lock = threading.Lock()
        self._usable: dict[int, bool] = {}
        self._notes: dict[int, str] = {}
        self._tiff: TiledTiff | None = None
        self._half: TiledTiff | None = None
        self._unread: OSError | None = None
        if vendor in VENDORS and hasattr(os, "pread"):
            try:
                tiff = TiledTiff(file or path, vendor, level_sizes, cache)
                self._tiff, self._half = tiff, tiff.halved()
            except OSError as error:
                self._unread = None if error.errno == errno.EINVAL else error  # EINVAL: an offset that no file has
            except Exception:  # noqa: BLE001  (OpenSlide has opened it, and reads it or says what is wrong)
                self._tiff = self._half = None

    def read(
        self,
        level: int,
        corner_level_px: tuple[int, int],
        size_level_px: tuple[int, int],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8] | None:
        """The region as `TiledTiff.read` gives it; `None` if OpenSlide is to read it."""
        try:
            if self._tiff is None or not self._is_usable(level):
                return None
            return self._tiff.read(level, corner_level_px, size_level_px, out)
        except (NotDirectError, OSError):
            return None

    def can_halve(self, level: int) -> bool:
        """Whether `read_half` reads a level: its tiles are JPEG, and read directly they are OpenSlide's.

        Raises:
            OSError: the file cannot be read, or could not when the slide was opened, so that this is not known.
        """
        if self._unread is not None:
            raise OSError(*self._unread.args)
        return self._half is not None and level in self._half.levels and self._is_usable(level)

    def read_half(
        self, level: int, corner_half_px: tuple[int, int], size_half_px: tuple[int, int]
    ) -> NDArray[np.uint8] | None:
        """A region of a level at half its size, from tiles decoded at half of theirs; `None` if it is not wholly within
        the level, or a tile is missing or does not decode.

        Raises:
            OSError: the file cannot be read; OpenSlide in full is no substitute, for its pixels would be others.
        """
        assert self._half is not None
        try:
            return self._half.read(level, corner_half_px, size_half_px)
        except NotDirectError:
            return None

    def forget_tiles(self) -> None:
        """Free the memory of this slide's tiles; they are decoded again when they are read again."""
        if self._tiff is not None:
            self._tiff.forget_tiles()

    @property
    def has_hidden_levels(self) -> bool:
        """Whether the TIFF keeps images, such as reduced levels, in SubIFDs, which OpenSlide does not read."""
        return self._tiff is not None and self._tiff.has_hidden_levels

    def note(self, level: int) -> str:
        """Why a level that could be read directly is left to OpenSlide; empty if nothing is odd."""
        if self._tiff is not None:
            with suppress(OSError):  # nothing is known yet, and the next read looks again
                self._is_usable(level)
        return self._notes.get(level, "")

    def _is_usable(self, level: int) -> bool:
        """Whether a level is read directly; the first call compares it with OpenSlide's.

        Raises:
            OSError: no place of it can be compared, since the file cannot be read; the next call tries again.
        """
        usable = self._usable.get(level)
        if usable is None:
            with self._lock:
                if level not in self._usable:
                    self._usable[level] = self._compare(level)
                usable = self._usable[level]
        return usable

    def _compare(self, level: int) -> bool:
        assert self._tiff is not None
        tiles = self._tiff.levels.get(level)
        if tiles is None or abs(self._ratios[level] - round(self._ratios[level])) > WHOLE:
            return False
        equal, failures = list[bool](), list[OSError]()
        for place in places_to_compare(tiles):
            try:
                same = self._is_equal(level, *place)
            except OSError as error:
                failures.append(error)
            else:
                equal += [] if same is None else [same]
        if failures and not equal:
            raise failures[0]
        if not all(equal):
            self._notes[level] = (
                f"note: {self._path}: level {level} read directly differs from OpenSlide's in {equal.count(False)} of "
                f"{len(equal)} places; OpenSlide reads it"
            )
        return bool(equal) and all(equal)

    def _is_equal(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> bool | None:
        """Whether a place reads the same; `None` if it cannot be read directly: then nothing is known.

        Raises:
            OSError: the file cannot be read.
        """
        assert self._tiff is not None
        try:
            ours = self._tiff.read(level, corner, size)
        except NotDirectError:
            ours = None
        try:
            reference = self._reference()
            theirs = reference(level, corner, size) if reference else None
        except Exception:  # noqa: BLE001  (whatever it is, the reader meets and names it)
            theirs = None
        if ours is None:
            return None
        return theirs is not None and np.array_equal(ours, theirs)
