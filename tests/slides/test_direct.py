"""Tiles read directly: pixels are OpenSlide's, each tile is decoded once, and whatever is odd is left to OpenSlide."""

import io
import os
import random
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import support.slides as sf
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pipeline import demo_data
from pipeline.base.errors import PatchError
from pipeline.disk.files import sha256_file
from pipeline.slides import direct as module
from pipeline.slides import reader
from pipeline.slides.direct import DirectReader, NotDirectError, TiledLevel, TiledTiff
from pipeline.slides.reader import Slide
from pipeline.slides.tile_cache import TileCache

WIDTH, HEIGHT = 1000, 700
WHOLE = (0, (0, 0), (WIDTH, HEIGHT))
COMPARED_OF_16 = (4, 8, 12)
"""Of 16 tiles that are there, those compared with OpenSlide."""
SAMPLINGS = {"4:2:0": (2, 2), "4:2:2": (2, 1), "4:4:4": (1, 1), "RGB": None}


def make(path: Path, sampling: tuple[int, int] | None = (2, 2), **options: Any) -> Path:
    return sf.make_slide(path, width=WIDTH, height=HEIGHT, mpp=0.5, sampling=sampling, **options)


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


# The pixels


@pytest.mark.parametrize("tile", [256, 240, 512])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_pixels_are_openslides(tmp_path: Path, sampling: str, tile: int) -> None:
    assert_reads_as_openslide(make(tmp_path / "a.svs", SAMPLINGS[sampling], tile=tile), seed=tile)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [256, 240])
@pytest.mark.parametrize("compression", ["jpeg2000", "jpeg2000-ycbcr"])
def test_jpeg_2000_is_openslides(tmp_path: Path, compression: str, tile: int) -> None:
    assert_reads_as_openslide(make(tmp_path / "a.svs", compression=compression, tile=tile), seed=tile)


@pytest.mark.slow
def test_pixels_of_a_real_slide_are_openslides() -> None:
    """The demo's, by Aperio; where `g2l demo` has fetched it."""
    path = demo_data.cache_folder() / demo_data.SLIDE_NAME
    if not path.is_file():
        pytest.skip(f"the demo's slide is not in {path.parent}: g2l demo fetches it")
    assert sha256_file(path) == demo_data.SLIDE_SHA256
    assert_reads_as_openslide(path, seed=11, regions=60, most_px=700)


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


def test_a_generic_tiff_is_read_as_well(tmp_path: Path) -> None:
    assert_reads_as_openslide(make(tmp_path / "a.tif", vendor="generic-tiff"))


@pytest.mark.parametrize("sampling", ["4:2:0", "RGB"])
def test_tables_that_stand_apart_are_joined(tmp_path: Path, sampling: str) -> None:
    path = split_tables(make(tmp_path / "a.svs", SAMPLINGS[sampling]), tmp_path / "b.svs")
    with tifffile.TiffFile(path) as tiff:
        assert all(page.jpegtables for page in tiff.pages if isinstance(page, tifffile.TiffPage))
    assert_reads_as_openslide(path)


def test_a_patch_is_the_same_by_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sf.make_slide(tmp_path / "a.svs", width=WIDTH, height=HEIGHT, mpp=0.26, sampling=(2, 2))
    slide = Slide(path)
    geometry = slide.geometry(96, 0.5)
    places = [(0, 0), (301, 211), (WIDTH - 185, HEIGHT - 185)]
    ours = [slide.read_patch(x, y, geometry) for x, y in places]
    monkeypatch.setattr(slide.direct, "read", lambda *_: None)
    for patch, (x, y) in zip(ours, places, strict=True):
        np.testing.assert_array_equal(patch, slide.read_patch(x, y, geometry))


# Each tile once


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    decoded: list[tuple[int, int]] = []
    decode = TiledTiff._decode

    def counted(self: TiledTiff, tiles: module.TiledLevel, index: int) -> NDArray[np.uint8]:
        decoded.append((tiles.width, index))
        return decode(self, tiles, index)

    monkeypatch.setattr(TiledTiff, "_decode", counted)
    return decoded


def test_neighbours_decode_each_tile_once_also_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(make(tmp_path / "a.svs"))
    assert slide.direct.read(*WHOLE) is not None  # compared with OpenSlide, and decoded
    fresh = Slide(slide.path)
    decoded = count_decoding(monkeypatch)
    places = [(x, y) for y in range(0, HEIGHT - 200, 100) for x in range(0, WIDTH - 200, 100)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda corner: fresh.direct.read(0, corner, (200, 200)), places))
    assert len(decoded) == len(set(decoded)) == 12


def test_two_slides_share_a_cache_and_no_tiles(tmp_path: Path) -> None:
    cache = TileCache()
    paths = [make(tmp_path / "a.svs"), sf.make_slide(tmp_path / "b.svs", width=WIDTH, height=HEIGHT, mpp=0.5, seed=5)]
    for path in paths * 2:  # opened anew: the names of closed files are not used again
        slide = Slide(path, cache=cache)
        np.testing.assert_array_equal(slide.direct.read(*WHOLE), by_openslide(path, *WHOLE))
        del slide


# Half the size


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_half_is_libjpegs_scaled_decoding(tmp_path: Path, sampling: str) -> None:
    """To the byte that of another build of libjpeg-turbo, Pillow's; the edge is of whole pixels."""
    path = make(tmp_path / "a.svs", SAMPLINGS[sampling], tile=240)
    slide = Slide(path)
    assert slide.direct.can_halve(0)
    tiff = TiledTiff(path, "aperio", slide.info.level_sizes_px, TileCache()).halved()
    with tifffile.TiffFile(path) as tiles:
        page = tiles.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        expected = np.zeros((3 * 120, 5 * 120, 3), np.uint8)
        for index, (start, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            data = path.read_bytes()[start : start + count]
            picture = Image.open(io.BytesIO(data[:2] + tiff.levels[0].header + data[2:]))
            picture.draft("RGB", (120, 120))
            top, left = index // 5 * 120, index % 5 * 120
            expected[top : top + 120, left : left + 120] = np.asarray(picture)
    half = slide.direct.read_half(0, (0, 0), (WIDTH // 2, HEIGHT // 2))
    assert half is not None
    np.testing.assert_array_equal(half, expected[: HEIGHT // 2, : WIDTH // 2])
    averaged = np.asarray(Image.fromarray(by_openslide(path, *WHOLE)).reduce(2)).astype(int)
    assert np.abs(half - averaged).mean() < 2  # the same places
    assert slide.direct.read_half(0, (0, 0), (WIDTH // 2 + 1, 10)) is None


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


def test_half_is_not_replaced_where_the_file_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSlide's pixels in full, averaged, are other pixels: which they are must not depend on the moment."""
    slide = Slide(make(tmp_path / "a.svs"))
    half = replace(slide.geometry(64, 0.5), target_mpp=1.0, decode="half")
    assert slide.why_not_half(half) == ""
    slide.direct.forget_tiles()

    def no_answer(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.os, "pread", no_answer)
    with pytest.raises(PatchError, match="Input/output error"):
        slide.read_patch(0, 0, half)
    whole = slide.geometry(64, 0.5)
    np.testing.assert_array_equal(slide.read_patch(0, 0, whole), by_openslide(slide.path, 0, (0, 0), (64, 64)))


def test_a_file_that_does_not_answer_while_it_is_compared_is_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment nothing is known of the level. That fails the patch, and not the slide with an untrue word."""
    slide = Slide(make(tmp_path / "a.svs"))
    half = replace(slide.geometry(64, 0.5), target_mpp=1.0, decode="half")

    def no_answer(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "pread", no_answer)
        assert slide.direct.note(0) == ""
        assert slide.direct.read(*WHOLE) is None
        with pytest.raises(PatchError, match="Input/output error"):
            slide.read_patch(0, 0, half)
    assert slide.why_not_half(half) == ""
    assert slide.read_patch(0, 0, half).shape == (64, 64, 3)
    assert slide.direct.read(*WHOLE) is not None


def test_half_of_a_file_that_did_not_answer_when_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.svs")

    def no_answer(*_: object, **__: object) -> tifffile.TiffFile:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module.tifffile, "TiffFile", no_answer)
        slide = Slide(path)
    half = replace(slide.geometry(64, 0.5), target_mpp=1.0, decode="half")
    with pytest.raises(PatchError, match="Input/output error"):
        slide.read_patch(0, 0, half)
    assert slide.read_patch(0, 0, slide.geometry(64, 0.5)).shape == (64, 64, 3)  # by OpenSlide


def test_a_place_that_cannot_be_read_is_left_out_of_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = Slide(make_in_tiles(tmp_path / "a.svs", bigtiff=False))
    assert slide.direct._tiff is not None
    bad, pread = int(slide.direct._tiff.levels[0].offsets[COMPARED_OF_16[0]]), os.pread

    def one_bad_place(file: int, length: int, offset: int) -> bytes:
        if offset == bad:
            raise OSError(5, "Input/output error")
        return pread(file, length, offset)

    monkeypatch.setattr(module.os, "pread", one_bad_place)
    assert slide.direct.can_halve(0)


def test_half_and_full_share_a_cache_and_no_tiles(tmp_path: Path) -> None:
    slide = Slide(make(tmp_path / "a.svs"))
    for _ in range(2):
        half, full = slide.direct.read_half(0, (0, 0), (128, 128)), slide.direct.read(0, (0, 0), (128, 128))
        assert half is not None
        assert full is not None
        assert not np.array_equal(half, full)


def test_what_is_not_of_jpeg_tiles_has_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Slide(make(tmp_path / "a.tif", None, compression="jpeg2000", downsamples=(1,))).direct.can_halve(0)
    scn = sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=(0, 0, 512, 512), width=1024, height=1024)
    assert not Slide(scn).direct.can_halve(0)
    decode = TiledTiff._decode
    monkeypatch.setattr(TiledTiff, "_decode", lambda *args: decode(*args) ^ 1)
    assert not Slide(make(tmp_path / "a.svs")).direct.can_halve(0)  # it differs from OpenSlide's


# What is left to OpenSlide


@pytest.mark.parametrize("how", ["zero", "garbage", "scramble", "truncate", "missing", "outside"])
def test_a_damaged_or_missing_tile_is_left_to_openslide(
    tmp_path: Path, how: sf.Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sf.damage_tiles(make(tmp_path / "a.svs"), [(2, 1)], how=how, out=tmp_path / "b.svs")
    slide = Slide(path)
    directly = slide.direct.read(0, (600, 300), (50, 50))
    assert directly is None or how == "scramble"  # libjpeg may notice nothing in random bytes without markers
    elsewhere = slide.direct.read(0, (0, 0), (256, 256))
    assert elsewhere is not None
    np.testing.assert_array_equal(elsewhere, by_openslide(path, 0, (0, 0), (256, 256)))
    results = []
    for _ in range(2):
        try:
            results.append(slide.read_patch(600, 300, slide.geometry(64, 0.5)).tobytes())
        except PatchError as error:
            results.append(str(error).encode())
        monkeypatch.setattr(slide.direct, "read", lambda *_: None)
    assert results[0] == results[1]


def make_in_tiles(path: Path, *, bigtiff: bool) -> Path:
    """A slide of 4 x 4 tiles of 256 pixels, at 0.5 um/px, and of a coarser level, whose tiles OpenSlide hashes."""
    if bigtiff:
        return sf.make_big_slide(path, width=1024, height=1024, mpp=0.5, downsamples=(1, 2), block=1024)
    return sf.make_slide(path, width=1024, height=1024, mpp=0.5, sampling=(2, 2), downsamples=(1, 2))


def overwrite(path: Path, tag: str, index: int, change: Callable[[bytearray], object], out: Path) -> Path:
    """Copy a slide with other bytes in one of the numbers of a tag of its first level; `change` gets these bytes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        found = page.tags[tag]
        each = found.valuebytecount // found.count
        start = found.valueoffset + index * each
    data = bytearray(path.read_bytes())
    number = data[start : start + each]
    change(number)
    data[start : start + each] = number
    out.write_bytes(data)
    return out


def patches_of(path: Path, *, directly: bool) -> list[bytes | str]:
    """The patches of one tile each of a slide of `make_in_tiles`, or the words why they cannot be read."""
    slide = Slide(path)
    if not directly:
        slide.direct.read = lambda *_: None
    geometry, patches = slide.geometry(256, 0.5), list[bytes | str]()
    for index in range(16):
        try:
            patches.append(slide.read_patch(index % 4 * 256, index // 4 * 256, geometry).tobytes())
        except PatchError as error:
            patches.append(f"{type(error).__name__}: {error}")
    return patches


@pytest.mark.parametrize("bigtiff", [True, False])
def test_any_byte_of_a_tiles_place_spoils_that_tile_alone(tmp_path: Path, bigtiff: bool) -> None:
    """The tile is what OpenSlide says of it; all others are read, as from the sound slide."""
    sound, rng, spoilt = make_in_tiles(tmp_path / "a.svs", bigtiff=bigtiff), random.Random(bigtiff), 0
    before = patches_of(sound, directly=True)
    for number in range(8):
        index, place = rng.randrange(16), rng.randrange(1, 9)

        def change(data: bytearray, place: int = place) -> None:
            data[-(place % len(data)) - 1] ^= rng.randrange(1, 256)

        path = overwrite(
            sound, ("TileOffsets", "TileByteCounts")[number % 2], index, change, tmp_path / f"{number}.svs"
        )
        after = patches_of(path, directly=True)
        assert after == patches_of(path, directly=False)
        assert [one for i, one in enumerate(after) if i != index] == [one for i, one in enumerate(before) if i != index]
        assert Slide(path).direct.read(0, ((index + 1) % 4 * 256, 0), (256, 256)) is not None
        spoilt += after[index] != before[index]
    assert spoilt > 2


@pytest.mark.parametrize(("index", "offset"), [(0, 2**63 - 5), (8, 2**63 + 5), (0, 2**64 - 1)])
def test_an_offset_beyond_what_files_can_have_is_openslides(tmp_path: Path, index: int, offset: int) -> None:
    """Also of one of the three tiles that are compared: the other two decide."""
    sound = make_in_tiles(tmp_path / "a.svs", bigtiff=True)
    path = overwrite(
        sound, "TileOffsets", index, lambda data: struct.pack_into("<Q", data, 0, offset), tmp_path / "b.svs"
    )
    slide, corner = Slide(path), (index % 4 * 256, index // 4 * 256)
    assert (index in COMPARED_OF_16) == (index == 8)
    assert (slide.direct.note(0), slide.direct.can_halve(0)) == ("", True)
    assert slide.direct.read(0, (256, 0), (256, 256)) is not None
    assert slide.direct.read(0, corner, (256, 256)) is None
    assert slide.direct.read_half(0, (corner[0] // 2, corner[1] // 2), (128, 128)) is None
    with pytest.raises(PatchError, match="the slide is damaged there"):
        slide.read_patch(*corner, slide.geometry(256, 0.5))


@pytest.mark.parametrize("bigtiff", [True, False])
def test_no_byte_of_a_directory_makes_direct_reading_raise(tmp_path: Path, bigtiff: bool) -> None:
    """Sizes of tiles, types, counts and places of every tag, the next directory: what is odd is left to OpenSlide."""
    sound, rng, read = make_in_tiles(tmp_path / "a.svs", bigtiff=bigtiff), random.Random(bigtiff), 0
    with tifffile.TiffFile(sound) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        start, end = page.offset, page.offset + (8 if bigtiff else 2) + len(page.tags) * (20 if bigtiff else 12) + 8
    data = sound.read_bytes()
    for _ in range(100):
        changed = bytearray(data)
        changed[rng.choice((rng.randrange(16), *rng.choices(range(start, end), k=9)))] ^= rng.randrange(1, 256)
        (tmp_path / "b.svs").write_bytes(changed)
        slide = DirectReader(
            tmp_path / "b.svs", "aperio", [(1024, 1024)], [1.0], TileCache(), lambda: lambda *_: np.zeros(3, np.uint8)
        )
        assert slide.read(0, (0, 0), (300, 300)) is None  # what it is compared with is another slide
        slide.note(0)
        for reader_ in (slide._tiff, slide._half):
            if reader_ is not None and 0 in reader_.levels:
                with suppress(NotDirectError):
                    reader_.read(0, (0, 0), (300, 300))
                    read += 1
    assert read > 20


def encoded_tile(kind: str) -> bytes:
    """A JPEG tile of 256 px of random blocks, of components of another kind than most slides'."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8).repeat(16, 0).repeat(16, 1)
    if kind == "RGB":
        return imagecodecs.jpeg8_encode(
            pixels[..., :3].copy(), colorspace="rgb", outcolorspace="rgb", subsampling="444"
        )
    mode = {"JFIF": "RGB", "grey": "L", "CMYK": "CMYK"}[kind]
    of_mode = pixels[..., : len(mode)] if mode != "L" else pixels[..., 0]
    Image.fromarray(np.ascontiguousarray(of_mode), mode).save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["RGB", "JFIF", "grey", "CMYK"])
@pytest.mark.parametrize("sampling", ["4:2:0", "4:4:4", "RGB"])
def test_a_tile_of_other_colours_than_its_page_is_openslides(tmp_path: Path, sampling: str, kind: str) -> None:
    """OpenSlide takes the page's word for the colour space, and refuses what cannot be of it; libjpeg the tile's."""
    path = make(tmp_path / "a.svs", SAMPLINGS[sampling])
    tile, end = encoded_tile(kind), path.stat().st_size
    with path.open("ab") as file:
        file.write(tile)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[0].tags
        for name, value in (("TileOffsets", end), ("TileByteCounts", len(tile))):
            tags[name].overwrite([tags[name].value[0], value, *tags[name].value[2:]])
    slide, region = Slide(path), (0, (256, 0), (256, 256))
    directly = slide.direct.read(*region)
    try:
        theirs = by_openslide(path, *region)
    except openslide.OpenSlideError:
        assert directly is None
        with pytest.raises(PatchError):
            slide.read_patch(256, 0, slide.geometry(256, 0.5))
    else:
        np.testing.assert_array_equal(np.asarray(slide.read_region(*region)), theirs)
    assert slide.direct.read(0, (0, 0), (256, 256)) is not None


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
    assert module.without_parts([level, None, level]) == [level, None, None]
    assert module.without_parts([]) == []


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
    _, kept = module.without_parts([finer, coarser])
    assert kept is not None
    assert np.flatnonzero(kept.lengths == 0).tolist() == lost
    assert coarser.lengths.all(), "the level itself is as it was"


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "jpeg2000-ycbcr"])
def test_damage_is_noticed_at_least_as_surely_as_by_openslide(tmp_path: Path, compression: str) -> None:
    """Random bytes of a tile are changed: what OpenSlide refuses is refused, what is read is what OpenSlide reads."""
    sampling = (2, 2) if compression == "jpeg" else None
    path, rng = make(tmp_path / "a.svs", sampling, compression=compression), random.Random(0)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    seen = {"refused": 0, "read": 0}
    sound = path.read_bytes()
    for number in range(200):
        data = bytearray(sound)
        column, row = rng.randrange(3), rng.randrange(2)
        start, count = places[row * 4 + column]
        at, length = rng.randrange(count if number % 4 else 150), rng.choice((1, 1, 4, 200))
        data[start + at : start + min(at + length, count)] = bytes(
            rng.choice((0, 255, rng.randrange(256))) for _ in range(min(length, count - at))
        )
        (tmp_path / "b.svs").write_bytes(data)
        region = (0, (column * 256, row * 256), (256, 256))
        try:
            theirs = by_openslide(tmp_path / "b.svs", *region)
        except openslide.OpenSlideError:
            theirs = None
        with openslide.OpenSlide(tmp_path / "b.svs") as slide:
            tiff_reader = TiledTiff(tmp_path / "b.svs", "aperio", slide.level_dimensions, TileCache())
        try:
            ours = tiff_reader.read(*region)
        except NotDirectError:
            ours = None
        if ours is not None:
            assert theirs is not None, number
            np.testing.assert_array_equal(ours, theirs)
        seen["refused" if theirs is None else "read"] += 1
    assert min(seen.values()) > 5


def test_regions_beyond_the_level_are_left(tmp_path: Path) -> None:
    slide = Slide(make(tmp_path / "a.svs"))
    for corner in ((-1, 0), (0, -1), (WIDTH - 9, 0), (0, HEIGHT - 9)):
        assert slide.direct.read(0, corner, (10, 10)) is None
    assert slide.direct.read(0, (WIDTH - 10, HEIGHT - 10), (10, 10)) is not None


def test_a_level_that_openslide_interpolates_is_left(tmp_path: Path) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1501, height=1203, mpp=0.5, sampling=(2, 2)))
    assert slide.direct.read(0, (3, 5), (40, 40)) is not None
    assert slide.direct.read(1, (3, 5), (40, 40)) is None
    assert slide.direct.note(1) == ""
    tiff = TiledTiff(slide.path, "aperio", slide.info.level_sizes_px, TileCache())
    place = 1, (3, 5), (370, 290)
    ours, theirs = tiff.read(*place).astype(int), np.asarray(slide.read_region(*place)).astype(int)
    assert np.abs(ours - theirs).max() > 0  # the same place, but smoother
    assert abs(ours.mean() - theirs.mean()) < 1


@pytest.mark.parametrize("compression", ["deflate", "lzw", "none"])
def test_other_compressions_are_left(tmp_path: Path, compression: sf.Compression) -> None:
    slide = Slide(make(tmp_path / "a.svs", None, compression=compression))
    assert slide.direct.read(*WHOLE) is None


JPEG2000 = TiledLevel(module.JPEG2000_RGB, 32, 32, 32, 16, np.zeros(2, np.uint64), np.ones(2, np.uint64), b"", "RGB")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (8 + 3, 31, "31 x 16 pixels of 3 components"),
        (12 + 3, 17, "32 x 17 pixels"),
        (16 + 3, 1, "31 x 16 pixels"),
        (40 + 1, 4, "32 x 16 pixels of 4 components"),
        (42, 11, "not of 8 bits"),
        (46, 2, "subsampled"),
        (0, 0, "no JPEG 2000"),
    ],
)
def test_a_codestream_of_another_kind_is_left_before_it_is_decoded(place: int, value: int, words: str) -> None:
    """Its header says so: subsampled colours (Aperio's YCbCr), 12 bits, another size."""
    pixels = sf.make_pixels("tissue", 32, 16)
    sound = bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"))
    np.testing.assert_array_equal(module.decode_jpeg2000(sound, JPEG2000), pixels)
    changed = bytearray(sound)
    changed[place] = value
    with pytest.raises(ValueError, match=words):
        module.decode_jpeg2000(bytes(changed), JPEG2000)
    with pytest.raises(ValueError, match="no JPEG 2000"):
        module.decode_jpeg2000(sound[:40], JPEG2000)


def test_jpeg_2000_of_chroma_half_as_wide_is_left(tmp_path: Path) -> None:
    """To OpenSlide, which reads it: close to the slide of the same pixels with whole chroma."""
    options = {"width": 500, "height": 250, "mpp": 0.5, "downsamples": (1,)}
    slide = Slide(sf.make_slide(tmp_path / "a.svs", compression="jpeg2000-422", **options))
    place = 0, (0, 0), (500, 250)
    assert (slide.direct.read(*place), slide.direct.note(0)) == (None, "")
    whole = Slide(sf.make_slide(tmp_path / "b.svs", compression="jpeg2000-ycbcr", **options))
    ours, theirs = (np.asarray(each.read_region(*place)).astype(int) for each in (slide, whole))
    assert np.abs(ours - theirs).mean() < 4


def test_ycbcr_is_converted_as_libjpeg_does() -> None:
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 3, dtype=np.uint8)] * 3), axis=-1).reshape(86, -1, 3)
    ours = module.ycbcr_to_rgb(every).astype(int)
    y, cb, cr = (every[..., i].astype(float) for i in range(3))
    cb, cr = cb - 128, cr - 128
    exact = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1).clip(0, 255)
    assert np.abs(ours - exact).max() < 0.51


def test_other_vendors_are_left(tmp_path: Path) -> None:
    path = sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=(0, 0, 512, 512), width=1024, height=1024)
    slide = Slide(path)
    assert slide.direct.read(0, (0, 0), (10, 10)) is None


def test_what_differs_from_openslide_is_left_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = TiledTiff._decode
    monkeypatch.setattr(TiledTiff, "_decode", lambda *args: decode(*args) ^ 1)
    slide = Slide(make(tmp_path / "a.svs"))
    assert slide.direct.read(*WHOLE) is None
    assert "level 0 read directly differs from OpenSlide's in 3 of 3 places" in slide.direct.note(0)
    np.testing.assert_array_equal(slide.read_region(*WHOLE), by_openslide(slide.path, *WHOLE))


def test_a_file_that_tifffile_cannot_read_is_left_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise tifffile.TiffFileError("not a TIFF")

    monkeypatch.setattr(module.tifffile, "TiffFile", broken)
    slide = Slide(make(tmp_path / "a.svs"))
    assert (slide.direct.read(*WHOLE), slide.direct.note(0)) == (None, "")
    np.testing.assert_array_equal(slide.read_region(*WHOLE), by_openslide(slide.path, *WHOLE))
    assert capfd.readouterr().err == ""


def test_the_slide_is_noted_before_a_tile_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a crash within the decoder is known by its slide, as one within OpenSlide is."""
    slide, events = Slide(make(tmp_path / "a.svs")), list[str]()
    monkeypatch.setattr(reader, "note_slide", lambda path: events.append(path.name))
    decoded = count_decoding(monkeypatch)
    read = slide.direct.read

    def noted(*place: Any) -> NDArray[np.uint8] | None:
        events.append("read")
        return read(*place)

    monkeypatch.setattr(slide.direct, "read", noted)
    slide.read_patch(0, 0, slide.geometry(64, 0.5))
    slide.read_region(*WHOLE)
    assert events == ["a.svs", "read"] * 2
    assert decoded


def test_files_are_closed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.svs")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        assert isinstance(Slide(path).direct, DirectReader)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4


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
                subsampling=page.subsampling if page.photometric == module.YCBCR else None,
                compression="jpeg",
                jpegtables=b"\xff\xd8" + tables + b"\xff\xd9",
                description=page.description,
                metadata=None,
                software=False,
            )
    return out
