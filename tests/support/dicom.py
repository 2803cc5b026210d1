"""Slides in DICOM for the tests: a series of files in one folder, small, as OpenSlide 4.0.1 opens them.

Explicit little endian, frames as JPEG in encapsulated fragments, TILED_FULL (dicom.nema.org, parts 5 and 3, A.32.8).
What it leaves out: optical paths, slide coordinates, and whatever OpenSlide does not ask for.
"""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from support.slides import make_pixels

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
JPEG_SYNTAX = "1.2.840.10008.1.2.4.50"
TILE = 128
LONG = ("OB", "SQ", "UN", "UT")
MPP = 0.5
RGB = make_pixels("tissue", 300, 260, seed=1)
"""Level 0 of a small slide: uint8 (260, 300, 3)."""


def element(group: int, number: int, kind: str, value: Any) -> bytes:
    """One data element; `value` is text, bytes, or numbers of the kind US, UL or FL."""
    if isinstance(value, str):
        value = value.encode() + b" " * (len(value) % 2) if kind != "UI" else value.encode() + b"\0" * (len(value) % 2)
    elif isinstance(value, int | float):
        value = struct.pack({"US": "<H", "UL": "<I", "FL": "<f"}[kind], value)
    if len(value) % 2:
        value += b"\0"
    head = struct.pack("<HH", group, number) + kind.encode()
    return head + (struct.pack("<2xI", len(value)) if kind in LONG else struct.pack("<H", len(value))) + value


def sequence(group: int, number: int, *items: bytes, undefined: bool = False) -> bytes:
    """A sequence of items; with `undefined`, neither it nor its items say how long they are."""
    if not undefined:
        content = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return element(group, number, "SQ", content)
    start, item_end = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF), struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    content = b"".join(start + item + item_end for item in items)
    head = struct.pack("<HH", group, number) + b"SQ" + struct.pack("<2xI", 0xFFFFFFFF)
    return head + content + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _frames(rgb: npt.NDArray[np.uint8]) -> list[bytes]:
    """JPEG files of the tiles, row by row; white beyond the edge."""
    frames = []
    for top in range(0, rgb.shape[0], TILE):
        for left in range(0, rgb.shape[1], TILE):
            tile = np.full((TILE, TILE, 3), 255, np.uint8)
            part = rgb[top : top + TILE, left : left + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            buffer = io.BytesIO()
            Image.fromarray(tile).save(buffer, "JPEG", quality=95)
            data = buffer.getvalue()
            frames.append(data + b"\0" * (len(data) % 2))
    return frames


def write_instance(
    path: Path,
    rgb: npt.NDArray[np.uint8],
    series: str,
    number: int,
    *,
    kind: str = "VOLUME",
    mpp: float = MPP,
    sop_class: str = SLIDE_CLASS,
) -> Path:
    """One file of a series: uint8 (height, width, 3) RGB at `mpp`; `number` tells the files of a series apart."""
    uid = f"{series}.{number}"
    height, width = rgb.shape[:2]
    frames = _frames(rgb)
    spacing = f"{mpp / 1000:.6f}\\{mpp / 1000:.6f}"
    measures = sequence(0x0028, 0x9110, element(0x0028, 0x0030, "DS", spacing))
    first = "DERIVED" if kind == "VOLUME" and number > 1 else "ORIGINAL"
    last = "RESAMPLED" if first == "DERIVED" else "NONE"
    meta = (
        element(2, 1, "OB", b"\0\1")
        + element(2, 2, "UI", sop_class)
        + element(2, 3, "UI", uid)
        + element(2, 0x10, "UI", JPEG_SYNTAX)
        + element(2, 0x12, "UI", "1.2.3")
    )
    body = [
        element(8, 8, "CS", f"{first}\\PRIMARY\\{kind}\\{last}"),
        element(8, 0x16, "UI", sop_class),
        element(8, 0x18, "UI", uid),
        element(8, 0x60, "CS", "SM"),
        sequence(8, 0x1140, element(8, 0x1150, "UI", SLIDE_CLASS), undefined=True),  # to be passed over on the way
        element(0x20, 0xD, "UI", f"{series}.99"),
        element(0x20, 0xE, "UI", series),
        element(0x20, 0x52, "UI", f"{series}.98"),
        element(0x20, 0x9311, "CS", "TILED_FULL"),
        element(0x28, 2, "US", 3),
        element(0x28, 4, "CS", "YBR_FULL_422"),
        element(0x28, 6, "US", 0),
        element(0x28, 8, "IS", str(len(frames))),
        element(0x28, 0x10, "US", TILE),
        element(0x28, 0x11, "US", TILE),
        element(0x28, 0x100, "US", 8),
        element(0x28, 0x101, "US", 8),
        element(0x28, 0x102, "US", 7),
        element(0x28, 0x103, "US", 0),
        element(0x48, 6, "UL", width),
        element(0x48, 7, "UL", height),
        element(0x48, 0x303, "UL", 1),
        sequence(0x5200, 0x9229, measures),
    ]
    item = struct.Struct("<HHI")
    pixels = struct.pack("<HH", 0x7FE0, 0x10) + b"OB" + struct.pack("<2xI", 0xFFFFFFFF)
    offsets = np.cumsum([0, *(len(frame) + item.size for frame in frames)])[:-1].astype("<u4").tobytes()
    pixels += item.pack(0xFFFE, 0xE000, len(offsets)) + offsets
    pixels += b"".join(item.pack(0xFFFE, 0xE000, len(frame)) + frame for frame in frames)
    pixels += item.pack(0xFFFE, 0xE0DD, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 128 + b"DICM" + element(2, 0, "UL", len(meta)) + meta + b"".join(body) + pixels)
    return path


def write_slide(folder: Path, name: str, rgb: npt.NDArray[np.uint8], series: str) -> Sequence[Path]:
    """A slide of two levels, label and overview, in files `name`-1.dcm to `name`-4.dcm; the label comes first."""
    half = np.asarray(Image.fromarray(rgb).resize((rgb.shape[1] // 2, rgb.shape[0] // 2), Image.Resampling.BOX))
    small = rgb[:100, :100]
    return [
        write_instance(folder / f"{name}-1.dcm", small, series, 3, kind="LABEL"),
        write_instance(folder / f"{name}-2.dcm", half, series, 2, mpp=2 * MPP),
        write_instance(folder / f"{name}-3.dcm", rgb, series, 1),
        write_instance(folder / f"{name}-4.dcm", small, series, 4, kind="OVERVIEW"),
    ]
