"""Read from a DICOM header which slide the file belongs to; never reads pixels.

A DICOM slide is a series of files in one folder: one for each level, the label and the overview. OpenSlide opens the
series by any of its files. Reads DICOM part 10 files in explicit or implicit little endian, as are all slides whose
pixels OpenSlide reads (dicom.nema.org, parts 5 and 10). Left out: big-endian and deflated headers.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.base.errors import raise_if_limit

SUFFIX = ".dcm"
VENDOR = "dicom"
"""OpenSlide's name of the format."""
NO_LEVEL = ("label", "overview", "thumbnail")
"""Kinds of images that are not levels of a slide."""
MAGIC = b"DICM"
PREAMBLE_BYTES = 128
SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""SOP class of VL Whole Slide Microscopy Image Storage."""
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
UNREAD_SYNTAXES = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
"""Deflated, and big endian."""
TRANSFER_SYNTAX, CLASS, IMAGE_TYPE, SERIES = (0x0002, 0x0010), (0x0008, 0x0016), (0x0008, 0x0008), (0x0020, 0x000E)
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations with a four-byte length after two reserved bytes."""
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
UNDEFINED = 0xFFFFFFFF
MAX_TEXT_BYTES = 1 << 12
"""Longest text value that is read; the standard allows less. Our choice, as the next."""
MAX_DEPTH = 16
"""Deepest nesting of sequences."""
MAX_ELEMENTS = 1 << 16
"""Most elements that are looked at, those within sequences included; real headers have some hundred before the series.
A download that reserved its space and was cut goes on in zeros, each eight of which are an element without a value.
"""


@dataclass(frozen=True)
class DicomHeader:
    """The parts of a DICOM header that identify a slide.

    Attributes:
        series: UID of the file's series, "" if it has none.
        is_slide: whether the file belongs to a whole-slide image.
        kind: third value of the image type, in lower case: volume, label, overview, thumbnail.
    """

    series: str
    is_slide: bool
    kind: str


def read_header(path: Path) -> DicomHeader | None:
    """Read a file's header; `None` if it is not a DICOM file, or the header cannot be read. A pipe is not opened: that
    would wait for a writer.
    """
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as f:
            return header_of(f)
    except OSError as error:
        raise_if_limit(error)
        return None


def header_of(f: IO[bytes]) -> DicomHeader | None:
    """The header at the beginning of an open file, or of as much of it as `f` has; `None` as `read_header`."""
    try:
        f.seek(PREAMBLE_BYTES)
        if f.read(len(MAGIC)) != MAGIC:
            return None
        values = _values(f)
    except (OSError, ValueError, struct.error, RecursionError):
        return None
    kinds = values.get(IMAGE_TYPE, "").lower().split("\\")
    return DicomHeader(values.get(SERIES, ""), values.get(CLASS) == SLIDE_CLASS, kinds[2] if len(kinds) > 2 else "")


def _values(f: IO[bytes]) -> dict[tuple[int, int], str]:
    """Read the values of the tags above; `f` stands just after the magic word.

    Raises:
        ValueError, struct.error: it is not a readable header.
    """
    values: dict[tuple[int, int], str] = {}
    explicit, in_meta = True, True
    for _ in (left := iter(range(MAX_ELEMENTS))):
        start = f.tell()
        head = f.read(4)
        if len(head) < 4:
            return values
        tag = struct.unpack("<HH", head)
        if in_meta and tag[0] != 0x0002:
            in_meta = False
            syntax = values.get(TRANSFER_SYNTAX, "")
            if syntax in UNREAD_SYNTAXES:
                raise ValueError(f"transfer syntax {syntax}")
            explicit = syntax != IMPLICIT_LITTLE
        if tag > SERIES:
            return values
        length = _length(f, explicit)
        if length == UNDEFINED:
            _skip_items(f, explicit, 0, left)
        elif tag in (TRANSFER_SYNTAX, CLASS, IMAGE_TYPE, SERIES):
            if length > MAX_TEXT_BYTES:
                raise ValueError(f"{length} bytes of text")
            values[tag] = f.read(length).decode("latin-1").strip(" \0")
        else:
            f.seek(length, 1)
        if f.tell() <= start:
            raise ValueError("an element of negative length")
    raise ValueError(f"more than {MAX_ELEMENTS:,} elements")


def _length(f: IO[bytes], explicit: bool) -> int:
    """Read the length of the value that follows."""
    if not explicit:
        return int(struct.unpack("<I", f.read(4))[0])
    kind = f.read(2)
    if kind in LONG:
        return int(struct.unpack("<2xI", f.read(6))[0])
    return int(struct.unpack("<H", f.read(2))[0])


def _skip_items(f: IO[bytes], explicit: bool, depth: int, left: Iterator[int]) -> None:
    """Skip a sequence of undefined length; takes one of `left` for each element of it."""
    if depth > MAX_DEPTH:
        raise ValueError("sequences too deep")
    for _ in left:
        tag = struct.unpack("<HH", f.read(4))
        length = struct.unpack("<I", f.read(4))[0]
        if tag == SEQUENCE_END:
            return
        if tag != ITEM:
            raise ValueError("no item of a sequence")
        if length == UNDEFINED:
            _skip_item(f, explicit, depth, left)
        else:
            f.seek(length, 1)


def _skip_item(f: IO[bytes], explicit: bool, depth: int, left: Iterator[int]) -> None:
    """Skip an item of undefined length, as `_skip_items`."""
    for _ in left:
        tag = struct.unpack("<HH", f.read(4))
        if tag == ITEM_END:
            f.seek(4, 1)
            return
        size = _length(f, explicit)
        if size == UNDEFINED:
            _skip_items(f, explicit, depth + 1, left)
        else:
            f.seek(size, 1)
