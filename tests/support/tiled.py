"""Slides of tiles that can be read directly, and what OpenSlide reads of them."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray

import support.slides as sf
from pipeline.slides.direct.levels import TiledLevel
from pipeline.slides.direct.tiled_tiff import TiledTiff
from pipeline.slides.reader import Slide

WIDTH, HEIGHT = 1000, 700
WHOLE = (0, (0, 0), (WIDTH, HEIGHT))
COMPARED_OF_16 = (4, 8, 12)
"""Of 16 tiles that are there, those compared with OpenSlide."""
SAMPLINGS = {"4:2:0": (2, 2), "4:2:2": (2, 1), "4:4:4": (1, 1), "RGB": None}


def make(path: Path, sampling: tuple[int, int] | None = (2, 2), **options: Any) -> Path:
    return sf.make_slide(path, width=WIDTH, height=HEIGHT, mpp=0.5, sampling=sampling, **options)


def make_in_tiles(path: Path, *, bigtiff: bool) -> Path:
    """A slide of 4 x 4 tiles of 256 pixels, at 0.5 um/px, and of a coarser level, whose tiles OpenSlide hashes."""
    if bigtiff:
        return sf.make_big_slide(path, width=1024, height=1024, mpp=0.5, downsamples=(1, 2), block=1024)
    return sf.make_slide(path, width=1024, height=1024, mpp=0.5, sampling=(2, 2), downsamples=(1, 2))


def by_openslide(path: Path, level: int, corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    with openslide.OpenSlide(path) as slide:
        ratio = round(slide.level_downsamples[level])
        region = slide.read_region((corner[0] * ratio, corner[1] * ratio), level, size)
        return np.asarray(region.convert("RGB"))


def assert_reads_as_openslide(path: Path, seed: int = 0, regions: int = 12, most_px: int = 10_000) -> None:
    """Random regions of all levels, so many of each and up to that side, are read, to the same pixels."""
    slide, rng = Slide(path), random.Random(seed)
    for level, (width, height) in enumerate(slide.info.level_sizes_px):
        for _ in range(regions):
            w, h = rng.randint(1, min(width, most_px)), rng.randint(1, min(height, most_px))
            corner = rng.randint(0, width - w), rng.randint(0, height - h)
            region = slide.direct.read(level, corner, (w, h))
            assert region is not None
            np.testing.assert_array_equal(region, by_openslide(path, level, corner, (w, h)))


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    decoded: list[tuple[int, int]] = []
    decode = TiledTiff._decode

    def counted(self: TiledTiff, tiles: TiledLevel, index: int) -> NDArray[np.uint8]:
        decoded.append((tiles.width, index))
        return decode(self, tiles, index)

    monkeypatch.setattr(TiledTiff, "_decode", counted)
    return decoded
