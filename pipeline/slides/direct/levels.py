"""What levels of tiles a TIFF has, and how their tiles are encoded: of those that can be read directly.

`read_level` says of a page how to read its tiles, or that they are left to OpenSlide.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

APERIO = "aperio"
MAX_TILE_PX = 4096
"""Largest side of a tile; larger ones are read better in parts. Our choice."""
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
