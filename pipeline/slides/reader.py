"""Open slides and read patches from them, directly where `slides.direct` can. The only module that imports openslide.

An OpenSlide handle that has met a damaged tile refuses all later reads. So a failed read is retried once on a fresh
handle, whose result does not depend on what other threads met. Colour profiles are not applied, as in the published
encoders' own pipelines.
"""

import math
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageStat

from pipeline.base.cores import require_descriptors
from pipeline.base.errors import EmptyPatchError, G2LError, LimitError, PatchError, SlideError, raise_if_limit
from pipeline.base.images import reduce_by_torch
from pipeline.disk.at_hand import note_slide
from pipeline.disk.first_look import require_sound_slide
from pipeline.disk.objects.places import why_no_slide
from pipeline.slides.direct.direct_reader import DirectReader
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.geometry import PILLOW, PatchGeometry, RegionBox, choose_level, region_box
from pipeline.slides.identity import SlideIdentity, identity_as_recorded, mirax_trouble, read_identity
from pipeline.slides.info import read_info

T = TypeVar("T")

RESAMPLING = Image.Resampling.LANCZOS
"""Antialiasing filter of the only resampling; its support grows with the reduction (Pillow). Our choice: the sharpest
in Pillow.
"""

MIN_SCANNED = 0.5
"""Least scanned share of a region's area; with less, it would be mostly plain background. Our choice: half."""
MAX_REGION_PX = 2**28
"""Most pixels read at once: 1 GiB. Our choice: a patch of 4096 pixels reduced fourfold."""
REGIONS_BYTES = 2**23
"""Most bytes of regions that are reduced together. Our choice: eight of 590 pixels a side."""
OWN_CACHE_BYTES = 2**26
"""Most bytes of decoded tiles that a slide keeps which shares no cache. Our choice: two rows of tiles of 256 pixels
across a slide of 40,000 pixels.
"""
MAX_WORDS = 300
"""Most characters of another library's error in a message."""
UNSUPPORTED = re.compile(r"unsupported|not supported|cannot handle ImageDepth", re.IGNORECASE)
"""Words of OpenSlide's for a file that is whole and of a kind that it does not read (compression, DICOM's colours)."""
CONVERT = "convert it, for example to a pyramidal TIFF with JPEG tiles"
UNREAD_KIND = f"OpenSlide reads no file of this kind: {CONVERT}"
NO_RIGHT = "this user has no permission to read it. Whoever owns it can allow it: chmod g+r, or o+r"
NO_SLIDE = f"not a slide that OpenSlide can read. Is the file whole? If it is of another kind, {CONVERT}"


@contextmanager
def slide_failures(path: Path) -> Iterator[None]:
    """Turn any failure of one slide into a `SlideError` that names it; errors of G2L pass unchanged.

    Raises:
        SlideError: the block raised something other than a `G2LError`.
    """
    try:
        yield
    except G2LError:
        raise
    except Exception as error:
        raise_if_limit(error)
        raise SlideError(f"{path}: the slide cannot be used ({_describe(error)})") from error


def _describe(error: Exception) -> str:
    """An error on one line, with its type unless it is OpenSlide's (a KeyError's message is only a key)."""
    words = " ".join(str(error).split())[:MAX_WORDS]
    return words if isinstance(error, openslide.OpenSlideError) else f"{type(error).__name__}: {words}".rstrip(": ")


def _read_properties(handle: openslide.OpenSlide) -> tuple[dict[str, str], int]:
    """The slide's properties, and how many were skipped: a name that is not UTF-8 does not find its own value."""
    properties, num_passed = {}, 0
    for name in handle.properties:
        try:
            properties[name] = handle.properties[name]
        except KeyError:
            num_passed += 1
    return properties, num_passed


class Slide:
    """An open slide; safe to read from many threads.

    Args:
        path: its file.
        manifest_mpp: um/px according to the manifest, if it says so.
        mpp_overrides: use `manifest_mpp`, whatever the slide says.
        cache: keeps decoded tiles, of several slides if they share it; by default a small one of the slide's own.
        copy: a checked copy of the slide on a faster disk (`slides.staging`), which is read in its place; `path` stays
            its name.

    Raises:
        SlideError: the file is missing or not a slide, its mpp is missing, implausible or contradicts the manifest's,
            or anything else goes wrong with it.
    """

    def __init__(
        self,
        path: Path,
        manifest_mpp: float | None = None,
        *,
        mpp_overrides: bool = False,
        cache: TileCache | None = None,
        copy: Path | None = None,
    ) -> None:
        self.path = path
        self._file = copy or path
        self._lock = threading.Lock()
        self._identity: SlideIdentity | None = None
        with slide_failures(path):
            if os.path.isfile(self._file):
                require_sound_slide(path, copy)
            note_slide(path)
            self._handle = self._open()
            try:
                properties, num_passed = _read_properties(self._handle)
                sizes = self._handle.level_dimensions
                self._ratios = tuple(self._handle.level_downsamples)
            except openslide.OpenSlideError as error:
                raise SlideError(f"{path}: the slide's properties cannot be read ({self._words(error)})") from None
            self.info = read_info(properties, sizes, manifest_mpp, path, overrides=mpp_overrides, ratios=self._ratios)
        if num_passed:
            odd = f"{num_passed} of its properties have names that are not UTF-8 and are skipped"
            self.info = replace(self.info, warnings=(*self.info.warnings, odd))
        cache = TileCache(OWN_CACHE_BYTES) if cache is None else cache
        reference = weakref.WeakMethod(self._read_reference)
        self.direct = DirectReader(path, self.info.vendor, sizes, self._ratios, cache, reference, self._file)

    def identity(self, file_bytes: int | None = None) -> SlideIdentity:
        """The slide's identity, to compare with a later opening, or with a record of `file_bytes` (see
        `identity_as_recorded`); reads the file once.

        Raises:
            SlideError: the file cannot be read.
        """
        with slide_failures(self.path):
            if self._identity is None:
                self._identity = read_identity(self._file, self.info)
            return identity_as_recorded(self._file, self._identity, file_bytes)

    def _open(self) -> openslide.OpenSlide:
        if not os.path.isfile(self._file):  # never raises, unlike Path.is_file
            raise SlideError(f"{self.path}: {why_no_slide(self.path)}")
        try:
            return openslide.OpenSlide(self._file)
        except openslide.OpenSlideUnsupportedFormatError:
            require_descriptors()  # without any left, OpenSlide says that of every file
            may_read = os.access(self._file, os.R_OK)  # and that of one that this user may not read
            why = (mirax_trouble(self._file) or NO_SLIDE) if may_read else NO_RIGHT
            raise SlideError(f"{self.path}: {why}") from None
        except openslide.OpenSlideError as error:
            raise_if_limit(error)
            words = self._words(error)
            mend = UNREAD_KIND if UNSUPPORTED.search(words) else "Is the file whole?"
            raise SlideError(f"{self.path}: the slide does not open ({words}). {mend}") from None

    def _words(self, error: Exception) -> str:
        """OpenSlide's words, which may name the file that was read, as if it had been the slide's own."""
        return str(error).replace(str(self._file), str(self.path))

    def geometry(self, patch_px: int, target_mpp: float, *, allow_upsampling: bool = False) -> PatchGeometry:
        """How to read patches of `patch_px` at `target_mpp` (um/px) from this slide.

        Raises:
            SlideError: the slide is too coarse and upsampling is not allowed, or a patch's region is too large.
        """
        info = self.info
        try:
            level = choose_level(info.mpp, info.downsamples, target_mpp, allow_upsampling=allow_upsampling)
        except ValueError as error:
            raise SlideError(f"{self.path}: {error}") from None
        geometry = PatchGeometry(patch_px, target_mpp, info.mpp, level, info.downsamples[level])
        if geometry.patch_level_px**2 > MAX_REGION_PX:
            raise SlideError(
                f"{self.path}: a patch would be reduced from {geometry.patch_level_px:,.0f} pixels a "
                "side, too many to read at once. Use a finer --mpp or a smaller --patch-px"
            )
        return geometry

    def why_not_half(self, geometry: PatchGeometry) -> str:
        """Why patches are not read from tiles decoded at half their size; empty if they can be."""
        if not geometry.is_halvable:
            return f"patches are reduced {geometry.patch_level_px / geometry.patch_px:.3g} times, less than twice"
        level = geometry.level
        if not self.direct.can_halve(level):
            return self.direct.note(level) or f"level {level} is not of JPEG tiles that are read directly"
        return ""

    def read_region(
        self,
        level: int,
        corner_level_px: tuple[int, int],
        size_level_px: tuple[int, int],
        *,
        min_scanned: float = 0.0,
        scanned: NDArray[np.uint8] | None = None,
    ) -> Image.Image:
        """Read a region of a level as RGB on the slide's background; corner (x, y) and size (width, height) in level
        pixels.

        Args:
            scanned: uint8 (height, width), which gets the share of each pixel that was scanned, of 255.

        Raises:
            PatchError: a tile in it is damaged; `EmptyPatchError`: less than `min_scanned` of its area was scanned.
            SlideError: the slide's file is gone.
        """
        with self._patch_failures():
            direct = self._read_direct(level, corner_level_px, size_level_px)
            if direct is None:
                return self._read_on_background(level, corner_level_px, size_level_px, min_scanned, scanned)
            if scanned is not None:
                scanned[:] = 255
            return Image.fromarray(direct)

    def _read_direct(
        self,
        level: int,
        corner_level_px: tuple[int, int],
        size_level_px: tuple[int, int],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8] | None:
        """A region as `slides.direct` reads it, uint8 (height, width, 3), in `out` if given; `None` if OpenSlide is to
        read it.

        Raises:
            PatchError: it has too many pixels.
        """
        self._note_read(size_level_px)
        return self.direct.read(level, corner_level_px, size_level_px, out)

    def _read_on_background(
        self,
        level: int,
        corner_level_px: tuple[int, int],
        size_level_px: tuple[int, int],
        min_scanned: float,
        scanned: NDArray[np.uint8] | None = None,
    ) -> Image.Image:
        """A region as OpenSlide reads it, on the slide's background; `scanned` as in `read_region`.

        Raises:
            PatchError: as `read_region`.
        """
        region = self._read_rgba(level, corner_level_px, size_level_px)
        alpha = region.getchannel("A")
        if scanned is not None:
            scanned[:] = np.asarray(alpha)
        if alpha.getextrema()[0] == 255:
            return region.convert("RGB")
        if ImageStat.Stat(alpha).mean[0] < 255 * min_scanned:
            raise EmptyPatchError("the slide has no pixels there")
        background = Image.new("RGBA", region.size, (*self.info.background, 255))
        return Image.alpha_composite(background, region).convert("RGB")

    def _read_half(self, geometry: PatchGeometry, box: RegionBox) -> NDArray[np.uint8]:
        """A region of a level at half its size, uint8 (height, width, 3).

        Where a tile is missing or does not decode, and at an odd edge, OpenSlide reads the region in full, and 2 x 2
        pixels are averaged: which of both it is depends on the file alone.

        Raises:
            PatchError: as `read_region`.
            SlideError: its tiles cannot be decoded at half their size here, though they could where it was planned.
        """
        level = geometry.level
        if why := self.why_not_half(geometry):
            raise SlideError(f"{self.path}: planned with --decode half, which cannot be done here: {why}")
        self._note_read(box.size_level_px)
        direct = self.direct.read_half(level, box.corner_level_px, box.size_level_px)
        if direct is not None:
            return direct
        x, y = (2 * corner for corner in box.corner_level_px)
        width, height = (
            min(2 * side, full - corner)
            for side, full, corner in zip(box.size_level_px, self.info.level_sizes_px[level], (x, y), strict=True)
        )
        return np.array(self._read_on_background(level, (x, y), (width, height), MIN_SCANNED).reduce(2))

    def _note_read(self, size_px: tuple[int, int]) -> None:
        """Note that the slide is read.

        Raises:
            PatchError: the region has too many pixels.
        """
        width, height = size_px
        if width * height > MAX_REGION_PX:
            raise PatchError(f"a region of {width:,} x {height:,} pixels is too large to read at once")
        note_slide(self.path)

    @contextmanager
    def _patch_failures(self) -> Iterator[None]:
        """Turn any failure of one patch into a `PatchError`; errors of G2L pass unchanged.

        Raises:
            PatchError: the block raised something other than a `G2LError`.
        """
        try:
            yield
        except G2LError:
            raise
        except Exception as error:
            raise_if_limit(error)
            raise PatchError(_describe(error)) from error

    def _location_l0_px(
        self, level: int, corner_level_px: tuple[int, int], size_level_px: tuple[int, int]
    ) -> tuple[int, int]:
        """The level-0 corner to pass to OpenSlide, which divides it by the ratio of the levels' sizes.

        OpenSlide would interpolate, and so smooth, a corner between two level pixels. So regions start at whole level
        pixels, and the only resampling handles the fraction. If the ratio is not whole, an error of up to half a
        level-0 pixel remains; at the far edge the corner is rounded down, so that the last pixel does not mix with the
        outside.
        """
        ratio = self._ratios[level]
        x, y = (
            math.floor(corner * ratio) if corner + size == full else round(corner * ratio)
            for corner, size, full in zip(corner_level_px, size_level_px, self.info.level_sizes_px[level], strict=True)
        )
        return x, y

    def _read_reference(
        self, level: int, corner_level_px: tuple[int, int], size_level_px: tuple[int, int]
    ) -> NDArray[np.uint8] | None:
        """A region by OpenSlide, uint8 (height, width, 3); `None` where parts of it were not scanned.

        Raises:
            PatchError: a tile in it is damaged.
        """
        region = np.asarray(self._read_rgba(level, corner_level_px, size_level_px))
        return region[..., :3] if (region[..., 3] == 255).all() else None

    def _read_rgba(self, level: int, corner_level_px: tuple[int, int], size_level_px: tuple[int, int]) -> Image.Image:
        location = self._location_l0_px(level, corner_level_px, size_level_px)
        handle = self._handle
        try:
            return handle.read_region(location, level, size_level_px)
        except openslide.OpenSlideError:
            with self._lock:
                if self._handle is handle:  # it refuses all further reads: give the next reader a fresh one
                    self._handle = self._open()
        try:
            with self._open() as fresh_handle:
                return fresh_handle.read_region(location, level, size_level_px)
        except openslide.OpenSlideError as error:
            raise_if_limit(error)
            raise PatchError(f"the slide is damaged there ({self._words(error)})") from None

    def read_patch(self, x_l0_px: int, y_l0_px: int, geometry: PatchGeometry) -> NDArray[np.uint8]:
        """Read the patch whose top left corner is (x, y) in level 0: uint8 (P, P, 3) RGB, rows first, resampled at most
        once.

        Raises:
            PatchError: a tile under it is damaged; `EmptyPatchError`: most of it was never scanned.
            SlideError: the slide's file is gone.
        """
        (patch,) = self.read_patches([(x_l0_px, y_l0_px)], geometry)
        if isinstance(patch, G2LError):
            raise patch
        return patch

    def read_patches(
        self, corners_l0_px: Sequence[tuple[int, int]], geometry: PatchGeometry
    ) -> list[NDArray[np.uint8] | G2LError]:
        """Read several patches, each as `read_patch` does; where that would raise an error, the error is in its place.
        Those that torch reduces it reduces together, in two thirds of the time.
        """
        boxes = self._caught(lambda: [region_box(x, y, geometry) for x, y in corners_l0_px])
        if isinstance(boxes, G2LError):
            return [boxes] * len(corners_l0_px)
        patches: list[NDArray[np.uint8] | G2LError] = []
        for alike in _alike(boxes):
            by_torch = geometry.resampling != PILLOW and alike[0].box_level_px[:2] == (0, 0)
            if by_torch and not alike[0].is_exact(geometry.patch_px):
                patches += self._read_together(alike, geometry)
            else:
                patches += [self._caught(partial(self._read_alone, box, geometry)) for box in alike]
        return patches

    def _caught(self, read: Callable[[], T]) -> T | G2LError:
        """What `read` gives, or raises; a limit of this process is raised."""
        try:
            with self._patch_failures():
                return read()
        except LimitError:
            raise
        except G2LError as error:
            return error

    def _read_alone(self, box: RegionBox, geometry: PatchGeometry) -> NDArray[np.uint8]:
        """A patch that needs no resampling, or Pillow's; raises as `read_patch`."""
        region = self._read_box(box, geometry)
        if box.is_exact(geometry.patch_px):
            return np.asarray(region)
        picture = region if isinstance(region, Image.Image) else Image.fromarray(region)
        size = (geometry.patch_px, geometry.patch_px)
        return np.asarray(picture.resize(size, RESAMPLING, box=box.box_level_px))

    def _read_box(
        self, box: RegionBox, geometry: PatchGeometry, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | Image.Image:
        """The region of a patch; in `out`, uint8 (height, width, 3), if that is given. Raises as `read_patch`."""
        place = geometry.level, box.corner_level_px, box.size_level_px
        direct = self._read_half(geometry, box) if geometry.decode == "half" else self._read_direct(*place, out)
        region = self._read_on_background(*place, MIN_SCANNED) if direct is None else direct
        if out is not None and region is not out:
            out[:] = np.asarray(region)
        return region

    def _read_together(self, boxes: Sequence[RegionBox], geometry: PatchGeometry) -> list[NDArray[np.uint8] | G2LError]:
        """Patches, reduced by torch, whose boxes are the same but for their corners; as `read_patches`."""
        width, height = boxes[0].size_level_px
        too_large = self._caught(partial(self._note_read, (width, height)))
        if too_large is not None:  # before memory is asked for
            return [too_large] * len(boxes)
        regions = np.empty((len(boxes), height, width, 3), np.uint8)
        read = [
            self._caught(partial(self._read_box, box, geometry, region))
            for box, region in zip(boxes, regions, strict=True)
        ]
        whole = [place for place, each in enumerate(read) if not isinstance(each, G2LError)]
        if len(whole) < len(boxes):
            regions = regions[whole]
        side, patch_px = boxes[0].box_level_px[2], geometry.patch_px
        reduced = self._caught(lambda: iter(reduce_by_torch(regions, side, patch_px))) if whole else iter(())
        if isinstance(reduced, G2LError):
            return [each if isinstance(each, G2LError) else reduced for each in read]
        return [each if isinstance(each, G2LError) else next(reduced) for each in read]


def _alike(boxes: Iterable[RegionBox]) -> Iterator[list[RegionBox]]:
    """Neighbours that are the same but for their corners, as many at once as `REGIONS_BYTES` hold."""
    for (size, _), alike in groupby(boxes, key=lambda box: (box.size_level_px, box.box_level_px)):
        most = max(1, REGIONS_BYTES // (3 * math.prod(size)))
        while some := list(islice(alike, most)):
            yield some
