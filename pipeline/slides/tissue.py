"""Find a slide's tissue: a mask at about 8 um/px from colour saturation.

Saturation is measured relative to the slide's glass (`glass`), so that a tint is not tissue. After a median filter,
Otsu's threshold separates tissue from glass. Two bounds keep the threshold from finding tissue on a blank slide or
splitting a slide full of tissue. Specks are removed and small holes filled. Unreadable areas count as tissue, so that
damage shows up as failed rows. Left out: pen marks, folds, blur (see docs/guide.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from pipeline.base.errors import PatchError, SlideError
from pipeline.slides.geometry import integral_image
from pipeline.slides.glass import brightest, find_background, find_glass, saturation_against_glass, strips
from pipeline.slides.info import SlideInfo
from pipeline.slides.median import median_filter
from pipeline.slides.reader import Slide

MASK_MPP = 8.0
"""um per mask pixel. Our choice: a cell is about one pixel, a 112 um patch is 14 pixels wide."""
MIN_SATURATION, MAX_SATURATION = 0.05, 0.12
"""Bounds of the saturation threshold (0..1). Our choice: on slides that we inspected, glass lies below 0.03 and pale
stroma above 0.1.
"""
MIN_BRIGHTNESS = 40
"""A pixel whose brightest channel (0..255) is darker is a scan border or a mark; its saturation means nothing. Our
choice.
"""
MEDIAN_UM = 40.0
"""Width of the median filter. Our choice: removes dust, keeps strands of a few cells."""
MIN_TISSUE_MM2 = 0.02
"""Smaller specks are removed. Our choice: a little more than one 112 um patch."""
MAX_HOLE_MM2 = 0.05
"""Smaller holes (lumina, tears, fat) are filled. Our choice: about four patches."""
BLOCK_PX = 2048
"""Side of the blocks in which a level is read, so that memory does not grow with the slide."""
MIN_BLOCK_PX = 256
"""An unreadable block is quartered down to this side, about a tile, to find its readable parts."""
MOST_FAILED_READS = 2000
"""Failed reads per slide after which blocks are no longer quartered; each opens the file twice. Our choice: some
seconds, enough for twenty blocks with one damaged tile each.
"""
MANY_PX = 2**30
"""Pixels of a level that are worth a note before they are read. Our choice: some ten seconds of one core."""
MAX_MASK_PX = 2**28
"""Most pixels of a mask. Our choice: 131 mm x 131 mm of glass, and 3 GB of memory for all arrays of that size."""


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide.

    Attributes:
        mask: bool (H, W); its top left corner is the slide's.
        pixel_l0_px: side of a mask pixel in level-0 pixels.
        unreadable: bool (H, W), part of `mask`: areas that could not be read.
        thumbnail: uint8 (H, W, 3), the same frame; unreadable areas are black.
    """

    mask: NDArray[np.bool_]
    pixel_l0_px: float
    unreadable: NDArray[np.bool_]
    thumbnail: NDArray[np.uint8]

    def integral(self) -> NDArray[np.float64]:
        """Summed-area table of the mask, (H+1, W+1)."""
        return integral_image(self.mask)


def find_tissue(slide: Slide) -> TissueMask:
    """Segment the tissue of a slide.

    Raises:
        SlideError: its mask would be larger than that of any slide, or its file is gone.
    """
    thumbnail, unreadable, pixel_l0_px = read_thumbnail(slide)
    slide.direct.forget_tiles()  # each was read for the last time, and they are as many bytes as the masks below
    pixel_um = pixel_l0_px * slide.info.mpp
    mask = segment(thumbnail, pixel_um, ignore=unreadable) | unreadable
    x, y, width, height = (value / pixel_l0_px for value in slide.info.bounds_l0_px)
    outside = np.ones_like(mask)
    outside[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = False
    mask[outside] = False
    return TissueMask(mask, pixel_l0_px, unreadable & ~outside, thumbnail)


def segment(image: NDArray[np.uint8], pixel_um: float, ignore: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Segment tissue in an RGB image (H, W, 3) of `pixel_um` micrometres per pixel: bool (H, W). Skips pixels in
    `ignore`.
    """
    known = brightest(image) >= MIN_BRIGHTNESS
    if ignore is not None:
        known &= ~ignore
    median_px = max(1, round(MEDIAN_UM / pixel_um)) | 1
    glass = find_glass(image, known)
    background = find_background(image, known, glass)
    if background is not None:  # often noisy, and noise in the channels adds saturation
        glass.insert(0, background)
        image = median_filter(image, median_px)
    saturation = saturation_against_glass(image, glass)
    saturation[~known] = 0
    saturation = median_filter(saturation, median_px)
    values = saturation[known]
    if values.size == 0 or np.ptp(values) == 0:
        threshold = MAX_SATURATION
    else:
        threshold = float(np.clip(threshold_otsu(values), MIN_SATURATION, MAX_SATURATION))
    mask = saturation > threshold
    del saturation, values  # floats of the slide's size; labels of that size come next
    pixel_mm2 = (pixel_um / 1000) ** 2
    mask = without_small(mask, int(MIN_TISSUE_MM2 / pixel_mm2))
    holes = ndimage.binary_fill_holes(mask) & ~mask  # enclosed holes only: glass at the border is not a hole
    small = holes & ~without_small(holes, int(MAX_HOLE_MM2 / pixel_mm2))
    return np.asarray(mask | small, dtype=bool)


def without_small(mask: NDArray[np.bool_], most_px: int) -> NDArray[np.bool_]:
    """A mask (H, W) without its objects of at most `most_px` pixels; pixels that share a side are of one object.

    As skimage's `remove_small_objects`, but counts and removes strip by strip: that takes three times the memory.
    """
    labels, number = ndimage.label(mask)
    sizes = np.zeros(number + 1, np.int64)
    for rows in strips(*mask.shape):
        inside = labels[rows][mask[rows]]
        if len(inside):
            counts = np.bincount(inside - inside.min())  # labels of a strip lie close together
            sizes[inside.min() :][: len(counts)] += counts
    large = sizes > most_px
    kept = np.empty_like(mask)
    for rows in strips(*mask.shape):
        kept[rows] = large[labels[rows]]
    return kept


def mask_level(info: SlideInfo) -> tuple[int, int]:
    """The level from which the mask is made, and the whole number of its pixels that a mask pixel is wide."""
    level = max((i for i, d in enumerate(info.downsamples) if d * info.mpp <= MASK_MPP), default=0)
    return level, max(1, round(MASK_MPP / (info.mpp * info.downsamples[level])))


def long_reading_note(slide: Slide) -> str:
    """What to tell of a slide of which much has to be read to find its tissue; "" of others."""
    info = slide.info
    level, factor = mask_level(info)
    width, height = info.level_sizes_px[level]
    if width * height < MANY_PX:
        return ""
    why = "has only one level" if len(info.level_sizes_px) == 1 else f"has no level near {MASK_MPP:g} um/px"
    return (
        f"{slide.path} {why}, so its tissue is found from all {width:,} x {height:,} pixels of level {level}. They are "
        f"read block by block and averaged {factor} x {factor}; this takes minutes, but bounded memory"
    )


def read_thumbnail(slide: Slide) -> tuple[NDArray[np.uint8], NDArray[np.bool_], float]:
    """Read the whole slide at about `MASK_MPP`: RGB (H, W, 3), unreadable pixels (H, W), and level-0 pixels per pixel.

    Reads blocks of the coarsest level that is fine enough, and averages each down by one whole factor. Areas that were
    never scanned get the slide's background.

    Raises:
        SlideError: the thumbnail would be larger than that of any slide, or the slide's file is gone.
    """
    info = slide.info
    level, factor = mask_level(info)
    downsample, (width, height) = info.downsamples[level], info.level_sizes_px[level]
    columns, rows = -(-width // factor), -(-height // factor)
    if columns * rows > MAX_MASK_PX:
        side_mm = (columns * factor * downsample * info.mpp / 1000, rows * factor * downsample * info.mpp / 1000)
        raise SlideError(
            f"{slide.path}: at {info.mpp:g} um/px its {info.size_l0_px[0]:,} x {info.size_l0_px[1]:,} "
            f"pixels are {side_mm[0]:.0f} x {side_mm[1]:.0f} mm, more than any slide"
        )
    image = np.zeros((rows, columns, 3), np.uint8)
    unreadable = np.zeros((rows, columns), bool)
    side = max(1, BLOCK_PX // factor) * factor
    blocks = list(_divided((0, 0, width, height), side))[::-1]
    num_failed = 0
    # no function that calls itself: it would keep the slide, and its tiles, until Python looks for cycles
    while blocks:
        x, y, w, h = blocks.pop()
        place = (slice(y // factor, y // factor - (-h // factor)), slice(x // factor, x // factor - (-w // factor)))
        try:
            region = slide.read_region(level, (x, y), (w, h))
        except PatchError:
            num_failed += 1
            half = max(w, h) // 2 // factor * factor
            if max(w, h) <= MIN_BLOCK_PX or half == 0 or num_failed > MOST_FAILED_READS:
                unreadable[place] = True
            else:
                blocks += list(_divided((x, y, w, h), half))[::-1]
        else:
            image[place] = np.asarray(region.reduce(factor))
    return image, unreadable, factor * downsample


def _divided(box: tuple[int, int, int, int], side: int) -> Iterator[tuple[int, int, int, int]]:
    """A box (x, y, width, height) in blocks of at most `side` pixels, row by row."""
    left, top, width, height = box
    for y in range(top, top + height, side):
        for x in range(left, left + width, side):
            yield x, y, min(side, left + width - x), min(side, top + height - y)
