"""JPEG 2000 with chroma half as wide, which no encoder at hand writes: three codestreams of one component, joined."""

import struct
from collections.abc import Iterator
from itertools import product

import imagecodecs
import numpy as np
from numpy.typing import NDArray

SIZ, COD, COM, SOT, SOD = 0xFF51, 0xFF52, 0xFF64, 0xFF90, 0xFF93
"""Markers (ITU-T T.800, table A.2)."""
COMPONENT_FIRST = 4
"""Progression by component, position, resolution and layer: all packets of one component before those of the next."""


def encode_422(y: NDArray[np.uint8], cb: NDArray[np.uint8], cr: NDArray[np.uint8]) -> bytes:
    """A lossy codestream of luma (H, W) and chroma (H, W / 2), in one tile with one precinct a resolution."""
    streams = [
        bytes(imagecodecs.jpeg2k_encode(plane, level=40, reversible=False, codecformat="j2k", resolutions=3))
        for plane in (y, cb, cr)
    ]
    segments, _ = _parts(streams[0])
    out = b"\xff\x4f"
    for marker, content in segments:
        if marker == SIZ:
            content = content[:34] + struct.pack(">H", 3) + bytes((7, 1, 1, 7, 2, 1, 7, 2, 1))
        elif marker == COD:
            content = content[:1] + bytes((COMPONENT_FIRST,)) + content[2:4] + b"\0" + content[5:]
        if marker != COM:
            out += struct.pack(">HH", marker, len(content) + 2) + content
    packets = b"".join(_parts(stream)[1] for stream in streams)
    return out + struct.pack(">HHHIBBH", SOT, 10, 0, len(packets) + 14, 0, 1, SOD) + packets + b"\xff\xd9"


def _parts(stream: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The segments of a codestream's main header, and the packets of its only tile."""
    at, segments = 2, []
    while (marker := struct.unpack_from(">H", stream, at)[0]) != SOT:
        (length,) = struct.unpack_from(">H", stream, at + 2)
        segments.append((marker, stream[at + 4 : at + 2 + length]))
        at += 2 + length
    (length,) = struct.unpack_from(">I", stream, at + 6)
    return segments, stream[stream.index(struct.pack(">H", SOD), at) + 2 : at + length]


def tiles_of_422(ycbcr: NDArray[np.uint8], tile: tuple[int, int]) -> Iterator[bytes]:
    """The tiles of an image, (H, W, 3) YCbCr, row by row; chroma is that of every second column."""
    height, width = ycbcr.shape[:2]
    padded = np.pad(ycbcr, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)), mode="edge")
    for top, left in product(range(0, height, tile[0]), range(0, width, tile[1])):
        part = padded[top : top + tile[0], left : left + tile[1]]
        yield encode_422(part[..., 0], part[:, ::2, 1], part[:, ::2, 2])
