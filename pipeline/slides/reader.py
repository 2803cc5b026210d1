"""Slides: what they say of themselves, and patches read from them. The one module that imports openslide.

An OpenSlide handle that met one damaged tile refuses everything after it. So a failed read is tried once more on a
fresh handle of its own: what that gives is the truth about this patch, whatever other threads met meanwhile. Colour
profiles are not applied, as in the published encoders' own pipelines.
"""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageStat

from pipeline.base.console import say
from pipeline.base.errors import EmptyPatchError, G2LError, PatchError, SlideError
from pipeline.disk.first_look import require_sound
from pipeline.slides.geometry import PatchGeometry, choose_level, region_box
from pipeline.slides.identity import MPP_ROUNDING, SlideIdentity, read_identity
from pipeline.slides.info import read_info

RESAMPLING = Image.Resampling.LANCZOS
"""Antialiasing filter of the single resampling; its support grows with the reduction (Pillow). Our choice: sharpest of
Pillow's.
"""

MIN_SCANNED = 0.5
"""A region with less of its area scanned is no patch: the rest would be plain background. Our choice: half."""
MAX_REGION_PX = 2**28
"""Pixels of a region that is read at once: 1 GiB. Our choice: a patch of 4096 pixels that is reduced four times."""
LOOK_PX = 64
"""Side of the place of each level that a first look reads: one tile, or the corners of four."""
MAX_WORDS = 300
"""Characters of another library's error that a message repeats."""


@contextmanager
def slide_failures(path: Path) -> Iterator[None]:
    """Whatever goes wrong with one slide is a `SlideError` that names it; errors for users pass as they are.

    Raises:
        SlideError: anything was raised within that is no `G2LError`.
    """
    try:
        yield
    except G2LError:
        raise
    except Exception as error:
        raise SlideError(f"{path}: the slide cannot be used ({_describe(error)})") from error


def _describe(error: Exception) -> str:
    """An error in one line, with its kind where its words alone say little (a KeyError's are a bare key)."""
    words = " ".join(str(error).split())[:MAX_WORDS]
    return words if isinstance(error, openslide.OpenSlideError) else f"{type(error).__name__}: {words}".rstrip(": ")


def _read_properties(handle: openslide.OpenSlide) -> tuple[dict[str, str], int]:
    """The slide's properties, and how many are passed over: a name that is not UTF-8 is no key of its own value."""
    properties, num_passed = {}, 0
    for name in handle.properties:
        try:
            properties[name] = handle.properties[name]
        except KeyError:
            num_passed += 1
    return properties, num_passed


def look_at(path: Path) -> str:
    """Open a slide and read a small place of each level, as a child process does for `first_look`.

    Returns what is wrong, which is empty for all that this process would survive: that is found, and named, again.
    """
    try:
        with openslide.OpenSlide(path) as handle:
            _read_properties(handle)
            for level, (width, height) in enumerate(handle.level_dimensions):
                ratio = handle.level_downsamples[level]
                middle = (int(width // 2 * ratio), int(height // 2 * ratio))
                for location in ((0, 0), middle):
                    handle.read_region(location, level, (min(width, LOOK_PX), min(height, LOOK_PX)))
    except MemoryError:
        return "reading it takes more memory than any slide needs"
    except Exception:  # noqa: BLE001  (whatever it is, it is met and named again)
        return ""
    return ""


class Slide:
    """An open slide; safe to read from many threads.

    Args:
        path: its file.
        manifest_mpp: um/px that the manifest gives, if it does.
        mpp_overrides: that counts, whatever the slide says of itself.

    Raises:
        SlideError: the file is missing or no slide, it has no plausible mpp or one that contradicts the manifest's, or
            anything else goes wrong with it.
    """

    def __init__(self, path: Path, manifest_mpp: float | None = None, *, mpp_overrides: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._identity: SlideIdentity | None = None
        with slide_failures(path):
            if os.path.isfile(path):
                require_sound(path)
            self._handle = self._open()
            try:
                properties, num_passed = _read_properties(self._handle)
                sizes = self._handle.level_dimensions
                self._ratios = tuple(self._handle.level_downsamples)
            except openslide.OpenSlideError as error:
                raise SlideError(f"{path}: the slide's properties cannot be read ({error})") from None
            self.info = read_info(properties, sizes, manifest_mpp, path, overrides=mpp_overrides)
        if num_passed:
            odd = f"{num_passed} of its properties have names that are not UTF-8, and are passed over"
            self.info = replace(self.info, warnings=(*self.info.warnings, odd))

    def identity(self) -> SlideIdentity:
        """Which slide it is, for comparison with a later opening; the file is read for it once.

        Raises:
            SlideError: the file cannot be read.
        """
        if self._identity is None:
            with slide_failures(self.path):
                self._identity = read_identity(self.path, self.info)
        return self._identity

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
        found = PatchGeometry(patch_px, target_mpp, info.mpp, level, info.downsamples[level])
        if found.patch_level_px**2 > MAX_REGION_PX:
            raise SlideError(f"{self.path}: a patch would be reduced from {found.patch_level_px:,.0f} pixels a side, "
                             "more than is read at once. Give a finer --mpp, or a smaller --patch-px")  # fmt: skip
        return found

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
        with self._patch_failures():
            region = self._read_rgba(level, corner_level_px, size_level_px)
            alpha = region.getchannel("A")
            if alpha.getextrema()[0] == 255:
                return region.convert("RGB")
            if ImageStat.Stat(alpha).mean[0] < 255 * min_scanned:
                raise EmptyPatchError("the slide has no pixels at this place")
            background = Image.new("RGBA", region.size, (*self.info.background, 255))
            return Image.alpha_composite(background, region).convert("RGB")

    @contextmanager
    def _patch_failures(self) -> Iterator[None]:
        """Whatever goes wrong with one patch is a `PatchError`; errors for users pass as they are.

        Raises:
            PatchError: anything was raised within that is no `G2LError`.
        """
        try:
            yield
        except G2LError:
            raise
        except Exception as error:
            raise PatchError(_describe(error)) from error

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
        width, height = size_level_px
        if width * height > MAX_REGION_PX:
            raise PatchError(f"a region of {width:,} x {height:,} pixels is more than is read at once")
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
        with self._patch_failures():
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

    def open(self, path: Path, manifest_mpp: float | None, planned: SlideIdentity, geometry: PatchGeometry) -> Slide:
        """The slide at `path`, which must be the one that was planned, and be read as it was planned.

        Args:
            manifest_mpp: um/px that the plan's manifest gave; the plan has settled that it counts.
            planned: which slide the plan saw.
            geometry: how the plan reads its patches.

        Raises:
            SlideError: it does not open, or is another slide.
        """
        with self._lock:
            entry = self._slides.get(path)
            if entry is None:
                try:
                    entry = Slide(path, manifest_mpp, mpp_overrides=True)
                    require_planned(entry, planned, geometry)
                except SlideError as error:
                    entry = error
                self._slides[path] = entry
                if len(self._slides) > self._capacity:
                    self._slides.popitem(last=False)
            self._slides.move_to_end(path)
        if isinstance(entry, SlideError):
            raise SlideError(str(entry))  # one of its own for each thread
        return entry


def require_planned(slide: Slide, planned: SlideIdentity, geometry: PatchGeometry) -> None:
    """See that a slide is the one that was planned. A plan of an earlier version may have nothing of its content: then
    size, resolution and level are what tells.

    Raises:
        SlideError: it is another one; says what differs.
    """
    changes = planned.changes(slide.identity())
    info = slide.info
    if not math.isclose(info.mpp, geometry.slide_mpp, rel_tol=MPP_ROUNDING):
        changes.append(f"um/px: {geometry.slide_mpp:g} -> {info.mpp:g}")
    found = dict(enumerate(info.downsamples)).get(geometry.level)
    if found is None or not math.isclose(found, geometry.downsample, rel_tol=MPP_ROUNDING):
        changes.append(f"downsample of level {geometry.level}: {geometry.downsample:g} -> {found}")
    if changes:
        raise SlideError(f"{slide.path}: not the slide that was planned (its content has changed: "
                         f"{'; '.join(changes)}). Plan again, or put the slide back")  # fmt: skip
    if changes := planned.file_changes(slide.identity()):
        say(f"warning: {slide.path}: its file has changed since it was planned ({'; '.join(changes)}), though its "
            "quickhash has not. Was it damaged, or mended?")  # fmt: skip
