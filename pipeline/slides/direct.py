"""Read JPEG and JPEG 2000 tiles of a TIFF directly: each is decoded once, to the pixels that OpenSlide gives.

OpenSlide decodes every tile under a patch again for the next patch, and returns premultiplied RGBA that has to be taken
apart. Here the tiles under neighbouring patches are shared. Taken are levels of JPEG tiles in slides that OpenSlide
calls Aperio or generic TIFF, and of JPEG 2000 tiles in Aperio's. What is left to OpenSlide: everything else, regions
beyond the level or over a missing tile, tiles that do not decode (so that OpenSlide's word decides what is damaged),
JPEG 2000 with subsampled colours, and levels that OpenSlide interpolates. A level is compared with OpenSlide's at three
places before it is used.
"""

import copy
import errno
import itertools
import logging
import math
import os
import struct
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from pipeline.slides.tile_cache import Tile, TileCache

APERIO = "aperio"
VENDORS = (APERIO, "generic-tiff")
"""Slides, by OpenSlide's property, whose levels are the pages of a TIFF, unshifted."""
MAX_TILE_PX = 4096
"""Largest side of a tile; larger ones are read better in parts. Our choice."""
MAX_TILE_BYTES = 2**26
"""Most bytes of an encoded tile that are believed: 64 MiB, more than a tile of `MAX_TILE_PX` decodes to."""
JPEG = 7
"""TIFF compression: JPEG, tables apart (TIFF Technical Note 2)."""
JPEG2000_YCBCR, JPEG2000_RGB = 33003, 33005
"""TIFF compressions of Aperio: bare JPEG 2000 codestreams, whose components are what the names say."""
RGB, YCBCR = 2, 6
"""TIFF photometric interpretations."""
ADOBE_RGB = bytes.fromhex("FFEE000E41646F626500640000000000")
"""APP14 segment of Adobe with transform 0: the components are RGB, whatever they are called (ITU-T T.872, 6.5.3)."""
START = b"\xff\xd8"
END = b"\xff\xd9"
CODESTREAM = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream and of its size marker (ITU-T T.800, A.5.1)."""
SIZES = struct.Struct(">2xH8IH")
"""What follows in the size marker: its capabilities, sizes and offsets of the image and of its tiles, components."""
WHOLE_BYTES = bytes((7, 1, 1)) * 3
"""Then, of each of three components: 8 bits unsigned, not subsampled."""
CHROMA = np.arange(-128, 128)
RED_CR, BLUE_CB = (np.rint(factor * CHROMA).astype(np.int32) for factor in (1.402, 1.772))
GREEN_CB = np.rint(2**16 * (0.5 - 0.34414 * CHROMA)).astype(np.int32)
GREEN_CR = np.rint(2**16 * -0.71414 * CHROMA).astype(np.int32)
"""What chroma adds to red, green (in 2**-16, with a half for rounding) and blue."""
WHOLE = 1e-9
"""Distance from a whole number below which a level's ratio is whole: then OpenSlide does not interpolate."""

_numbers = itertools.count()
"""Names of open files in the cache; unlike `id`, never used twice."""
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read, OpenSlide reads or names

Reference = Callable[[int, tuple[int, int], tuple[int, int]], NDArray[np.uint8] | None]
"""Reads a region of a level as `TiledTiff.read` does, by OpenSlide; `None` where parts of it were not scanned."""


class NotDirectError(Exception):
    """A region that cannot be read here; OpenSlide reads it, or says what is wrong."""


@dataclass(frozen=True)
class TiledLevel:
    """A level of JPEG or JPEG 2000 tiles.

    Attributes:
        compression: `JPEG`, `JPEG2000_YCBCR` or `JPEG2000_RGB`.
        width, height: of the level, pixels.
        tile_width, tile_height: of a tile, pixels.
        offsets, lengths: of the encoded tiles in the file, bytes, row by row; length 0: the tile is missing.
        header: of JPEG, what precedes a tile's data after its start marker: quantisation and Huffman tables, colour
            space.
        colours: of JPEG, the colour space of its tiles, which is the page's: OpenSlide takes no tile's word for it.
        halving: 2 where all sizes are of tiles that are decoded at half their size, and of whole pixels of these.
    """

    compression: int
    width: int
    height: int
    tile_width: int
    tile_height: int
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    header: bytes
    colours: Literal["RGB", "YCbCr"]
    halving: int = 1

    @property
    def num_columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def num_rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tile_height)


def half_level(level: TiledLevel) -> TiledLevel:
    """A level whose tiles are decoded at half their size, without a last row or column of tiles in which there is only
    half a pixel.
    """
    width, height = level.width // 2, level.height // 2
    half = replace(
        level,
        width=width,
        height=height,
        tile_width=level.tile_width // 2,
        tile_height=level.tile_height // 2,
        halving=2,
    )
    tiles = np.s_[: half.num_rows, : half.num_columns]
    offsets, lengths = (
        of_tiles.reshape(level.num_rows, level.num_columns)[tiles].ravel()
        for of_tiles in (level.offsets, level.lengths)
    )
    return replace(half, offsets=offsets, lengths=lengths)


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


def decode_jpeg(data: bytes, tiles: TiledLevel) -> Tile:
    """Decode a JPEG tile: uint8 (tile height, tile width, 3).

    Raises:
        ValueError: libjpeg warns of it, or it has another size or other colours than the page says.
    """
    if not data.startswith(START):
        raise ValueError("no JPEG")
    if tiles.header:
        data = START + tiles.header + data[2:]
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    if colours != tiles.colours:
        raise ValueError(f"of {colours}, not {tiles.colours}")
    if (height, width) != (tiles.tile_height * tiles.halving, tiles.tile_width * tiles.halving):
        raise ValueError(f"{width} x {height} pixels")
    least = {"min_height": tiles.tile_height, "min_width": tiles.tile_width} if tiles.halving > 1 else {}
    return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=True, **least))


def decode_jpeg2000(data: bytes, tiles: TiledLevel) -> Tile:
    """Decode a JPEG 2000 tile: uint8 (tile height, tile width, 3).

    Raises:
        ValueError: it has another size, or components that are subsampled or not of 8 bits.
        RuntimeError: OpenJPEG finds an error.
    """
    sizes_end = len(CODESTREAM) + SIZES.size
    if not data.startswith(CODESTREAM) or len(data) < sizes_end + len(WHOLE_BYTES):
        raise ValueError("no JPEG 2000")
    _, right, bottom, left, top, *_, components = SIZES.unpack_from(data, len(CODESTREAM))
    size = right - left, bottom - top
    if (*size, components) != (tiles.tile_width, tiles.tile_height, 3):
        raise ValueError(f"{size[0]} x {size[1]} pixels of {components} components")
    if not data.startswith(WHOLE_BYTES, sizes_end):
        raise ValueError("subsampled components, or not of 8 bits")
    tile: Tile = imagecodecs.jpeg2k_decode(data, numthreads=1)
    if tile.shape != (tiles.tile_height, tiles.tile_width, 3) or tile.dtype != np.uint8:
        raise ValueError(f"{tile.dtype} {tile.shape}")
    return tile if tiles.compression == JPEG2000_RGB else ycbcr_to_rgb(tile)


def ycbcr_to_rgb(pixels: Tile) -> Tile:
    """YCbCr to RGB, uint8 (H, W, 3), in the whole numbers of OpenSlide (`make-tables.c`)."""
    y, cb, cr = np.moveaxis(pixels, -1, 0)
    green = (GREEN_CB[cb] + GREEN_CR[cr]) >> 16
    return np.stack([y + RED_CR[cr], y + green, y + BLUE_CB[cb]], axis=-1).clip(0, 255).astype(np.uint8)


def page_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """(width, height) of a page, pixels."""
    return page.imagewidth, page.imagelength


def has_usual_tiles(page: tifffile.TiffPage) -> bool:
    """Whether a page has tiles of a size to be read whole, of three interleaved components of 8 bits."""
    is_usual = (page.bitspersample, page.samplesperpixel, page.planarconfig) == (8, 3, 1)
    return is_usual and 0 < page.tilewidth <= MAX_TILE_PX and 0 < page.tilelength <= MAX_TILE_PX


def read_level(page: tifffile.TiffPage, vendor: str) -> TiledLevel | None:
    """How to read a page's tiles directly; `None` if they are not JPEG of 8-bit RGB or YCbCr pixels, nor Aperio's JPEG
    2000.
    """
    is_jpeg = page.compression == JPEG and page.photometric in (RGB, YCBCR)
    is_jpeg2000 = page.compression in (JPEG2000_YCBCR, JPEG2000_RGB) and vendor == APERIO
    if not (has_usual_tiles(page) and (is_jpeg or is_jpeg2000)):
        return None
    header = header_of_jpeg(page) if is_jpeg else b""
    if header is None:
        return None
    level = TiledLevel(
        compression=int(page.compression),
        width=page.imagewidth,
        height=page.imagelength,
        tile_width=page.tilewidth,
        tile_height=page.tilelength,
        offsets=np.asarray(page.dataoffsets, np.uint64),
        lengths=np.asarray(page.databytecounts, np.uint64),
        header=header,
        colours="RGB" if page.photometric == RGB else "YCbCr",
    )
    num_tiles = level.num_columns * level.num_rows
    return level if len(level.offsets) == len(level.lengths) == num_tiles else None


def header_of_jpeg(page: tifffile.TiffPage) -> bytes | None:
    """What belongs before the data of a page's JPEG tiles, after their start marker; `None` if its tables are odd."""
    tables = page.jpegtables or b""
    if tables and not (tables.startswith(START) and tables.endswith(END)):
        return None
    return (ADOBE_RGB if page.photometric == RGB else b"") + tables[2:-2]


def without_parts(levels: Sequence[TiledLevel | None]) -> list[TiledLevel | None]:
    """An Aperio slide's levels, finest first, without the tiles over a tile that the next finer level lacks: OpenSlide
    holds them for damaged, and renders that level in their place (`openslide-vendor-aperio.c`). A level above one that
    is not read here is none.
    """
    kept: list[TiledLevel | None] = list(levels[:1])
    for level in levels[1:]:
        finer = kept[-1]
        if finer is None or level is None:
            kept.append(None)
            continue
        across = max(round_half_up(finer.num_columns / level.num_columns), 1)
        down = max(round_half_up(finer.num_rows / level.num_rows), 1)
        rows, columns = np.divmod(np.flatnonzero(finer.lengths == 0), finer.num_columns)
        above = rows // down * level.num_columns + columns // across
        lengths = level.lengths.copy()
        lengths[above[above < len(lengths)]] = 0
        kept.append(replace(level, lengths=lengths))
    return kept


def round_half_up(value: float) -> int:
    """C's `round` of a positive number."""
    return math.floor(value + 0.5)


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
