"""Read the resolutions that a slide's own fields state: the scanner's, the TIFF file's, the DICOM object's.

OpenSlide derives its mpp from one of these fields. Another field may contradict it: programs that reduce or convert a
slide often update only one. Left out: fields without a documented unit (`hamamatsu.XResolution`), and values that
no slide has, such as 72 dots an inch.
"""

import math
import re
from collections.abc import Mapping, Sequence

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
    plausible = {name: mpp for name, axes in stated.items() if (mpp := _both_axes(*axes)) is not None}
    return plausible | _openslide_alone(properties, [mpp for axes in plausible.values() for mpp in axes])


def _tiff_um(properties: Mapping[str, str], field: str) -> float:
    """um/px of a TIFF file's resolution along one axis; NaN if it gives none, or in no unit of length."""
    per_unit = _number(properties.get(field))
    return TIFF_UM.get(properties.get("tiff.ResolutionUnit", ""), math.nan) / per_unit if per_unit else math.nan


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
