"""Read the resolutions that a slide's own fields state: the scanner's, the TIFF file's, the DICOM object's, OME's.

OpenSlide derives its mpp from one of these fields. Another field may contradict it: programs that reduce or convert a
slide often update only one. Left out: fields without a documented unit (`hamamatsu.XResolution`), and values that
no slide has, such as 72 dots an inch.
"""

import math
import re
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element
from xml.parsers import expat

from pipeline.base.outside import UnsafeError
from pipeline.base.units import MAX_MPP, MIN_MPP
from pipeline.slides.annotations.xml_regions import parse_tree

UM_FIELDS = ("aperio.MPP", "ventana.ScanRes")
"""Fields in um/px, for both axes."""
PHILIPS_MM = "philips.DICOM_PIXEL_SPACING"
"""Two quoted numbers, mm/px along y and x (openslide.org/formats/philips)."""
DICOM_MM = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing"
"""With [0] and [1]: mm/px along y and x (DICOM PS3.3, 10.7.1.3)."""
UM_IN_MM = 1000.0
TIFF_UM = {"inch": 25_400.0, "centimeter": 10_000.0}
"""um in the unit of a TIFF file's resolution, by OpenSlide's name for it. Other units are no length."""
OME_XML, OME_FIELD = "tiff.ImageDescription", "PhysicalSizeX"
"""OpenSlide's name of the description that is XML in an OME-TIFF, and what says in it how wide a pixel is."""
MAX_XML_CHARS = 2**24
"""Longest description that is parsed. Our choice: that of a slide has some thousand characters."""
UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "\u03bcm": 1.0, "um": 1.0, "nm": 1e-3}
"""OME's units of length, micrometres each; some programs write the Greek letter mu for the micro sign."""


def stated_mpps(properties: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Plausible um/px along x and y that the slide's fields state, by the field's name.

    A field that is plausible along one axis only counts for both, as pixels are square. OpenSlide's own mpp is among
    them only if it is so and no other field says the same, so that it does not count as the slide's.
    """
    stated = {name: (_number(properties.get(name)),) * 2 for name in UM_FIELDS}
    numbers = re.findall(r"[^\s\"]+", properties.get(PHILIPS_MM, ""))
    if len(numbers) in (1, 2):
        stated[PHILIPS_MM] = (_number(numbers[-1]) * UM_IN_MM, _number(numbers[0]) * UM_IN_MM)
    y, x = (_number(properties.get(f"{DICOM_MM}[{axis}]")) for axis in (0, 1))
    stated["dicom PixelSpacing"] = (x * UM_IN_MM, y * UM_IN_MM)
    x, y = _tiff_um(properties, "tiff.XResolution"), _tiff_um(properties, "tiff.YResolution")
    stated["tiff.XResolution" if _plausible(x) else "tiff.YResolution"] = (x, y)
    stated[f"{OME_FIELD} (OME-XML)"] = _ome_um(properties.get(OME_XML, ""))
    plausible = {name: mpp for name, axes in stated.items() if (mpp := _both_axes(*axes)) is not None}
    return plausible | _openslide_alone(properties, [mpp for axes in plausible.values() for mpp in axes])


def _tiff_um(properties: Mapping[str, str], field: str) -> float:
    """um/px of a TIFF file's resolution along one axis; NaN if it gives none, or in no unit of length."""
    per_unit = _number(properties.get(field))
    return TIFF_UM.get(properties.get("tiff.ResolutionUnit", ""), math.nan) / per_unit if per_unit else math.nan


def _ome_um(text: str) -> tuple[float, float]:
    """um/px along x and y of a TIFF file's description; NaN where it gives none, or is no OME-XML."""
    if OME_FIELD not in text or len(text) > MAX_XML_CHARS:
        return (math.nan, math.nan)
    try:
        x, y = ome_sides_um(text)
    except (UnsafeError, expat.ExpatError, ValueError):
        return (math.nan, math.nan)
    return (math.nan if x is None else x, math.nan if y is None else y)


def ome_sides_um(text: str) -> list[float | None]:
    """The um/px along x and y of the first image of OME-XML; `None` where it is not said in a unit of length.

    Raises:
        UnsafeError: the text declares a document type, or is nested too deeply.
        expat.ExpatError: it is no XML.
        ValueError: a size is no number.
    """
    root = parse_tree(text.encode())
    pixels = next((item for item in root.iter() if item.tag.rpartition("}")[2].rpartition(":")[2] == "Pixels"), None)
    return [None if pixels is None else _physical(pixels, axis) for axis in "XY"]


def _physical(pixels: Element, axis: str) -> float | None:
    """OME's physical size of a pixel along an axis, um."""
    size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
    return float(size) * UM_PER_UNIT[unit] if size and unit in UM_PER_UNIT else None


def _openslide_alone(properties: Mapping[str, str], known: Sequence[float]) -> dict[str, tuple[float, float]]:
    """OpenSlide's mpp if it is plausible along one axis only, and none of the `known` ones."""
    numbers = {name: _number(properties.get(name)) for name in ("openslide.mpp-x", "openslide.mpp-y")}
    alone = {name: (mpp, mpp) for name, mpp in numbers.items() if _plausible(mpp)}
    if len(alone) != 1 or any(math.isclose(mpp, other, rel_tol=1e-3) for mpp in numbers.values() for other in known):
        return {}
    return alone


def _both_axes(x: float, y: float) -> tuple[float, float] | None:
    """The um/px along x and y, each taken for the other where that is not plausible; `None` if neither is."""
    if not (_plausible(x) or _plausible(y)):
        return None
    return (x if _plausible(x) else y, y if _plausible(y) else x)


def _plausible(mpp: float) -> bool:
    """Whether a slide may have so many um/px; NaN is none."""
    return MIN_MPP <= mpp <= MAX_MPP


def _number(text: str | None) -> float:
    """A field's number; NaN if it is absent or no number."""
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
