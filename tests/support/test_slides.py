"""The slide factory keeps its promises, and OpenSlide behaves as the factory's docstring says."""

import csv
from pathlib import Path

import numpy as np
import openslide
import pytest

import support.slides as sf

BAD_TILE = (512, 512)
"""Level-0 location (x, y) of tile (2, 2), which the tests damage; well inside the tissue."""


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sf.make_slide(tmp_path_factory.mktemp("slide") / "a.svs", width=1500, height=1200, mpp=0.5)


@pytest.fixture(scope="module")
def zigzag_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sf.make_slide(tmp_path_factory.mktemp("zigzag") / "z.svs", width=1200, height=800, pattern="zigzag")


def read(
    path: Path, location: tuple[int, int] = (0, 0), level: int = 0, size: tuple[int, int] = (256, 256)
) -> np.ndarray:
    """RGBA through a fresh handle: uint8 (H, W, 4)."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region(location, level, size))


def test_aperio_slide(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        assert slide.properties["openslide.objective-power"] == "20"
        assert "openslide.quickhash-1" in slide.properties
        assert slide.level_dimensions == ((1500, 1200), (375, 300))
        assert slide.level_downsamples == (1, 4)


@pytest.mark.parametrize("vendor", ["aperio", "generic-tiff"])
def test_without_mpp(tmp_path: Path, vendor: sf.Vendor) -> None:
    path = sf.make_slide(tmp_path / "a.tif", width=600, height=400, mpp=None, vendor=vendor)
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == vendor
        assert "openslide.mpp-x" not in slide.properties
        assert slide.level_count == 2


def test_generic_tiff_with_mpp(tmp_path: Path) -> None:
    path = sf.make_slide(tmp_path / "a.tif", width=600, height=400, mpp=0.25, vendor="generic-tiff")
    with openslide.OpenSlide(path) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == 0.25


@pytest.mark.parametrize("ifds", ["front", "end", "spread"])
@pytest.mark.parametrize("compression", ["deflate", "lzw", "none", "jpeg2000"])
def test_lossless_levels_are_exact(tmp_path: Path, compression: sf.Compression, ifds: sf.Ifds) -> None:
    path = sf.make_slide(
        tmp_path / "a.svs", width=701, height=403, compression=compression, downsamples=(1, 3), ifds=ifds
    )
    pixels = sf.make_pixels("tissue", 701, 403)
    np.testing.assert_array_equal(read(path, size=(701, 403))[..., :3], pixels)
    means = pixels[:402, :699].reshape(134, 3, 233, 3, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(read(path, level=1, size=(233, 134))[..., :3], np.floor(means + 0.5))


def test_jpeg_is_close(slide_path: Path) -> None:
    pixels = sf.make_pixels("tissue", 1500, 1200, mpp=0.5)
    difference = read(slide_path, size=(1500, 1200))[..., :3].astype(int) - pixels
    assert np.abs(difference).mean() < 4


@pytest.mark.slow
def test_same_arguments_same_bytes(slide_path: Path, tmp_path: Path) -> None:
    again = sf.make_slide(tmp_path / "b.svs", width=1500, height=1200, mpp=0.5)
    other = sf.make_slide(tmp_path / "c.svs", width=1500, height=1200, mpp=0.5, seed=1)
    assert again.read_bytes() == slide_path.read_bytes() != other.read_bytes()


def test_tissue_on_glass() -> None:
    pixels = sf.make_pixels("tissue", 1500, 1200, mpp=0.5).astype(int)
    tissue = np.ptp(pixels, axis=2) > 20
    assert 0.1 < tissue.mean() < 0.7
    assert not tissue[:40, :40].any()
    assert abs(pixels[:40, :40].mean() - sf.BACKGROUND) < 1
    patches = [pixels[y : y + 224, x : x + 224].mean((0, 1)) for y, x in ((400, 500), (400, 800), (700, 600))]
    assert min(np.abs(a - b).max() for a, b in zip(patches, patches[1:] + patches[:1], strict=True)) > 1


def test_blank_has_no_tissue() -> None:
    assert np.ptp(sf.make_pixels("blank", 300, 200)) == 4


def test_coordinates(tmp_path: Path) -> None:
    path = sf.make_slide(tmp_path / "c.svs", width=1024, height=1024, pattern="coordinates")
    assert sf.ramp_step_l0_px(1024, 1024) == 4
    assert read(path, (400, 804))[0, 0].tolist() == [100, 201, 160, 255]
    np.testing.assert_array_equal(read(path, level=1)[..., 0], np.tile(np.arange(256), (256, 1)))
    assert read(path, (400, 804), 1, (1, 1))[0, 0].tolist() == [100, 201, 160, 255]


def test_zigzag_shows_one_pixel(zigzag_path: Path) -> None:
    assert read(zigzag_path, (401, 33), 0, (1, 1))[0, 0].tolist() == [109, 33, 160, 255]
    columns = np.arange(20, 60)
    expected = np.floor(sf.zigzag(columns * 4 + 1.5) + 0.5)
    np.testing.assert_array_equal(read(zigzag_path, (80, 0), 1, (40, 1))[0, :, 0], expected)


@pytest.mark.parametrize("x", [81, 82, 83])
def test_openslide_interpolates_between_pixels_of_a_level(zigzag_path: Path, x: int) -> None:
    level = read(zigzag_path, level=1, size=(300, 200))[..., 0].astype(float)
    share = x % 4 / 4
    got = read(zigzag_path, (x, 40), 1, (30, 1))[0, :, 0]
    expected = (1 - share) * level[10, 20:50] + share * level[10, 21:51]
    np.testing.assert_allclose(got, expected, atol=1)


def test_openslide_truncates_negative_locations(zigzag_path: Path) -> None:
    at_zero = read(zigzag_path, (0, 0), 1, (8, 8))
    np.testing.assert_array_equal(read(zigzag_path, (-3, -3), 1, (8, 8)), at_zero)
    assert not read(zigzag_path, (-4, 0), 1, (8, 8))[:, 0].any()


@pytest.mark.parametrize("how", ["zero", "garbage", "scramble", "truncate", "outside"])
def test_damaged_tile_raises_and_the_error_sticks(slide_path: Path, tmp_path: Path, how: sf.Damage) -> None:
    path = sf.damage_tiles(slide_path, [(2, 2)], how=how, out=tmp_path / "bad.svs")
    with openslide.OpenSlide(path) as slide:
        with pytest.raises(openslide.OpenSlideError):
            slide.read_region(BAD_TILE, 0, (256, 256))
        with pytest.raises(openslide.OpenSlideError):
            slide.read_region((0, 0), 0, (256, 256))
        with pytest.raises(openslide.OpenSlideError):
            _ = slide.dimensions
    np.testing.assert_array_equal(read(path), read(slide_path))
    np.testing.assert_array_equal(read(path, level=1), read(slide_path, level=1))


def test_missing_tile_is_transparent(slide_path: Path, tmp_path: Path) -> None:
    path = sf.damage_tiles(slide_path, [(2, 2)], how="missing", out=tmp_path / "bad.svs")
    assert not read(path, BAD_TILE).any()


def test_flipped_bit_is_silent(slide_path: Path, tmp_path: Path) -> None:
    path = sf.damage_tiles(slide_path, [(2, 2)], how="flip", out=tmp_path / "bad.svs")
    assert (read(path, BAD_TILE) != read(slide_path, BAD_TILE)).any()


def test_damage_to_a_coarse_level_spares_the_finest(slide_path: Path, tmp_path: Path) -> None:
    path = sf.damage_tiles(slide_path, [(0, 0)], level=1, out=tmp_path / "bad.svs")
    np.testing.assert_array_equal(read(path, BAD_TILE), read(slide_path, BAD_TILE))
    with pytest.raises(openslide.OpenSlideError):
        read(path, level=1)


def test_no_such_tile(slide_path: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="6 x 5 tiles"):
        sf.damage_tiles(slide_path, [(6, 0)], out=tmp_path / "bad.svs")


@pytest.mark.parametrize(
    ("ifds", "error"),
    [
        ("end", openslide.OpenSlideUnsupportedFormatError),
        ("spread", openslide.OpenSlideUnsupportedFormatError),
        ("front", openslide.OpenSlideError),
    ],
)
def test_truncated_pyramid_does_not_open(tmp_path: Path, ifds: sf.Ifds, error: type[Exception]) -> None:
    whole = sf.make_slide(tmp_path / "a.svs", width=1500, height=1200, ifds=ifds)
    with pytest.raises(error):
        openslide.OpenSlide(sf.truncate(whole))


def test_truncated_slide_without_quickhash_opens_and_raises_behind_the_cut(tmp_path: Path) -> None:
    whole = sf.make_slide(
        tmp_path / "a.svs", width=2048, height=1536, compression="none", downsamples=(1,), ifds="front"
    )
    cut = sf.truncate(whole)
    with openslide.OpenSlide(cut) as slide:
        assert "openslide.quickhash-1" not in slide.properties
    np.testing.assert_array_equal(read(cut, BAD_TILE), read(whole, BAD_TILE))
    with pytest.raises(openslide.OpenSlideError):
        read(cut, (1024, 1280))


def test_not_a_slide(tmp_path: Path) -> None:
    with pytest.raises(openslide.OpenSlideUnsupportedFormatError):
        openslide.OpenSlide(sf.not_a_slide(tmp_path / "a.svs"))


def test_big_slide(tmp_path: Path) -> None:
    path = sf.make_big_slide(tmp_path / "big.svs", width=5000, height=3000, downsamples=(1, 4), block=2048)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((5000, 3000), (1250, 750))
        assert slide.properties["openslide.mpp-x"] == "0.25"
    middle = read(path, (1024, 1024))
    np.testing.assert_array_equal(middle, read(path, (1024 + 2048, 1024)))
    pixels = sf.make_pixels("tissue", 2048, 2048)[1024:1280, 1024:1280]
    assert np.abs(middle[..., :3].astype(int) - pixels).mean() < 6
    whole = read(path, (1024, 1024), 1, (64, 64))[..., :3].astype(int)
    assert np.abs(whole - sf.area_average(pixels, 4)).mean() < 6


def test_wrong_downsamples(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="begin with 1"):
        sf.make_slide(tmp_path / "a.svs", downsamples=(2, 4))


def test_cohort(cohort: Path) -> None:
    with open(cohort, newline="") as f:
        rows = list(csv.DictReader(f))
    assert len({row["case_id"] for row in rows}) == len(rows) == 4
    assert len({row["center"] for row in rows}) == 2
    for row in rows:
        with openslide.OpenSlide(cohort.parent / row["path"]) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == 0.5
