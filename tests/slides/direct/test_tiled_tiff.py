"""Each tile is decoded once, and a damaged one spoils nothing beside it."""

import random
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
import tifffile
from support.tiled import COMPARED_OF_16, HEIGHT, WHOLE, WIDTH, by_openslide, count_decoding, make, make_in_tiles

from pipeline.base.errors import PatchError
from pipeline.slides.direct.direct_reader import DirectReader
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.direct.tiled_tiff import NotDirectError
from pipeline.slides.reader import Slide


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


def test_half_and_full_share_a_cache_and_no_tiles(tmp_path: Path) -> None:
    slide = Slide(make(tmp_path / "a.svs"))
    for _ in range(2):
        half, full = slide.direct.read_half(0, (0, 0), (128, 128)), slide.direct.read(0, (0, 0), (128, 128))
        assert half is not None
        assert full is not None
        assert not np.array_equal(half, full)


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


def test_regions_beyond_the_level_are_left(tmp_path: Path) -> None:
    slide = Slide(make(tmp_path / "a.svs"))
    for corner in ((-1, 0), (0, -1), (WIDTH - 9, 0), (0, HEIGHT - 9)):
        assert slide.direct.read(0, corner, (10, 10)) is None
    assert slide.direct.read(0, (WIDTH - 10, HEIGHT - 10), (10, 10)) is not None
