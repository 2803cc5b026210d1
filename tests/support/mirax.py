"""A MIRAX slide (.mrxs and its data folder) that OpenSlide reads: photos at measured positions that overlap, some of
them never taken.

Follows openslide.org/formats/mirax and what OpenSlide 4.0.1 demands. Each photo is `IMAGES` x `IMAGES` images; at each
coarser level 2 x 2 images are joined and halved, whatever photos they come from. Left out: label and overview, more
than one focus layer, compressed positions.
"""

import struct
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from support.slides import Rgb, area_average

IMAGE_PX, IMAGES = 128, 2
"""Side of an image, and images along a side of a photo."""
OVERLAP_PX = 16
NUM_LEVELS = 4
SLIDE_ID = "0123456789ABCDEF0123456789ABCDEF"
FIRST_L0_PX = (40, 24)
"""(x, y) of the first photo: what lies before it was never scanned."""

Photo = tuple[int, int]
"""Column and row of a photo."""


def photo_corner(photo: Photo) -> tuple[int, int]:
    """(x, y) of a photo in level 0; neighbours are up to 3 pixels off the grid, as a stage is."""
    advance = IMAGE_PX * IMAGES - OVERLAP_PX
    x, y = (first + place * advance for first, place in zip(FIRST_L0_PX, photo, strict=True))
    return x + (photo[1] * 5 + photo[0] * 3) % 7 - 3, y + (photo[0] * 5 + photo[1] * 3) % 7 - 3


def make_mirax_slide(
    path: Path, pixels: Rgb, *, mpp: float, photos: tuple[int, int] = (6, 5), missing: Collection[Photo] = ()
) -> Path:
    """Write a slide of `photos` (across, down) with the level-0 `pixels`; of `missing` photos there is nothing."""
    folder = path.with_suffix("")
    folder.mkdir()
    taken = [(c, r) for r in range(photos[1]) for c in range(photos[0]) if (c, r) not in missing]
    images = {}
    for photo in taken:
        x, y = photo_corner(photo)
        for a, b in np.ndindex(IMAGES, IMAGES):
            left, top = x + a * IMAGE_PX, y + b * IMAGE_PX
            place = photo[0] * IMAGES + a, photo[1] * IMAGES + b
            images[place] = pixels[top : top + IMAGE_PX, left : left + IMAGE_PX]
    across, down = photos[0] * IMAGES, photos[1] * IMAGES
    data, levels = bytearray(), []
    for level in range(NUM_LEVELS):
        entries = []
        for row, column in np.ndindex(-(-down // 2**level), -(-across // 2**level)):
            place = column * 2**level, row * 2**level
            if (joined := _joined(images, place, 2**level)) is not None:
                entries.append((place[1] * across + place[0], len(data), len(joined), 0))
                data += joined
        levels.append(entries)
    positions = b"".join(
        struct.pack("<bii", (c, r) in taken, *(photo_corner((c, r)) if (c, r) in taken else (0, 0)))
        for r in range(photos[1])
        for c in range(photos[0])
    )
    (folder / "Index.dat").write_bytes(_index(levels, len(data), len(positions)))
    (folder / "Data0000.dat").write_bytes(bytes(data) + positions)
    (folder / "Slidedat.ini").write_text(_slidedat(across, down, mpp))
    path.write_bytes(_jpeg(np.full((64, 64, 3), 200, np.uint8)))
    return path


def _joined(images: dict[tuple[int, int], Rgb], place: tuple[int, int], side: int) -> bytes | None:
    """`side` x `side` images from a place on, reduced to one, white where there is none; `None` if there is none."""
    there = [(a, b) for a, b in np.ndindex(side, side) if (place[0] + a, place[1] + b) in images]
    joined = np.full((side * IMAGE_PX, side * IMAGE_PX, 3), 255, np.uint8)
    for a, b in there:
        joined[b * IMAGE_PX : (b + 1) * IMAGE_PX, a * IMAGE_PX : (a + 1) * IMAGE_PX] = images[
            place[0] + a, place[1] + b
        ]
    return _jpeg(area_average(joined, side)) if there else None


def _jpeg(pixels: Rgb) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _index(levels: list[list[tuple[int, int, int, int]]], positions_at: int, positions_bytes: int) -> bytes:
    """Index.dat: where the images of each level lie in the data file, and the record of positions behind them."""
    head = b"01.02" + SLIDE_ID.encode()
    tables_at = len(head) + 8
    pages, records = b"", []
    for entries in levels:
        records.append(tables_at + 4 * len(levels) + len(pages))
        pages += struct.pack("<4i", 0, records[-1] + 8, len(entries), 0)
        pages += b"".join(struct.pack("<4i", *entry) for entry in entries)
    others_at = tables_at + 4 * len(levels) + len(pages)
    others = struct.pack("<3i", others_at + 4, 0, others_at + 12)
    others += struct.pack("<7i", 1, 0, 0, 0, positions_at, positions_bytes, 0)
    return head + struct.pack("<2i", tables_at, others_at) + struct.pack(f"<{len(records)}i", *records) + pages + others


def _slidedat(across: int, down: int, mpp: float) -> str:
    """Slidedat.ini."""
    lines = ["[GENERAL]", "SLIDE_VERSION=01.02", f"SLIDE_ID={SLIDE_ID}", f"IMAGENUMBER_X={across}"]
    lines += [f"IMAGENUMBER_Y={down}", f"OBJECTIVE_MAGNIFICATION={10 / mpp:.0f}"]
    lines += [f"CameraImageDivisionsPerSide={IMAGES}", "[HIERARCHICAL]", "HIER_COUNT=1", "NONHIER_COUNT=1"]
    lines += ["INDEXFILE=Index.dat", "HIER_0_NAME=Slide zoom level", f"HIER_0_COUNT={NUM_LEVELS}"]
    lines += [f"HIER_0_VAL_{level}_SECTION=LEVEL_{level}" for level in range(NUM_LEVELS)]
    lines += ["NONHIER_0_NAME=VIMSLIDE_POSITION_BUFFER", "NONHIER_0_COUNT=1", "NONHIER_0_VAL_0=default"]
    lines += ["NONHIER_0_VAL_0_SECTION=POSITIONS", "NONHIER_0_SECTION=POSITIONS", "[POSITIONS]"]
    lines += ["VIMSLIDE_POSITION_DATA_FORMAT_VERSION=257", "[DATAFILE]", "FILE_COUNT=1", "FILE_0=Data0000.dat"]
    for level in range(NUM_LEVELS):
        lines += [f"[LEVEL_{level}]", f"OVERLAP_X={OVERLAP_PX / 2**level}", f"OVERLAP_Y={OVERLAP_PX / 2**level}"]
        lines += [f"MICROMETER_PER_PIXEL_{axis}={mpp * 2**level}" for axis in "XY"]
        lines += ["IMAGE_FORMAT=JPEG", f"IMAGE_FILL_COLOR_BGR={0xFFFFFF}", f"IMAGE_CONCAT_FACTOR={min(level, 1)}"]
        lines += [f"DIGITIZER_WIDTH={IMAGE_PX}", f"DIGITIZER_HEIGHT={IMAGE_PX}"]
    return "\n".join(lines) + "\n"
