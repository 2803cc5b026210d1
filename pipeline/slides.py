"""Slides: what they say of themselves, and patches read from them. The one module that imports openslide.

An OpenSlide handle that met one damaged tile refuses everything after it. So a failed read is tried once more on a
fresh handle of its own: what that gives is the truth about this patch, whatever other threads met meanwhile. Colour
profiles are not applied, as in the published encoders' own pipelines.
"""

import math
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageStat

from pipeline.errors import EmptyPatchError, PatchError, SlideError
from pipeline.geometry import PatchGeometry, choose_level, region_box, true_downsample
from pipeline.units import check_mpp

MAX_ANISOTROPY = 1.01
"""Pixels may be 1 % off square: what remains is within the 1 % that the effective mpp may miss the target by."""
RESAMPLING = Image.Resampling.LANCZOS
"""Antialiasing filter of the single resampling; its support grows with the reduction (Pillow). Our choice: sharpest of
Pillow's.
"""

MIN_SCANNED = 0.5
"""A region with less of its area scanned is no patch: the rest would be plain background. Our choice: half."""


@dataclass(frozen=True)
class SlideInfo:
    """What a slide says of itself.

    Attributes:
        vendor: OpenSlide's name of the format.
        mpp: um/px of level 0.
        mpp_source: "slide" or "manifest".
        size_l0_px: (width, height) of level 0.
        bounds_l0_px: (x, y, width, height) of the scanned area, level 0; the whole slide when it names none.
        level_sizes_px: (width, height) of each level, finest first.
        downsamples: level-0 pixels per level pixel, finest first; `geometry.true_downsample`.
        quickhash: OpenSlide's hash of the slide's content, if it has one.
        background: RGB that transparent pixels take.
    """

    vendor: str
    mpp: float
    mpp_source: str
    size_l0_px: tuple[int, int]
    bounds_l0_px: tuple[int, int, int, int]
    level_sizes_px: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    quickhash: str | None
    background: tuple[int, int, int]

    def audit_facts(self) -> dict[str, Any]:
        """Its columns in a plan's audit (`plan.AuditRow`)."""
        return {
            "vendor": self.vendor,
            "width": self.size_l0_px[0],
            "height": self.size_l0_px[1],
            "levels": len(self.downsamples),
            "mpp": round(self.mpp, 6),
            "mpp_source": self.mpp_source,
        }


def _read_mpp(properties: dict[str, str], manifest_mpp: float | None, path: Path) -> tuple[float, str]:
    """mpp of level 0 and where it is from.

    Raises:
        SlideError: neither the slide nor the manifest gives one, it is implausible, or pixels are not square.
    """
    try:
        if manifest_mpp is not None:
            return check_mpp(manifest_mpp, "the manifest"), "manifest"
        values = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        if values[0] is None or values[1] is None:
            raise ValueError("it has no mpp (um/px). Give it in the manifest's column mpp")
        x, y = (check_mpp(float(value), "the slide") for value in values if value is not None)
    except ValueError as error:
        raise SlideError(f"{path}: {error}") from None
    if max(x, y) / min(x, y) > MAX_ANISOTROPY:
        raise SlideError(f"{path}: pixels are not square ({x:g} x {y:g} um). Give one mpp in the manifest's column mpp")
    return math.sqrt(x * y), "slide"


def _read_info(handle: openslide.OpenSlide, manifest_mpp: float | None, path: Path) -> SlideInfo:
    properties = dict(handle.properties)
    mpp, mpp_source = _read_mpp(properties, manifest_mpp, path)
    width, height = handle.dimensions
    bounds = [properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
    x, y, w, h = (int(b) for b in bounds if b is not None) if None not in bounds else (0, 0, width, height)
    colour = properties.get("openslide.background-color", "FFFFFF")
    return SlideInfo(
        vendor=properties.get("openslide.vendor", "unknown"),
        mpp=mpp,
        mpp_source=mpp_source,
        size_l0_px=(width, height),
        bounds_l0_px=(x, y, min(w, width - x), min(h, height - y)),
        level_sizes_px=tuple(handle.level_dimensions),
        downsamples=tuple(true_downsample((width, height), size) for size in handle.level_dimensions),
        quickhash=properties.get("openslide.quickhash-1"),
        background=(int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)),
    )


class Slide:
    """An open slide; safe to read from many threads.

    Raises:
        SlideError: the file is missing or no slide, or it has no plausible mpp.
    """

    def __init__(self, path: Path, manifest_mpp: float | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._handle = self._open()
        try:
            self.info = _read_info(self._handle, manifest_mpp, path)
            self._ratios = tuple(self._handle.level_downsamples)
        except openslide.OpenSlideError as error:
            raise SlideError(f"{path}: the slide's properties cannot be read ({error})") from None

    def _open(self) -> openslide.OpenSlide:
        if not os.path.isfile(self.path):  # never raises, unlike Path.is_file
            raise SlideError(f"{self.path}: no such slide, or no right to look into its folder")
        try:
            return openslide.OpenSlide(self.path)
        except openslide.OpenSlideUnsupportedFormatError:
            raise SlideError(f"{self.path}: not a slide that OpenSlide can read") from None
        except openslide.OpenSlideError as error:
            raise SlideError(f"{self.path}: the slide does not open ({error}). Is the file whole?") from None

    def geometry(self, patch_px: int, target_mpp: float, *, allow_upsampling: bool = False) -> PatchGeometry:
        """How patches of `patch_px` at `target_mpp` (um/px) are read from this slide.

        Raises:
            SlideError: the slide is too coarse and upsampling is not allowed.
        """
        info = self.info
        try:
            level = choose_level(info.mpp, info.downsamples, target_mpp, allow_upsampling=allow_upsampling)
        except ValueError as error:
            raise SlideError(f"{self.path}: {error}") from None
        return PatchGeometry(patch_px, target_mpp, info.mpp, level, info.downsamples[level])

    def read_region(
        self,
        level: int,
        corner_level_px: tuple[int, int],
        size_level_px: tuple[int, int],
        *,
        min_scanned: float = 0.0,
    ) -> Image.Image:
        """An RGB region of a level on the slide's background; corner (x, y) and size (width, height) in level pixels.

        Raises:
            PatchError: a tile in it is damaged; `EmptyPatchError`: less than `min_scanned` of its area was scanned.
            SlideError: the slide's file is gone.
        """
        region = self._read_rgba(level, corner_level_px, size_level_px)
        alpha = region.getchannel("A")
        if alpha.getextrema()[0] == 255:
            return region.convert("RGB")
        if ImageStat.Stat(alpha).mean[0] < 255 * min_scanned:
            raise EmptyPatchError("the slide has no pixels at this place")
        background = Image.new("RGBA", region.size, (*self.info.background, 255))
        return Image.alpha_composite(background, region).convert("RGB")

    def _location_l0_px(
        self, level: int, corner_level_px: tuple[int, int], size_level_px: tuple[int, int]
    ) -> tuple[int, int]:
        """The level-0 corner to ask OpenSlide for, which divides it by the ratio of the levels' sizes.

        A corner between two pixels of the level would be interpolated, and so smoothed, which is why patches are read
        from whole level pixels and the fraction is left to the one resampling. Where the ratio is not whole, at most
        half a level-0 pixel remains; at the far edge it is rounded down, lest the last pixel mix with the outside.
        """
        ratio = self._ratios[level]
        x, y = (
            math.floor(corner * ratio) if corner + size == full else round(corner * ratio)
            for corner, size, full in zip(corner_level_px, size_level_px, self.info.level_sizes_px[level], strict=True)
        )
        return x, y

    def _read_rgba(self, level: int, corner_level_px: tuple[int, int], size_level_px: tuple[int, int]) -> Image.Image:
        location = self._location_l0_px(level, corner_level_px, size_level_px)
        handle = self._handle
        try:
            return handle.read_region(location, level, size_level_px)
        except openslide.OpenSlideError:
            with self._lock:
                if self._handle is handle:  # it refuses everything from now on: the next reader gets a fresh one
                    self._handle = self._open()
        try:
            with self._open() as own_handle:
                return own_handle.read_region(location, level, size_level_px)
        except openslide.OpenSlideError as error:
            raise PatchError(str(error)) from None

    def read_patch(self, x_l0_px: int, y_l0_px: int, geometry: PatchGeometry) -> NDArray[np.uint8]:
        """The patch whose top left corner is (x, y) in level 0: uint8 (P, P, 3) RGB, rows first, resampled at most
        once.

        Raises:
            PatchError: a tile under it is damaged; `EmptyPatchError`: most of it was never scanned.
            SlideError: the slide's file is gone.
        """
        box = region_box(x_l0_px, y_l0_px, geometry)
        region = self.read_region(geometry.level, box.corner_level_px, box.size_level_px, min_scanned=MIN_SCANNED)
        if not box.is_exact(geometry.patch_px):
            region = region.resize((geometry.patch_px, geometry.patch_px), RESAMPLING, box=box.box_level_px)
        return np.asarray(region)


class SlidePool:
    """The last few slides opened, kept open for many threads. A slide that cannot be opened fails again at once.

    Rows come slide by slide, so that a handful is enough; a slide that drops out is closed when its last reader is
    done.
    """

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._slides: OrderedDict[Path, Slide | SlideError] = OrderedDict()

    def open(self, path: Path, manifest_mpp: float | None, quickhash: str | None) -> Slide:
        """The slide at `path`, which must have the content that the plan saw.

        Raises:
            SlideError: it does not open, or its quickhash is another one.
        """
        with self._lock:
            entry = self._slides.get(path)
            if entry is None:
                try:
                    entry = Slide(path, manifest_mpp)
                    if entry.info.quickhash != quickhash:
                        entry = SlideError(f"{path}: not the slide that was planned (its content has changed)")
                except SlideError as error:
                    entry = error
                self._slides[path] = entry
                if len(self._slides) > self._capacity:
                    self._slides.popitem(last=False)
            self._slides.move_to_end(path)
        if isinstance(entry, SlideError):
            raise SlideError(str(entry))  # one of its own for each thread
        return entry
