"""Levels of tiles are read as OpenSlide reads them, whatever their sizes and tables; what is odd is left to it."""

import random
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
import tifffile
from PIL import Image
from support.tiled import SAMPLINGS, WHOLE, assert_reads_as_openslide, by_openslide, make

from pipeline.slides.direct.levels import YCBCR, TiledLevel, without_parts
from pipeline.slides.direct.tiled_tiff import TiledTiff
from pipeline.slides.reader import Slide


@pytest.mark.parametrize("vendor", ["aperio", "generic-tiff"])
@pytest.mark.parametrize("tile", [(64, 208), (320, 48), (1024, 1024)])
def test_tiles_of_any_size_on_several_levels(tmp_path: Path, tile: tuple[int, int], vendor: str) -> None:
    path = make(tmp_path / "a.tif", tile=tile, vendor=vendor, downsamples=(1, 2, 5, 10))
    assert len(Slide(path).info.level_sizes_px) == 4
    assert_reads_as_openslide(path)


@pytest.mark.parametrize("number", range(1, 10))
def test_a_level_of_random_shape_is_read(tmp_path: Path, number: int) -> None:
    rng = random.Random(number)
    times = 10 * rng.randint(4, 60), 10 * rng.randint(4, 60)
    tile = 16 * rng.randint(1, 20), 16 * rng.randint(1, 20)
    sampling = rng.choice([(2, 2), (2, 1), (1, 1), None])
    width, height = times
    path = sf.make_slide(
        tmp_path / "a.svs", width=width, height=height, mpp=0.5, sampling=sampling, tile=tile, downsamples=(1, 2, 10)
    )
    assert_reads_as_openslide(path, number)


@pytest.mark.parametrize("sampling", ["4:2:0", "RGB"])
def test_tables_that_stand_apart_are_joined(tmp_path: Path, sampling: str) -> None:
    path = split_tables(make(tmp_path / "a.svs", SAMPLINGS[sampling]), tmp_path / "b.svs")
    with tifffile.TiffFile(path) as tiff:
        assert all(page.jpegtables for page in tiff.pages if isinstance(page, tifffile.TiffPage))
    assert_reads_as_openslide(path)


@pytest.mark.parametrize("size", [(193, 98), (194, 97), (193, 97)])
def test_half_of_a_level_whose_last_tiles_hold_one_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    """Half a pixel is no column of tiles, and the rows below are their own all the same."""
    path = sf.make_slide(tmp_path / "a.svs", width=size[0], height=size[1], mpp=0.5, tile=48, downsamples=(1,))
    half_size = size[0] // 2, size[1] // 2
    half = Slide(path).direct.read_half(0, (0, 0), half_size)
    assert half is not None
    whole = by_openslide(path, 0, (0, 0), (2 * half_size[0], 2 * half_size[1]))
    averaged = np.asarray(Image.fromarray(whole).reduce(2)).astype(int)
    assert np.abs(half - averaged).mean() < 2


def test_what_is_not_of_jpeg_tiles_has_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Slide(make(tmp_path / "a.tif", None, compression="jpeg2000", downsamples=(1,))).direct.can_halve(0)
    scn = sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=(0, 0, 512, 512), width=1024, height=1024)
    assert not Slide(scn).direct.can_halve(0)
    decode = TiledTiff._decode
    monkeypatch.setattr(TiledTiff, "_decode", lambda *args: decode(*args) ^ 1)
    assert not Slide(make(tmp_path / "a.svs")).direct.can_halve(0)  # it differs from OpenSlide's


@pytest.mark.parametrize("vendor", ["aperio", "generic-tiff"])
def test_over_a_missing_tile_coarser_levels_are_left_as_openslide_does(tmp_path: Path, vendor: str) -> None:
    """Aperio's coarser tiles over a missing one are not believed: OpenSlide renders them from the finer level."""
    sound = make(tmp_path / "a.svs", vendor=vendor, tile=64, downsamples=(1, 2, 10))
    lost = [(x, y) for x in (2, 5, 9, 14) for y in (1, 4, 9)]
    path = sf.damage_tiles(sound, lost, how="missing", out=tmp_path / "b.svs")
    slide, rng, left = Slide(path), random.Random(0), {0: 0, 1: 0, 2: 0}
    for level, (width, height) in enumerate(slide.info.level_sizes_px):
        for _ in range(40):
            corner = rng.randint(0, width - 20), rng.randint(0, height - 20)
            region = slide.direct.read(level, corner, (20, 20))
            if region is None:
                left[level] += 1
            else:
                np.testing.assert_array_equal(region, by_openslide(path, level, corner, (20, 20)))
    assert left[0] > 0
    assert (left[1] > 0, left[2] > 0) == ((True, True) if vendor == "aperio" else (False, False))
    whole = slide.info.level_sizes_px[1]
    np.testing.assert_array_equal(
        np.asarray(slide.read_region(1, (0, 0), whole)), np.asarray(slide._read_on_background(1, (0, 0), whole, 0.0))
    )


def test_an_aperio_level_over_one_that_is_not_read_is_left() -> None:
    """Whether its tiles are believed depends on the finer ones."""
    level = TiledLevel(7, 64, 64, 16, 16, np.zeros(16, np.uint64), np.ones(16, np.uint64), b"", "RGB")
    assert without_parts([level, None, level]) == [level, None, None]
    assert without_parts([]) == []


@pytest.mark.parametrize(
    ("columns", "rows", "lost"), [(8, 6, [7, 19, 43]), (4, 3, [3, 5, 9]), (3, 3, [2, 4, 7]), (2, 1, [0, 1])]
)
def test_which_aperio_tiles_lie_over_those_that_a_finer_level_lacks(columns: int, rows: int, lost: list[int]) -> None:
    """By the numbers of columns and rows alone, rounded: of 8 columns over 3, each has three, and the last has two."""

    def level(columns: int, rows: int) -> TiledLevel:
        numbers = np.zeros(columns * rows, np.uint64), np.ones(columns * rows, np.uint64)
        return TiledLevel(7, columns * 16, rows * 16, 16, 16, *numbers, b"", "RGB")

    finer, coarser = level(8, 6), level(columns, rows)
    for row, column in ((0, 7), (2, 3), (5, 3)):
        finer.lengths[row * 8 + column] = 0
    _, kept = without_parts([finer, coarser])
    assert kept is not None
    assert np.flatnonzero(kept.lengths == 0).tolist() == lost
    assert coarser.lengths.all(), "the level itself is as it was"


@pytest.mark.parametrize("compression", ["deflate", "lzw", "none"])
def test_other_compressions_are_left(tmp_path: Path, compression: sf.Compression) -> None:
    slide = Slide(make(tmp_path / "a.svs", None, compression=compression))
    assert slide.direct.read(*WHOLE) is None


def split_tables(path: Path, out: Path) -> Path:
    """The slide with the tables of its tiles in the tag JPEGTables, as scanners write it."""

    def is_table(marker: int) -> bool:
        return marker in (0xDB, 0xC4)

    with tifffile.TiffFile(path) as tiff, tifffile.TiffWriter(out) as writer:
        data = path.read_bytes()
        for page in tiff.pages:
            tables, bare = b"", []
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                tile, tables, kept, at = data[offset : offset + count], b"", b"", 2
                while tile[at + 1] != 0xDA:
                    end = at + 2 + int.from_bytes(tile[at + 2 : at + 4], "big")
                    if is_table(tile[at + 1]):
                        tables += tile[at:end]
                    else:
                        kept += tile[at:end]
                    at = end
                bare.append(b"\xff\xd8" + kept + tile[at:])
            writer.write(
                iter(bare),
                shape=page.shape,
                dtype=np.uint8,
                tile=page.tile,
                photometric=page.photometric,
                subsampling=page.subsampling if page.photometric == YCBCR else None,
                compression="jpeg",
                jpegtables=b"\xff\xd8" + tables + b"\xff\xd9",
                description=page.description,
                metadata=None,
                software=False,
            )
    return out
