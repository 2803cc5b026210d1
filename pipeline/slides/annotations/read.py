"""Read the annotations of a slide from a file of any known kind. Its content decides, not its name.

GeoJSON, XML of ASAP, ImageScope or HALO, and masks as PNG or TIFF; also gzipped, or as the one file of a zip archive.
See docs/annotations.md. Left out: databases of programs (QuPath's .qpdata), which only these can read.
"""

import gzip
import io
import re
import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from pipeline.base.errors import AnnotationError
from pipeline.base.outside import (
    MOST_TEXT_BYTES,
    UnsafeError,
    format_size,
    read_bytes,
    reading,
    require_claim,
    require_room,
)
from pipeline.config.groups import AnnotationOrigin
from pipeline.disk.tables import composed
from pipeline.slides.annotations.drawn import Notes, shapes_by_class
from pipeline.slides.annotations.geojson import geojson_regions
from pipeline.slides.annotations.mask import mask_on_slide
from pipeline.slides.annotations.origin import moved_to_slide, scanned_part
from pipeline.slides.annotations.regions import Annotations, PolygonRegions
from pipeline.slides.annotations.xml_regions import xml_regions

KNOWN_KINDS = "GeoJSON, XML of ASAP, ImageScope or HALO, or a mask as PNG or TIFF"
MASK_STARTS = (b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of PNG, TIFF and BigTIFF."""
XML_STARTS = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<\0", b"\xfe\xff\0<")
"""First bytes of XML: in UTF-8 without and with its mark, and in UTF-16."""
MEMORY_FACTOR = 16
"""Bytes of memory that reading takes for a byte of JSON or XML. Measured (tracemalloc, outlines of a thousand points):
7 with many decimals, 13 with whole numbers, 12 for XML; without what GEOS allocates.
"""


def read_annotations(
    path: Path,
    *,
    size_l0_px: tuple[int, int],
    mpp: float,
    slide_names: Collection[str],
    scanned_l0_px: tuple[int, int, int, int] | None = None,
    origin: AnnotationOrigin = "auto",
) -> Annotations:
    """Read the annotations of a slide.

    Args:
        size_l0_px: (width, height) of the slide's level 0.
        mpp: um/px of level 0.
        slide_names: by which a file may name the slide: its id, and its file's name without the ending.
        scanned_l0_px: (x, y, width, height) of its scanned area, level 0; `None` is all of it.
        origin: where coordinates count from.

    Raises:
        AnnotationError: the file cannot be read, is damaged, of no known kind, or of another slide; or a region cannot
            be mended.
    """
    slide_name = min(sorted(slide_names), key=len, default="")
    notes = Notes()
    with reading(path, "cannot be read", AnnotationError):
        packed = read_bytes(path)
    with reading(path, "not readable as annotations", AnnotationError, f"Known are {KNOWN_KINDS}"):
        data = unpack(packed)
        part = scanned_part(scanned_l0_px, size_l0_px)
        if data.startswith(MASK_STARTS):
            mask, said = mask_on_slide(data, size_l0_px, mpp, f"{path}", slide_name, part, origin)
            return Annotations(mask, mpp, said.lines(), said.spellings)
        require_room(MEMORY_FACTOR * len(data), "its text")
        if data.lstrip().startswith(XML_STARTS):
            regions, is_of_qupath = xml_regions(data.lstrip(), mpp, notes, f"{path}", slide_name), False
        else:
            regions, images, is_of_qupath = geojson_regions(data, notes)
            require_named(images, slide_names, f"{path}")
        if part is not None:
            counts_from_scan = origin == "scan" or (origin == "auto" and is_of_qupath)
            part = replace(part, counts_from_it=counts_from_scan)
            regions = moved_to_slide(regions, part, notes if origin == "auto" else None)
        shapes = shapes_by_class(regions, size_l0_px, notes, f"{path}", slide_name, part)
    return Annotations(PolygonRegions(shapes), mpp, notes.lines(), notes.spellings)


def unpack(data: bytes) -> bytes:
    """What a gzip file or the one file of a zip archive holds; other data as they are.

    Raises:
        ValueError: the archive holds no file, or several.
        UnsafeError: it holds more than `MOST_TEXT_BYTES`.
        Exception: it is damaged.
    """
    if data.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as f:
            return _bounded(f.read(MOST_TEXT_BYTES + 1))
    if not data.startswith(b"PK\x03\x04"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [
            entry
            for entry in archive.infolist()
            if not entry.is_dir() and not re.search(r"(^|/)(__MACOSX/|\.)", entry.filename)
        ]
        if len(files) != 1:
            names = ", ".join(entry.filename for entry in files[:4])
            raise ValueError(f"the archive holds {len(files)} files, not one: {names}" if files else "an empty archive")
        require_claim(files[0].file_size, files[0].compress_size, files[0].filename)
        with archive.open(files[0]) as f:
            return _bounded(f.read(MOST_TEXT_BYTES + 1))


def _bounded(data: bytes) -> bytes:
    """`data`, if they are not too many."""
    if len(data) > MOST_TEXT_BYTES:
        raise UnsafeError(f"unpacked more than {format_size(MOST_TEXT_BYTES)}")
    return data


def require_named(images: Collection[str], slide_names: Collection[str], where: str) -> None:
    """See that the images that a file names are the slide. Folders, endings and what follows the name do not count
    ("slide.svs - Series 1"). The slide's names, which have no ending, count whole: 12.1 is not 12.2.

    Raises:
        AnnotationError: one is another.
    """
    known = {_plain(name).removesuffix(".ome") for name in slide_names}
    for image in images:
        name = _plain(PureWindowsPath(image).name)  # knows both kinds of slashes
        if not any(re.match(re.escape(own) + r"(?![\w-])", name) for own in known):
            shown = min(sorted(slide_names), key=len, default="")
            raise AnnotationError(f"{where}: says that it is of {image}, not of slide {shown}")


def _plain(name: str) -> str:
    """A name as it is compared: accents composed, capitals small."""
    return composed(name).lower()
