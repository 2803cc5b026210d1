"""Tiles decode to the pixels that OpenSlide gives, and whatever is odd or damaged is noticed."""

import io
import random
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import support.slides as sf
import tifffile
from PIL import Image
from support.tiled import HEIGHT, SAMPLINGS, WHOLE, WIDTH, assert_reads_as_openslide, by_openslide, make

from pipeline.base.errors import PatchError
from pipeline.slides.direct.decoding import decode_jpeg2000, ycbcr_to_rgb
from pipeline.slides.direct.levels import JPEG2000_RGB, TiledLevel
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.direct.tiled_tiff import NotDirectError, TiledTiff
from pipeline.slides.reader import Slide

JPEG2000 = TiledLevel(JPEG2000_RGB, 32, 32, 32, 16, np.zeros(2, np.uint64), np.ones(2, np.uint64), b"", "RGB")


@pytest.mark.slow
@pytest.mark.parametrize("tile", [256, 240])
@pytest.mark.parametrize("compression", ["jpeg2000", "jpeg2000-ycbcr"])
def test_jpeg_2000_is_openslides(tmp_path: Path, compression: str, tile: int) -> None:
    assert_reads_as_openslide(make(tmp_path / "a.svs", compression=compression, tile=tile), seed=tile)


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
    np.testing.assert_array_equal(decode_jpeg2000(sound, JPEG2000), pixels)
    changed = bytearray(sound)
    changed[place] = value
    with pytest.raises(ValueError, match=words):
        decode_jpeg2000(bytes(changed), JPEG2000)
    with pytest.raises(ValueError, match="no JPEG 2000"):
        decode_jpeg2000(sound[:40], JPEG2000)


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
    ours = ycbcr_to_rgb(every).astype(int)
    y, cb, cr = (every[..., i].astype(float) for i in range(3))
    cb, cr = cb - 128, cr - 128
    exact = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1).clip(0, 255)
    assert np.abs(ours - exact).max() < 0.51
