"""The levels of a TIFF whose tiles can be read directly, and regions of them: each tile is decoded once."""

import copy
import itertools
import logging
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.slides.direct.decoding import decode_jpeg, decode_jpeg2000
from pipeline.slides.direct.levels import APERIO, JPEG, TiledLevel, half_level, page_size, read_level, without_parts
from pipeline.slides.direct.tile_cache import Tile, TileCache

MAX_TILE_BYTES = 2**26
"""Most bytes of an encoded tile that are believed: 64 MiB, more than a tile of `MAX_TILE_PX` decodes to."""
_numbers = itertools.count()
"""Names of open files in the cache; unlike `id`, never used twice."""
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read, OpenSlide reads or names


class NotDirectError(Exception):
    """A region that cannot be read here; OpenSlide reads it, or says what is wrong."""


class TiledTiff:
    """The levels of a slide that can be read directly; safe to use from many threads.

    Args:
        path: the slide's file.
        vendor: according to OpenSlide, of `VENDORS`.
        level_sizes: (width, height) of the slide's levels according to OpenSlide, pixels.
        cache: keeps the tiles of this and other slides.

    Raises:
        Exception: the file is no TIFF, or damaged.
    """

    def __init__(self, path: Path, vendor: str, level_sizes: Sequence[tuple[int, int]], cache: TileCache) -> None:
        self._cache, self._number = cache, next(_numbers)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._file_bytes = os.fstat(self._file).st_size
        with tifffile.TiffFile(path) as tiff:
            pages = {
                page_size(page): page for page in reversed(list(tiff.pages)) if isinstance(page, tifffile.TiffPage)
            }
            levels = [read_level(pages[size], vendor) if size in pages else None for size in level_sizes]
            self.has_hidden_levels = bool(tiff.pages.first.subifds)
        if vendor == APERIO:
            levels = without_parts(levels)
        self.levels = {level: tiles for level, tiles in enumerate(levels) if tiles is not None}
        self._whole: TiledTiff | None = None

    def halved(self) -> "TiledTiff":
        """The same file's levels of JPEG tiles, which are decoded at half their size (libjpeg's scaled decoding)."""
        half = copy.copy(self)
        half._whole, half._number = self, next(_numbers)  # the file stays open as long as either is there
        half.levels = {
            number: half_level(level)
            for number, level in self.levels.items()
            if level.compression == JPEG and level.tile_width % 2 == level.tile_height % 2 == 0
        }
        return half

    def read(
        self,
        level: int,
        corner_level_px: tuple[int, int],
        size_level_px: tuple[int, int],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Read a region of a level, uint8 (height, width, 3) RGB; corner (x, y) and size (width, height) in its pixels.
        It is in `out` if that is given; where reading fails, that holds anything.

        Raises:
            NotDirectError: the region is not wholly within the level, or a tile of it is missing or does not decode.
            OSError: the file cannot be read.
        """
        tiles, (x, y), (width, height) = self.levels[level], corner_level_px, size_level_px
        if min(x, y) < 0 or x + width > tiles.width or y + height > tiles.height:
            raise NotDirectError("the region is not within the level")
        if out is None:
            out = np.empty((height, width, 3), np.uint8)
        for row in range(y // tiles.tile_height, -(-(y + height) // tiles.tile_height)):
            top = row * tiles.tile_height
            down = slice(max(y - top, 0), min(y + height - top, tiles.tile_height))
            for column in range(x // tiles.tile_width, -(-(x + width) // tiles.tile_width)):
                left = column * tiles.tile_width
                across = slice(max(x - left, 0), min(x + width - left, tiles.tile_width))
                out[top + down.start - y : top + down.stop - y, left + across.start - x : left + across.stop - x] = (
                    self._tile(level, row * tiles.num_columns + column)[down, across]
                )
        return out

    def forget_tiles(self) -> None:
        """Drop this file's tiles from the cache."""
        self._cache.forget(lambda key: isinstance(key, tuple) and key[0] == self._number)

    def _tile(self, level: int, index: int) -> Tile:
        return self._cache.get((self._number, level, index), lambda: self._decode(self.levels[level], index))

    def _decode(self, tiles: TiledLevel, index: int) -> Tile:
        """Decode a tile: uint8 (tile height, tile width, 3).

        Raises:
            NotDirectError: it is missing, not within the file, or damaged in any way that the codec notices.
            OSError: the file cannot be read.
        """
        length, offset = int(tiles.lengths[index]), int(tiles.offsets[index])
        if not 0 < length <= MAX_TILE_BYTES:
            raise NotDirectError("the tile is missing, or of an unlikely size")
        if offset + length > self._file_bytes:  # an offset may have any 64 bits, and `pread` takes 63
            raise NotDirectError("the tile ends beyond the file")
        data = os.pread(self._file, length, offset)
        try:
            if len(data) < length:
                raise ValueError("the file was cut meanwhile")
            return decode_jpeg(data, tiles) if tiles.compression == JPEG else decode_jpeg2000(data, tiles)
        except MemoryError:
            raise  # sizes are bounded: it is the machine's, and says nothing of the tile
        except Exception as error:  # noqa: BLE001  (whatever the tile brings about, OpenSlide reads it or names it)
            raise NotDirectError(f"the tile does not decode ({error})") from None
