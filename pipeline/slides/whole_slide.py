"""Read a whole slide at about 8 um/px, block by block, in bounded memory: what its tissue is found in."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import PatchError, SlideError
from pipeline.slides.info import SlideInfo
from pipeline.slides.reader import Slide

MASK_MPP = 8.0
"""um per mask pixel. Our choice: a cell is about one pixel, a 112 um patch is 14 pixels wide."""
BLOCK_PX = 2048
"""Side of the blocks in which a level is read, so that memory does not grow with the slide."""
MIN_BLOCK_PX = 256
"""An unreadable block is quartered down to this side, about a tile, to find its readable parts."""
MOST_FAILED_READS = 2000
"""Failed reads per slide after which blocks are no longer quartered; each opens the file twice. Our choice: some
seconds, enough for twenty blocks with one damaged tile each.
"""
CLEAR = 16
"""Alpha (0..255) that is as good as 0, and its distance from 255 as good as whole. Our choice."""
MANY_PX = 2**30
"""Pixels of a level that are worth a note before they are read. Our choice: some ten seconds of one core."""
MAX_MASK_PX = 2**28
"""Most pixels of a mask. Our choice: 131 mm x 131 mm of glass, and 3 GB of memory for all arrays of that size."""


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
    if slide.direct.has_hidden_levels:
        why += " that OpenSlide reads (others are SubIFDs, as in an OME-TIFF; convert it to a pyramid without these)"
    return (
        f"{slide.path} {why}, so its tissue is found from all {width:,} x {height:,} pixels of level {level}. They are "
        f"read block by block and averaged {factor} x {factor}; this takes minutes, but bounded memory"
    )


@dataclass(frozen=True)
class WholeSlide:
    """A whole slide at about `MASK_MPP`.

    Attributes:
        image: uint8 (H, W, 3) RGB; what was never scanned has the slide's background.
        unreadable: bool (H, W).
        unscanned: bool (H, W), pixels of which less than half was scanned.
        pixel_l0_px: side of a pixel in level-0 pixels.
        num_faded: number of pixels that are transparent in part.
    """

    image: NDArray[np.uint8]
    unreadable: NDArray[np.bool_]
    unscanned: NDArray[np.bool_]
    pixel_l0_px: float
    num_faded: int = 0


def read_whole(slide: Slide) -> WholeSlide:
    """Read the whole slide at about `MASK_MPP`.

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
    unreadable, unscanned = np.zeros((2, rows, columns), bool)
    side = max(1, BLOCK_PX // factor) * factor
    blocks = list(_divided((0, 0, width, height), side))[::-1]
    num_failed = num_faded = 0
    # no function that calls itself: it would keep the slide, and its tiles, until Python looks for cycles
    while blocks:
        x, y, w, h = blocks.pop()
        place = (slice(y // factor, y // factor - (-h // factor)), slice(x // factor, x // factor - (-w // factor)))
        scanned = np.empty((h, w), np.uint8)
        try:
            region = slide.read_region(level, (x, y), (w, h), scanned=scanned)
        except PatchError:
            num_failed += 1
            half = max(w, h) // 2 // factor * factor
            if max(w, h) <= MIN_BLOCK_PX or half == 0 or num_failed > MOST_FAILED_READS:
                unreadable[place] = True
            else:
                blocks += list(_divided((x, y, w, h), half))[::-1]
        else:
            image[place] = np.asarray(region.reduce(factor))
            if scanned.min() < 255:
                share = np.asarray(Image.fromarray(scanned).reduce(factor))
                unscanned[place] = share < 128
                num_faded += int(np.count_nonzero((share >= CLEAR) & (share < 255 - CLEAR)))
    return WholeSlide(image, unreadable, unscanned, factor * downsample, num_faded)


def _divided(box: tuple[int, int, int, int], side: int) -> Iterator[tuple[int, int, int, int]]:
    """A box (x, y, width, height) in blocks of at most `side` pixels, row by row."""
    left, top, width, height = box
    for y in range(top, top + height, side):
        for x in range(left, left + width, side):
            yield x, y, min(side, left + width - x), min(side, top + height - y)
