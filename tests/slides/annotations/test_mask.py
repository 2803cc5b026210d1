"""Masks: PNG, TIFF and OME-TIFF, their scale and the names of their classes."""

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from pipeline.base.errors import AnnotationError
from pipeline.slides.annotations.drawn import Notes
from pipeline.slides.annotations.mask import mask_regions
from pipeline.slides.annotations.read import read_annotations
from pipeline.slides.annotations.regions import Annotations

VALUES = np.zeros((30, 40), np.uint8)
VALUES[5:15, 10:30] = 1
VALUES[20:, :] = 7


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def tiff(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def pyramid() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        options: Any = {"tile": (16, 16), "resolutionunit": "CENTIMETER"}
        writer.write(VALUES, subifds=1, resolution=(2500, 2500), **options)
        writer.write(VALUES[::2, ::2], subfiletype=1, resolution=(1250, 1250), **options)
    return buffer.getvalue()


def palette() -> Image.Image:
    image = Image.fromarray(VALUES).copy()
    image.putpalette([0, 0, 0, 255, 0, 0] + [9, 9, 9] * 254)
    assert image.mode == "P"
    return image


def of(data: bytes, size: tuple[int, int] = (640, 480), mpp: float = 0.25) -> Annotations:
    notes = Notes()
    return Annotations(mask_regions(data, size, mpp, notes, "m.png", "s"), mpp, notes.lines())


OME: Any = {"axes": "YX", "PhysicalSizeX": 4.0, "PhysicalSizeY": 4.0}
OME_MM: Any = OME | {"PhysicalSizeX": 0.004, "PhysicalSizeY": 0.004} | {f"PhysicalSize{a}Unit": "mm" for a in "XY"}
OME_MU: Any = OME | {f"PhysicalSize{a}Unit": "\u03bcm" for a in "XY"}


@pytest.mark.parametrize(
    ("data", "states"),
    [
        (png(Image.fromarray(VALUES)), False),
        (png(palette()), False),
        (png(Image.fromarray(VALUES.astype(np.uint16))), False),
        (tiff(VALUES), False),
        (tiff(VALUES[None, :, :, None]), False),
        (tiff(VALUES.astype(np.int32), compression="zlib"), False),
        (tiff(VALUES, resolution=(2500, 2500), resolutionunit="CENTIMETER"), True),
        (tiff(VALUES, resolution=(6350, 6350), resolutionunit="INCH"), True),
        (tiff(VALUES, resolution=(72, 72), resolutionunit="INCH"), False),
        (tiff(VALUES, ome=True, metadata=OME), True),
        (tiff(VALUES, ome=True, metadata=OME_MM), True),
        (tiff(VALUES, ome=True, metadata=OME_MU), True),
        (tiff(VALUES, ome=True, metadata={"axes": "YX"}), False),
        (pyramid(), True),
    ],
    ids=[
        "png",
        "palette",
        "png16",
        "tiff",
        "axes",
        "int32",
        "cm",
        "inch",
        "print",
        "ome",
        "mm",
        "mu",
        "ome-without",
        "pyramid",
    ],
)
def test_every_kind_of_mask(data: bytes, states: bool) -> None:
    found = of(data)
    assert found.classes == ("1", "7")
    shares = found.fractions(["1", "7"], np.array([(160, 80), (0, 0), (0, 320)]), 160.0)
    assert shares.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    assert bool(found.notes) != states


def test_a_png_that_is_cut_is_refused_wherever_that_is(tmp_path: Path) -> None:
    """Its classes may be named behind its pixels, as here."""
    whole = png(Image.fromarray(VALUES))
    text = b"tEXt" + b'classes\0{"1": "Tumour"}'
    named = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    end = whole.index(b"IEND") - 4
    whole = whole[:end] + named + whole[end:]
    path = tmp_path / "m.png"
    slide: Any = {"size_l0_px": (640, 480), "mpp": 0.25, "slide_names": ["s"]}
    path.write_bytes(whole)
    assert set(read_annotations(path, **slide).classes) == {"7", "Tumour"}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(AnnotationError, match=r"m\.png"):
            read_annotations(path, **slide)


@pytest.mark.parametrize("options", [{"ome": True, "metadata": OME}, {"ome": True, "metadata": OME, "tile": (16, 16)}])
def test_an_ome_tiff_that_is_cut_does_not_lose_its_scale(tmp_path: Path, options: dict[str, Any]) -> None:
    """Its metadata follow the pixels."""
    whole, path = tiff(VALUES, **options), tmp_path / "m.tif"
    assert whole.index(b"PhysicalSizeX") > len(whole) // 3
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(AnnotationError, match=r"m\.tif"):
            read_annotations(path, size_l0_px=(640, 480), mpp=0.25, slide_names=["s"])


def test_a_mask_of_two_tones_has_one_class() -> None:
    assert of(png(Image.fromarray(VALUES > 0))).classes == ("1",)
    assert of(tiff(VALUES > 0)).classes == ("1",)
    assert of(png(Image.fromarray(VALUES * 0))).classes == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(Image.new("RGB", (8, 8))), "this has mode RGB"),
        (tiff(np.zeros((8, 8, 3), np.uint8), photometric="rgb"), "a mask has one channel"),
        (tiff(np.zeros((3, 8, 8), np.uint8), photometric="minisblack"), "a mask has one channel"),
        (tiff(np.zeros((2, 8, 8), np.uint8), photometric="minisblack"), "one channel and one image"),
        (tiff(np.zeros((2, 8, 8), np.uint8), photometric="minisblack", ome=True), "one channel and one image"),
        (tiff(np.zeros((8, 8), np.float32)), "not whole numbers"),
        (tiff(np.full((8, 8), -1, np.int16)), "not whole numbers"),
        (tiff(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "1200 different values"),
        (tiff(VALUES, ome=True, metadata=OME | {"PhysicalSizeY": 8.0}), "not square"),
        (tiff(VALUES, compression="jpeg"), "compressed by JPEG, which changes values"),
        (tiff(VALUES, compression="JPEG_2000_LOSSY"), "compressed by JPEG 2000 with loss, which changes values"),
    ],
)
def test_what_is_no_mask_of_classes_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        of(data)


@pytest.mark.parametrize(
    ("size", "side"), [((640, 480), 16.0), ((655, 495), 16.0), ((639, 479), 16.0), ((100, 75), 2.5)]
)
def test_the_scale_by_the_sides(size: tuple[int, int], side: float) -> None:
    assert of(png(Image.fromarray(VALUES)), size, 1.0).areas_um2["1"] == pytest.approx(200 * side**2)


def test_a_mask_of_another_slide_is_refused() -> None:
    with pytest.raises(
        AnnotationError, match=r"m\.png: a mask of 40 x 30 pixels that states no scale, and slide s has"
    ):
        of(png(Image.fromarray(VALUES)), (1000, 480))
    stated = tiff(VALUES, ome=True, metadata=OME)
    with pytest.raises(AnnotationError, match="which is larger than slide s with 320 x 240"):
        of(stated, (320, 240))
    with pytest.raises(AnnotationError, match=r"covers only 25\.0% of slide s"):
        of(stated, (1280, 960))
    assert of(stated, (700, 480)).notes == ("the mask covers 91.4% of the slide; the rest is in no class",)


@pytest.mark.parametrize("stated", [3.6, 4.0, 4.4])
def test_a_scale_that_does_not_fit_a_mask_of_the_slide_s_shape_is_told(stated: float) -> None:
    """The mask's pixels are 4 um; a program that took another um/px for the slide writes less or more."""
    values = np.kron(VALUES, np.ones((4, 4), np.uint8))
    data = tiff(values, ome=True, metadata=OME | {f"PhysicalSize{axis}": stated for axis in "XY"})
    if stated > 4:
        with pytest.raises(AnnotationError, match="or states a wrong scale"):
            of(data, (2560, 1920))
    elif stated < 4:
        (note,) = of(data, (2560, 1920)).notes
        assert note.startswith("the mask covers 81.0% of the slide; the rest is in no class. It has the shape of the ")
        assert "with pixels of 16 level-0 pixels, not 14.4 as it states" in note
    else:
        assert of(data, (2560, 1920)).notes == ()


def test_classes_are_named_within_the_file() -> None:
    names = {"1": "Tumour", "7": "Stroma", "9": "Fat"}
    info = PngImagePlugin.PngInfo()
    info.add_text("classes", json.dumps(names))
    for data in (png(Image.fromarray(VALUES), pnginfo=info), tiff(VALUES, metadata={"classes": names})):
        found = of(data)
        assert found.classes == ("Stroma", "Tumour")
        assert found.areas_um2["Tumour"] == pytest.approx(200 * 16)


def test_a_list_of_images_without_end_is_not_followed() -> None:
    """The next directory of the first is the first again."""
    data = bytearray(tiff(VALUES))
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[end : end + 4] = data[4:8]
    with contextlib.suppress(ValueError):  # of two images of one size, where it is not seen that they are the same
        assert of(bytes(data)).classes == ("1", "7")


def test_values_of_one_name_are_one_class() -> None:
    assert of(tiff(VALUES, metadata={"classes": {"1": "a", "7": "a"}})).classes == ("a",)


@pytest.mark.parametrize("bits", [1, 8])
def test_a_mask_whose_0_is_white_is_told(bits: int) -> None:
    """As ImageMagick writes those of one bit: viewers show class 1 as black, and a program that inverts it as 0."""
    values = VALUES > 0 if bits == 1 else VALUES
    options: Any = {"resolution": (2500, 2500), "resolutionunit": "CENTIMETER", "software": "other"}
    inverted = of(tiff(values, photometric="miniswhite", **options))
    plain = of(tiff(values, photometric="minisblack", **options))
    assert inverted.areas_um2 == plain.areas_um2
    assert plain.notes == ()
    (note,) = inverted.notes
    assert "0 is white" in note
    assert of(tiff(VALUES > 0, **options | {"software": None})).notes == ()  # tifffile, which keeps True as 1
