"""Read the resolutions that a slide's own fields state: the scanner's, the TIFF file's, the DICOM object's.

OpenSlide derives its mpp from one of these fields. Another field may contradict it: programs that reduce or convert a
slide often update only one. Left out: fields without a documented unit (`hamamatsu.XResolution`), and values that
no slide has, such as 72 dots an inch.
"""

import math
import re
from collections.abc import Mapping

from pipeline.base.units import MAX_MPP, MIN_MPP

UM_FIELDS = ("aperio.MPP", "ventana.ScanRes")
"""Fields in um/px, for both axes."""
PHILIPS_MM = "philips.DICOM_PIXEL_SPACING"
"""Two quoted numbers, mm/px along y and x (openslide.org/formats/philips)."""
DICOM_MM = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing"
"""With [0] and [1]: mm/px along y and x (DICOM PS3.3, 10.7.1.3)."""
UM_IN_MM = 1000.0
TIFF_UM = {"inch": 25_400.0, "centimeter": 10_000.0}
"""um in the unit of a TIFF file's resolution, by OpenSlide's name for it. Other units are no length."""


def stated_mpps(properties: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Plausible um/px along x and y that the slide's fields state, by the field's name.

    OpenSlide's own mpp is among them only if it is given for one axis, so that it does not count as the slide's.
    """
    stated = {name: (_number(properties.get(name)),) * 2 for name in UM_FIELDS}
    numbers = re.findall(r"[^\s\"]+", properties.get(PHILIPS_MM, ""))
    if len(numbers) == 2:
        stated[PHILIPS_MM] = (_number(numbers[1]) * UM_IN_MM, _number(numbers[0]) * UM_IN_MM)
    y, x = (_number(properties.get(f"{DICOM_MM}[{axis}]")) for axis in (0, 1))
    stated["dicom PixelSpacing"] = (x * UM_IN_MM, y * UM_IN_MM)
    unit = TIFF_UM.get(properties.get("tiff.ResolutionUnit", ""), math.nan)
    x, y = (_number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
    stated["tiff.XResolution"] = (unit / x if x else math.nan, unit / y if y else math.nan)
    alone = [name for name in ("openslide.mpp-x", "openslide.mpp-y") if name in properties]
    if len(alone) == 1:
        stated[alone[0]] = (_number(properties[alone[0]]),) * 2
    return {name: mpp for name, mpp in stated.items() if all(MIN_MPP <= value <= MAX_MPP for value in mpp)}


def _number(text: str | None) -> float:
    """A field's number; NaN if it is absent or no number."""
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
