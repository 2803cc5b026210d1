"""Read a mask of classes from a PNG, a TIFF or an OME-TIFF.

Its grey values are the classes, 0 is none; they are named by their numbers, or by names that the file holds. Its scale
is what the file states, or follows from the slide's size. See docs/annotations.md. Left out: masks in colours.
"""

import contextlib
import io
import json
import math
import struct
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import AnnotationError
from pipeline.base.outside import require_claim, require_room
from pipeline.config.class_rules import clean_class
from pipeline.slides.annotations.drawn import Notes, ScannedPart
from pipeline.slides.annotations.regions import MaskRegions
from pipeline.slides.geometry import true_downsample
from pipeline.slides.stated_mpp import ome_sides_um

PNG_END = b"IEND\xaeB`\x82"
"""Name and checksum of the last chunk of a PNG."""
MOST_CLASSES_OF_MASK = 64
"""Classes of a mask. Our choice: a file with more values is a picture, or numbers single cells."""
MOST_MPP = 50.0
"""um/px above which a TIFF's or PNG's resolution is that of a print (96 dpi is 265) and says nothing. Our choice."""
SIZE_TOLERANCE = 0.02
"""Share by which a mask that states its scale may reach beyond the slide. Our choice: the rule for a manifest's mpp."""
NOTED_LACK = 0.02
"""Share of the slide's area that a mask lacks and that is worth a note. Our choice."""
SAID_BY_TAGS = {270, 282, 283, 296}
"""Codes of the tags that say a TIFF's scale and the names of its classes."""
LOSSY_COMPRESSIONS = (
    tifffile.COMPRESSION.OJPEG,
    tifffile.COMPRESSION.JPEG,
    tifffile.COMPRESSION.ALT_JPEG,
    tifffile.COMPRESSION.JPEG_LOSSY,
    tifffile.COMPRESSION.JPEG_2000_LOSSY,  # QuPath and Bio-Formats write JPEG 2000 without loss under another number
)
"""TIFF's compressions by JPEG, and by JPEG 2000 with loss, which lose digits."""
WHITE_IS_0 = (
    "the mask says that its 0 is white (MinIsWhite), and its values count as they are stored: what viewers show as "
    "white is in no class. Write it with 0 as black if that is not meant"
)
"""What to note of a TIFF that turns grey values round."""
UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}
"""TIFF's units of resolution: inch, centimetre."""
TELLING_PX = 50
"""Pixels of a mask's shorter side from which its shape tells whether it is that of the slide. Our choice: 2 % of it."""
SQUARE = 0.01
"""Share by which a mask's two resolutions may differ. Our choice."""


def mask_regions(
    data: bytes,
    size_l0_px: tuple[int, int],
    mpp: float,
    notes: Notes,
    where: str,
    slide_name: str,
    corner_l0_px: tuple[int, int] = (0, 0),
) -> MaskRegions:
    """The regions of a mask.

    Args:
        data: the file's bytes, PNG or TIFF.
        size_l0_px: (width, height) of the slide, or of the part that the mask is of.
        mpp: um/px of its level 0.
        notes: is given what was supposed.
        where: the file's path, for errors.
        slide_name: likewise.
        corner_l0_px: (x, y) of the mask's corner on the slide.

    Raises:
        AnnotationError: its scale is unknown, or its size is not that of the slide.
        ValueError: it is not a mask of one channel of small whole numbers.
        Exception: it is damaged.
    """
    return _regions_of(_read_mask(data), size_l0_px, mpp, notes, where, slide_name, corner_l0_px)


def _read_mask(data: bytes) -> "ReadMask":
    """Of a PNG or a TIFF."""
    return _read_png(data) if data.startswith(b"\x89PNG") else _read_tiff(data)


def _regions_of(
    read: "ReadMask",
    size_l0_px: tuple[int, int],
    mpp: float,
    notes: Notes,
    where: str,
    slide_name: str,
    corner_l0_px: tuple[int, int] = (0, 0),
) -> MaskRegions:
    """What `mask_regions` gives, of a mask that was read."""
    values, stated_mpp, names, said = read
    for line in said:
        notes.say(line)
    height, width = values.shape
    if stated_mpp is not None and stated_mpp <= MOST_MPP:
        pixel_l0_px = stated_mpp / mpp
        _require_size((width, height), pixel_l0_px, size_l0_px, notes, where, slide_name)
    else:
        pixel_l0_px = _scale_of_size((width, height), size_l0_px, where, slide_name)
        notes.say(
            f"the mask states no scale; a pixel of it is {pixel_l0_px:g} pixels of level 0, for which both sides agree"
        )
    found = np.unique(values)
    if len(found) > MOST_CLASSES_OF_MASK + 1:
        raise ValueError(f"{len(found)} different values; a mask has at most {MOST_CLASSES_OF_MASK} classes")
    named = {int(value): notes.class_named(names.get(str(value), str(value))) for value in found if value}
    return MaskRegions(values, named, pixel_l0_px, where, corner_l0_px)


def mask_on_slide(
    data: bytes,
    size_l0_px: tuple[int, int],
    mpp: float,
    where: str,
    slide_name: str,
    part: ScannedPart | None,
    origin: str,
) -> tuple[MaskRegions, Notes]:
    """The regions of a mask of the slide, or of the part of it that was scanned, and what was supposed.

    Where `origin` does not say which, it is of what it covers to `SIZE_TOLERANCE`; of the slide, if of both or neither.
    Other arguments and errors: see `mask_regions`.
    """
    of_slide, of_part, read = Notes(), Notes(), _read_mask(data)
    if part is None:
        return _regions_of(read, size_l0_px, mpp, of_slide, where, slide_name), of_slide
    if origin == "slide":
        with _naming_other("the scanned part of the slide", "scan"):
            return _regions_of(read, size_l0_px, mpp, of_slide, where, slide_name), of_slide
    part_name = f"{slide_name}'s scanned part"
    if origin == "scan":
        with _naming_other("the whole slide", "slide"):
            return _regions_of(read, part.size_l0_px, mpp, of_part, where, part_name, part.corner_l0_px), of_part
    scanned = whole = None
    of_part.say(
        "the mask is as large as the scanned part of the slide, and was taken as one of it; give "
        "--annotation-origin slide if it is not"
    )
    with contextlib.suppress(AnnotationError):
        found = _regions_of(read, part.size_l0_px, mpp, of_part, where, part_name, part.corner_l0_px)
        scanned = found if is_as_large(found, part.size_l0_px) else None
    refused = AnnotationError(where)
    try:
        with _naming_other("the scanned part of the slide", "scan"):
            whole = _regions_of(read, size_l0_px, mpp, of_slide, where, slide_name)
    except AnnotationError as error:
        refused = error
    if scanned is not None and (whole is None or not is_as_large(whole, size_l0_px)):
        return scanned, of_part
    if whole is None:
        raise refused
    if scanned is not None:
        of_slide.say("it was taken as a mask of the slide, not of its scanned part (--annotation-origin scan)")
    return whole, of_slide


@contextlib.contextmanager
def _naming_other(what: str, origin: str) -> Iterator[None]:
    """Add to the block's error what the mask may be of, and the option that says so."""
    try:
        yield
    except AnnotationError as error:
        raise AnnotationError(f"{error}, or it is of {what} (--annotation-origin {origin})") from None


def is_as_large(mask: MaskRegions, size_l0_px: tuple[int, int]) -> bool:
    """Whether a mask is as large as that, to `SIZE_TOLERANCE` or a pixel of it."""
    sides = zip(mask.size_l0_px, size_l0_px, strict=True)
    return all(abs(covered - full) <= SIZE_TOLERANCE * full + mask.pixel_l0_px for covered, full in sides)


ReadMask = tuple[NDArray[np.unsignedinteger], float | None, Mapping[str, str], list[str]]
"""Values (H, W), the stated um/px if there is one, names of values, and what there is to note."""


def _read_png(data: bytes) -> ReadMask:
    """Of a PNG; its resolution is not asked, which programs write without meaning.

    One that is cut behind its pixels is refused: what says which value is which class may have followed them.
    """
    if PNG_END not in data:
        raise ValueError("the file is cut: its end is missing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is bounded here
        image = Image.open(io.BytesIO(data), formats=("PNG",))
    with image:
        require_claim(image.width * image.height, len(data), "the mask")
        require_room(4 * image.width * image.height, "the mask")
        image.load()
        if image.mode not in ("1", "L", "P", "I;16", "I"):
            raise ValueError(f"a mask has one channel of whole numbers; this has mode {image.mode}")
        text = getattr(image, "text", {}).get("classes", "{}")
        values = np.asarray(image)
    return _unsigned(values), None, _names(f'{{"classes": {text}}}'), []


def _read_tiff(data: bytes) -> ReadMask:
    """Of the first image of a TIFF, of a pyramid its finest level. The list of its images is not followed to the end:
    that of a damaged file has none. One that is cut behind its pixels may have lost its scale, and is refused.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        shape = [side for side in page.shape if side != 1] if page.samplesperpixel == 1 else list(page.shape)
        if len(shape) > 2 or _has_another(tiff, page.shape):
            raise ValueError(f"a mask has one channel and one image; this has more ({page.axes}: {page.shape})")
        if page.compression in LOSSY_COMPRESSIONS:
            kind = "JPEG 2000 with loss" if page.compression == tifffile.COMPRESSION.JPEG_2000_LOSSY else "JPEG"
            raise ValueError(f"it is compressed by {kind}, which changes values and so classes; write it without loss")
        num_bytes = math.prod(page.shape) * np.dtype(page.dtype).itemsize
        require_claim(num_bytes, len(data), "the mask")
        require_room(2 * num_bytes, "the mask")
        if lost := _declared(data, tiff, page.offset) & SAID_BY_TAGS - {tag.code for tag in page.tags}:
            raise ValueError(f"the file is cut or damaged: its tag {min(lost)} cannot be read")
        description = page.description or ""
        stated = _ome_mpp(description) if page.is_ome else _tag_mpp(page)
        values = page.asarray().reshape(page.imagelength, page.imagewidth)
        said = _said_of_white(page)
    return _unsigned(values), stated, _names("{}" if page.is_ome else description), said


def _said_of_white(page: tifffile.TiffPage) -> list[str]:
    """What to note of an image whose 0 is white; nothing of one that tifffile wrote, which keeps True as 1 so."""
    is_of_tifffile = str(page.tags.valueof("Software", default="")).startswith("tifffile")
    is_inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    return [WHITE_IS_0] if is_inverted and not is_of_tifffile else []


def _declared(data: bytes, tiff: tifffile.TiffFile, offset: int) -> set[int]:
    """Codes of the tags that the image at this place says it has; tifffile leaves out what it cannot read."""
    form = tiff.tiff
    (count,) = struct.unpack_from(form.tagnoformat, data, offset)
    first = offset + form.tagnosize
    return {struct.unpack_from(f"{form.byteorder}H", data, first + i * form.tagsize)[0] for i in range(count)}


def _has_another(tiff: tifffile.TiffFile, shape: tuple[int, ...]) -> bool:
    """Whether a second image follows that is as large as the first: another channel or plane."""
    try:
        return tiff.pages[1].shape == shape
    except IndexError:
        return False


def _unsigned(values: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    """The values of a mask as small whole numbers."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() > 65_535:
        raise ValueError("its values are not whole numbers from 0 to 65535")
    return values.astype(np.uint8 if values.max() < 256 else np.uint16, copy=False)


def _names(description: str) -> dict[str, str]:
    """The names of values that a description holds as JSON: {"classes": {"1": "Tumor"}}."""
    try:
        value = json.loads(description)
    except (ValueError, RecursionError):  # another description
        return {}
    names = value.get("classes") if isinstance(value, dict) else None
    named = names.items() if isinstance(names, dict) else ()
    return {key: name for key, name in named if isinstance(name, str) and clean_class(name)}


def _ome_mpp(text: str) -> float | None:
    """The um/px of the first image of OME-XML; `None` if it is not said."""
    return _one_mpp(ome_sides_um(text))


def _tag_mpp(page: tifffile.TiffPage) -> float | None:
    """The um/px of a TIFF's tags; `None` if they say none."""
    tags = page.tags
    unit = UM_PER_RESOLUTION_UNIT.get(int(tags.valueof("ResolutionUnit", default=2)))
    sides = [tags.valueof(f"{axis}Resolution") for axis in "XY"]
    if unit is None or any(side is None or not all(side) for side in sides):
        return None
    return _one_mpp([unit * side[1] / side[0] for side in sides])


def _one_mpp(sides: list[float | None]) -> float | None:
    """One um/px of two; `None` if one is missing or none."""
    x, y = sides
    if not x or not y or not math.isfinite(x) or not math.isfinite(y) or min(x, y) <= 0:
        return None
    if abs(x / y - 1) > SQUARE and max(x, y) <= MOST_MPP:
        raise ValueError(f"its pixels are not square: {x:g} x {y:g} um")
    return (x + y) / 2


def _require_size(
    size_px: tuple[int, int], pixel_l0_px: float, size_l0_px: tuple[int, int], notes: Notes, where: str, slide_name: str
) -> None:
    """See that a mask that states its scale does not reach beyond the slide, and note what it lacks."""
    covered = [side * pixel_l0_px for side in size_px]
    for covers, full in zip(covered, size_l0_px, strict=True):
        if covers > full * (1 + SIZE_TOLERANCE) + pixel_l0_px:
            raise AnnotationError(
                f"{where}: a mask of {size_px[0]} x {size_px[1]} pixels of {pixel_l0_px:g} level-0 pixels, as it "
                f"states, which is larger than slide {slide_name} with {size_l0_px[0]} x {size_l0_px[1]}. It is of "
                "another slide, or states a wrong scale"
            )
    share = math.prod(min(a / b, 1) for a, b in zip(covered, size_l0_px, strict=True))
    if share < 0.5:
        raise AnnotationError(
            f"{where}: the mask covers only {share:.1%} of slide {slide_name} at the scale that it states. It is of "
            "another slide, or states a wrong scale"
        )
    if share < 1 - NOTED_LACK:
        doubt = ""
        if min(size_px) >= TELLING_PX and _sides_agree(size_px, size_l0_px):
            doubt = (
                f". It has the shape of the whole slide, though: with pixels of "
                f"{true_downsample(size_l0_px, size_px):.4g} level-0 pixels, not {pixel_l0_px:.4g} as it states, it "
                "would cover all of it. If that is meant, correct the scale in the mask, or take it out"
            )
        notes.say(f"the mask covers {share:.1%} of the slide; the rest is in no class{doubt}")


def _sides_agree(size_px: tuple[int, int], size_l0_px: tuple[int, int]) -> bool:
    """Whether both sides give the same scale, to a mask pixel."""
    lows = [full / (side + 1) for full, side in zip(size_l0_px, size_px, strict=True)]
    highs = [full / max(side - 1, 0.5) for full, side in zip(size_l0_px, size_px, strict=True)]
    return max(lows) <= min(highs)


def _scale_of_size(size_px: tuple[int, int], size_l0_px: tuple[int, int], where: str, slide_name: str) -> float:
    """Level-0 pixels a mask pixel, if both sides agree to a mask pixel."""
    if not _sides_agree(size_px, size_l0_px):
        raise AnnotationError(
            f"{where}: a mask of {size_px[0]} x {size_px[1]} pixels that states no scale, and slide {slide_name} has "
            f"{size_l0_px[0]} x {size_l0_px[1]}: the two sides give different scales. It is of another slide or a part "
            "of it; write it as OME-TIFF with its PhysicalSizeX and PhysicalSizeY"
        )
    return true_downsample(size_l0_px, size_px)
