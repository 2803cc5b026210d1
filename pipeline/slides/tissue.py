"""Find a slide's tissue: a mask at about 8 um/px from colour saturation.

Saturation is measured relative to the slide's glass (`glass`), so that a tint is not tissue. After a median filter,
Otsu's threshold separates tissue from glass. Two bounds keep the threshold from finding tissue on a blank slide or
splitting a slide full of tissue. Specks are removed and small holes filled. Unreadable areas count as tissue, so that
damage shows up as failed rows. Left out: pen marks, folds, blur (see docs/guide.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_objects

from pipeline.base.errors import PatchError, SlideError
from pipeline.slides.geometry import integral_image
from pipeline.slides.glass import find_background, find_glass, saturation_against_glass
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
    known = image.max(axis=2) >= MIN_BRIGHTNESS
    if ignore is not None:
        known &= ~ignore
    median_px = max(1, round(MEDIAN_UM / pixel_um)) | 1
    glass = find_glass(image, known)
    background = find_background(image, known, glass)
    if background is not None:  # often noisy, and noise in the channels adds saturation
        glass.insert(0, background)
        image = ndimage.median_filter(image, size=(median_px, median_px, 1), mode="nearest")
    saturation = np.where(known, saturation_against_glass(image, glass), 0).astype(np.float32)
    saturation = ndimage.median_filter(saturation, size=median_px, mode="nearest")
    values = saturation[known]
    if values.size == 0 or np.ptp(values) == 0:
        threshold = MAX_SATURATION
    else:
        threshold = float(np.clip(threshold_otsu(values), MIN_SATURATION, MAX_SATURATION))
    mask = saturation > threshold
    pixel_mm2 = (pixel_um / 1000) ** 2
    mask = remove_small_objects(mask, max_size=int(MIN_TISSUE_MM2 / pixel_mm2))
    holes = ndimage.binary_fill_holes(mask) & ~mask  # enclosed holes only: glass at the border is not a hole
    small = holes & ~remove_small_objects(holes, max_size=int(MAX_HOLE_MM2 / pixel_mm2))
    return np.asarray(mask | small, dtype=bool)


def read_thumbnail(slide: Slide) -> tuple[NDArray[np.uint8], NDArray[np.bool_], float]:
    """Read the whole slide at about `MASK_MPP`: RGB (H, W, 3), unreadable pixels (H, W), and level-0 pixels per pixel.

    Reads blocks of the coarsest level that is fine enough, and averages each down by one whole factor. Areas that were
    never scanned get the slide's background.

    Raises:
        SlideError: the thumbnail would be larger than that of any slide, or the slide's file is gone.
    """
    info = slide.info
    level = max((i for i, d in enumerate(info.downsamples) if d * info.mpp <= MASK_MPP), default=0)
    downsample, (width, height) = info.downsamples[level], info.level_sizes_px[level]
    factor = max(1, round(MASK_MPP / (info.mpp * downsample)))
    columns, rows = -(-width // factor), -(-height // factor)
    if columns * rows > MAX_MASK_PX:
        side_mm = (columns * factor * downsample * info.mpp / 1000, rows * factor * downsample * info.mpp / 1000)
        raise SlideError(
            f"{slide.path}: at {info.mpp:g} um/px its {info.size_l0_px[0]:,} x {info.size_l0_px[1]:,} "
            f"pixels are {side_mm[0]:.0f} x {side_mm[1]:.0f} mm, more than any slide"
        )
    num_failed = 0
    image = np.zeros((rows, columns, 3), np.uint8)
    unreadable = np.zeros((rows, columns), bool)

    def read_block(x: int, y: int, w: int, h: int) -> None:
        """Fill the block of `w` x `h` level pixels whose corner is (x, y)."""
        nonlocal num_failed
        top, left = y // factor, x // factor
        bottom, right = top + -(-h // factor), left + -(-w // factor)
        try:
            region = slide.read_region(level, (x, y), (w, h))
        except PatchError:
            num_failed += 1
            half = max(w, h) // 2 // factor * factor
            if max(w, h) <= MIN_BLOCK_PX or half == 0 or num_failed > MOST_FAILED_READS:
                unreadable[top:bottom, left:right] = True
                return
            for sub_y in range(y, y + h, half):
                for sub_x in range(x, x + w, half):
                    read_block(sub_x, sub_y, min(half, x + w - sub_x), min(half, y + h - sub_y))
        else:
            image[top:bottom, left:right] = np.asarray(region.reduce(factor))

    block = max(1, BLOCK_PX // factor) * factor
    for y in range(0, height, block):
        for x in range(0, width, block):
            read_block(x, y, min(block, width - x), min(block, height - y))
    return image, unreadable, factor * downsample
