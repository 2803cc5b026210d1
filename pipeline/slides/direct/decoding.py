"""Decode a JPEG or JPEG 2000 tile to the pixels that OpenSlide gives, or say that it is not as its page says."""

import struct

import imagecodecs
import numpy as np
import simplejpeg

from pipeline.slides.direct.levels import JPEG2000_RGB, START, TiledLevel
from pipeline.slides.direct.tile_cache import Tile

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
