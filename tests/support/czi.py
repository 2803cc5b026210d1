"""A Zeiss slide (CZI) that OpenSlide 4.0.1 reads: a mosaic of subblocks for each level of each scene.

Follows the ZISRAW format as OpenSlide reads it. Left out: attachments, channels, overlapping subblocks.
"""

import struct
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np

from support.slides import Rgb, area_average

Box = tuple[int, int, int, int]
Compression = Literal["none", "jpeg", "zstd0", "zstd1"]
CODES: dict[Compression, int] = {"none": 0, "jpeg": 1, "zstd0": 5, "zstd1": 6}
SEGMENT_BYTES = 32
"""Of a segment's head; segments begin at multiples of it."""
FILE_BYTES = 512
"""Of the file's own segment."""


def make_czi_slide(
    path: Path,
    pixels: Rgb,
    *,
    mpp: float | None,
    scenes: Sequence[Box] = (),
    downsamples: Sequence[int] = (1, 2, 4),
    compression: Compression = "none",
    tile: int = 256,
    missing: Collection[tuple[int, int]] = (),
    guid: bytes = b"0123456789ABCDEF",
) -> Path:
    """Write a slide with the level-0 `pixels` of its scenes (x, y, width, height), by default one of all; of `missing`
    tiles of level 0 (column, row) there is nothing.
    """
    height, width = pixels.shape[:2]
    scenes = scenes or [(0, 0, width, height)]
    data, entries = bytearray(SEGMENT_BYTES + FILE_BYTES), []
    for scene, (left, top, w, h) in enumerate(scenes):
        for downsample in downsamples:
            level = area_average(pixels[top : top + h, left : left + w], downsample)
            for row, column in np.ndindex(-(-level.shape[0] // tile), -(-level.shape[1] // tile)):
                if downsample == 1 and (column, row) in missing:
                    continue
                y, x = row * tile, column * tile
                block = level[y : y + tile, x : x + tile]
                corner = left + x * downsample, top + y * downsample
                entry = _entry(corner, block, downsample, scene, len(data), CODES[compression])
                content = _encoded(block, compression)
                head = struct.pack("<iiq", 0, 0, len(content)) + entry
                data += _segment("ZISRAWSUBBLOCK", head.ljust(256, b"\0") + content)
                entries.append(entry)
    directory_at = len(data)
    data += _segment("ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    metadata_at = len(data)
    xml = _metadata(width, height, len(scenes), mpp).encode()
    data += _segment("ZISRAWMETADATA", struct.pack("<ii248x", len(xml), 0) + xml)
    attachments_at = len(data)
    data += _segment("ZISRAWATTDIR", bytes(256))
    head = struct.pack("<4i", 1, 0, 0, 0) + guid + guid
    head += struct.pack("<iqqiq", 0, directory_at, metadata_at, 0, attachments_at)
    data[: SEGMENT_BYTES + FILE_BYTES] = _segment("ZISRAWFILE", head.ljust(FILE_BYTES, b"\0"))
    path.write_bytes(data)
    return path


def _segment(name: str, content: bytes) -> bytes:
    """A segment, filled up so that the next one begins where it may."""
    head = name.encode().ljust(16, b"\0") + struct.pack("<qq", len(content), len(content))
    return head + content + bytes(-len(content) % SEGMENT_BYTES)


def _entry(corner: tuple[int, int], block: Rgb, downsample: int, scene: int, place: int, compression: int) -> bytes:
    """A subblock in the directory: pixels are BGR of 8 bits, sizes those in level 0 and those that are stored."""
    (x, y), (height, width) = corner, block.shape[:2]
    sides = [(b"X", x, width * downsample, width), (b"Y", y, height * downsample, height)]
    sides += [(b"C", 0, 1, 1), (b"S", scene, 1, 1)]
    head = b"DV" + struct.pack("<iqiibb4xi", 3, place, 0, compression, 0 if downsample == 1 else 2, 0, len(sides))
    return head + b"".join(
        struct.pack("<4siifi", name, start, size, start, stored) for name, start, size, stored in sides
    )


def _encoded(block: Rgb, compression: Compression) -> bytes:
    if compression == "jpeg":
        return bytes(imagecodecs.jpeg_encode(np.ascontiguousarray(block)))
    content = np.ascontiguousarray(block[..., ::-1]).tobytes()
    if compression == "none":
        return content
    return (b"\1" if compression == "zstd1" else b"") + bytes(imagecodecs.zstd_encode(content))


def _metadata(width: int, height: int, num_scenes: int, mpp: float | None) -> str:
    """The XML; the resolution is in metres."""
    sizes = f"<SizeX>{width}</SizeX><SizeY>{height}</SizeY><SizeS>{num_scenes}</SizeS>"
    value = f"<Value>{mpp * 1e-6!r}</Value>" if mpp else ""
    items = "".join(f'<Distance Id="{axis}">{value}</Distance>' for axis in "XY")
    return (
        f"<ImageDocument><Metadata><Information><Image>{sizes}</Image></Information>"
        f"<Scaling><Items>{items}</Items></Scaling></Metadata></ImageDocument>"
    )
