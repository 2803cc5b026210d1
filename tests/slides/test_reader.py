"""Slides: a patch is what it says, to the pixel; what cannot be read raises, and spoils nothing else."""

import errno
import math
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.slides as sf
import tifffile
from numpy.typing import NDArray
from PIL import Image
from support.czi import Compression, make_czi_slide
from support.failing import failing, os_error
from support.limits import few_files_left, little_memory_left
from support.mirax import make_mirax_slide, photo_corner
from support.vms import make_vms_slide

from pipeline.base.errors import EmptyPatchError, LimitError, PatchError, SlideError
from pipeline.base.images import reduce_by_torch
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.pool import require_planned
from pipeline.slides.reader import Slide

DAMAGED = [(2, 2)]
"""Tile (column, row) that the tests damage: level-0 pixels 512 to 767 both ways."""


def geometry_at(patch_px: int, level: int = 0, downsample: float = 1.0, mpp: float = 0.5) -> PatchGeometry:
    """Patches of whole pixels of a level of a slide at `mpp` (um/px)."""
    return PatchGeometry(patch_px, mpp * downsample, mpp, level, downsample)


@pytest.fixture(scope="module")
def tissue_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    return sf.make_slide(folder / "a.svs", width=1500, height=1200, mpp=0.5, downsamples=(1, 4))


# Exact crops


@pytest.mark.parametrize("xy", [(0, 0), (301, 457), (701 - 224, 803 - 224)])
def test_patch_at_level_0_is_the_crop(tmp_path: Path, xy: tuple[int, int]) -> None:
    options = {"width": 701, "height": 803, "mpp": 0.5}
    slide = Slide(sf.make_slide(tmp_path / "a.svs", compression="deflate", downsamples=(1, 2), **options))
    geometry = slide.geometry(224, 0.5)
    assert (geometry.level, geometry.patch_level_px) == (0, 224)
    x, y = xy
    patch = slide.read_patch(x, y, geometry)
    assert (patch.dtype, patch.shape) == (np.uint8, (224, 224, 3))
    np.testing.assert_array_equal(patch, sf.make_pixels("tissue", 701, 803, mpp=0.5)[y : y + 224, x : x + 224])


@pytest.mark.parametrize("xy", [(0, 0), (148, 316), (1024 - 512, 1024 - 512)])
def test_patch_of_whole_level_pixels_is_the_crop_of_the_level(tmp_path: Path, xy: tuple[int, int]) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1024, height=1024, compression="deflate"))
    geometry = slide.geometry(128, 1.0)
    assert geometry.level == 1
    level = sf.area_average(sf.make_pixels("tissue", 1024, 1024), 4)
    x, y = xy[0] // 4, xy[1] // 4
    np.testing.assert_array_equal(slide.read_patch(*xy, geometry), level[y : y + 128, x : x + 128])


# Resampled patches against level-0 truth


@pytest.mark.parametrize("size", [(1600, 1280), (1501, 1203), (1511, 1217)], ids=["whole", "odd", "odder"])
@pytest.mark.parametrize("downsamples", [(1,), (1, 4), (1, 2, 4, 16)], ids=str)
@pytest.mark.parametrize(("mpp", "target_mpp"), [(0.25, 0.5), (0.25, 1.0), (0.2325, 0.5), (0.2501, 1.13), (0.1, 0.5)])
def test_patch_is_the_right_place(
    tmp_path: Path, size: tuple[int, int], downsamples: tuple[int, ...], mpp: float, target_mpp: float
) -> None:
    """A triangle wave of one grey level a level-0 pixel: pixel i of the patch has the wave's value at its centre.

    A shift shows as a difference of one sign where the wave rises and of the other where it falls; the level's 8 bits,
    rounded half up, as one of the same sign. Tolerance of the shift: 0.2 level-0 pixels, and the half one more by which
    OpenSlide's corners are rounded where a level's size does not divide; its interpolation rounds once more.
    """
    width, height = size
    path = tmp_path / "z.svs"
    sf.make_slide(path, width=width, height=height, mpp=mpp, downsamples=downsamples, pattern="zigzag")
    slide = Slide(path)
    geometry = slide.geometry(160, target_mpp)
    side, step = geometry.patch_l0_px, target_mpp / mpp
    rounded = 0.0 if width % geometry.downsample == 0 == height % geometry.downsample else 0.5
    for x, y in ((13, 7), (401, 299), (402, 302), (width - int(side) - 20, height - int(side) - 20)):
        patch = slide.read_patch(x, y, geometry).astype(float)
        for lines, start in ((patch[..., 0], x), (patch[..., 1].T, y)):
            centres = start + (np.arange(160) + 0.5) * step - 0.5
            error = lines - sf.zigzag(centres)
            clear = np.abs(centres % 255 - 127.5) < 127.5 - 6 * step  # of the turning points, where the filter rings
            clear[:4] = clear[-4:] = False  # and of the rim, where it sees one side only
            rises = centres // 255 % 2 == 0
            assert np.abs(error[:, clear]).max() < 1.1 + 3 * rounded
            parts = error[:, clear & rises], error[:, clear & ~rises]
            if all(part.shape[1] > 8 for part in parts):
                assert abs(parts[0].mean() - parts[1].mean()) / 2 < 0.2 + rounded


@pytest.mark.parametrize("xy", [(401, 299), (400, 300), (7, 1)])
@pytest.mark.parametrize(("target_mpp", "level"), [(0.5, 0), (1.13, 1), (4.9, 2)])
def test_patch_of_tissue(tmp_path: Path, xy: tuple[int, int], target_mpp: float, level: int) -> None:
    """The whole picture, not just its place: the level's true pixels resampled once, to one grey level."""
    path = sf.make_slide(tmp_path / "a.svs", width=1600, height=1280, compression="deflate", downsamples=(1, 4, 16))
    slide = Slide(path)
    geometry = slide.geometry(48, target_mpp)
    assert geometry.level == level
    truth = sf.area_average(sf.make_pixels("tissue", 1600, 1280), (1, 4, 16)[level])
    downsample = geometry.downsample
    x, y = xy
    left, top = x / downsample, y / downsample
    box = (left, top, left + geometry.patch_level_px, top + geometry.patch_level_px)
    expected = np.asarray(Image.fromarray(truth).resize((48, 48), Image.Resampling.LANCZOS, box=box))
    inner = np.s_[4:-4, 4:-4]  # at the rim the filter sees no pixels outside of the patch
    difference = np.abs(slide.read_patch(x, y, geometry)[inner].astype(int) - expected[inner])
    assert difference.max() <= 1


def test_far_edge_does_not_mix_with_the_outside(tmp_path: Path) -> None:
    """1501 over 375 is no whole ratio: OpenSlide interpolates, at the edge with nothing."""
    slide = Slide(sf.make_slide(tmp_path / "c.svs", width=1501, height=1203, pattern="coordinates"))
    geometry = slide.geometry(64, 1.0)
    assert geometry.level == 1
    for x, y in ((4 * (375 - 64), 4 * (300 - 64)), (4 * (375 - 64), 401), (401, 4 * (300 - 64))):
        patch = slide.read_patch(x, y, geometry)
        np.testing.assert_array_equal(patch[..., 2], sf.COORDINATE_BLUE)


# Effective resolution


def measured_position(grey: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Level-0 positions that zigzag grey levels stand for, on the branch of the wave where they are expected."""
    branch = expected // 255
    return np.where(branch % 2 == 0, 255 * branch + grey, 255 * (branch + 1) - grey)


@pytest.mark.parametrize("mpp", [0.25, 0.499, 0.2325, 1.0])
def test_effective_mpp_is_the_target(tmp_path: Path, mpp: float) -> None:
    """The distance between both ends of a real patch, measured in the pattern."""
    slide = Slide(sf.make_slide(tmp_path / "z.svs", width=1200, height=1200, mpp=mpp, pattern="zigzag"))
    if mpp == 1.0:
        with pytest.raises(SlideError, match=r"z\.svs: .* enlarged 2\.00 times\. Use --allow-upsampling"):
            slide.geometry(224, 0.5)
    geometry = slide.geometry(224, 0.5, allow_upsampling=mpp == 1.0)
    x, y = 270, 530
    patch = slide.read_patch(x, y, geometry).astype(float)
    step = 0.5 / mpp
    for grey, start in ((patch[..., 0].mean(axis=0), x), (patch[..., 1].mean(axis=1), y)):
        expected = start + (np.arange(224) + 0.5) * step - 0.5
        clear = np.flatnonzero(np.abs(expected % 255 - 127.5) < 127.5 - 6 * step)[2:-2]
        position = measured_position(grey, expected)
        left, right = clear[:10], clear[-10:]
        assert right.mean() - left.mean() > 80
        distance_um = (position[right].mean() - position[left].mean()) * mpp
        effective_mpp = distance_um / (right.mean() - left.mean())
        assert effective_mpp == pytest.approx(0.5, rel=0.01)
        assert effective_mpp == pytest.approx(0.5, rel=0.003)  # what 8 bits can show
        assert np.abs(position - expected)[clear].max() < 1


# What a slide says of itself


def test_info(tissue_path: Path) -> None:
    info = Slide(tissue_path).info
    assert (info.vendor, info.mpp, info.mpp_source) == ("aperio", 0.5, "slide")
    assert info.size_l0_px == (1500, 1200)
    assert info.bounds_l0_px == (0, 0, 1500, 1200)
    assert info.level_sizes_px == ((1500, 1200), (375, 300))
    assert info.downsamples == (1, 4)
    assert info.background == (255, 255, 255)
    assert re.fullmatch("[0-9a-f]{64}", info.quickhash or "")


def test_slide_without_mpp(tmp_path: Path) -> None:
    path = sf.make_slide(tmp_path / "a.svs", width=600, height=400, mpp=None, vendor="aperio")
    with pytest.raises(SlideError, match=r"a\.svs: it has no mpp \(um/px\)\. Give it in the manifest's column mpp"):
        Slide(path)
    info = Slide(path, 0.25).info
    assert (info.mpp, info.mpp_source) == (0.25, "manifest")


def test_manifest_mpp_overrides_the_slide(tissue_path: Path) -> None:
    assert Slide(tissue_path, 0.25, mpp_overrides=True).geometry(224, 0.5).patch_l0_px == 448
    with pytest.raises(SlideError, match=r"implausible mpp 9 from the manifest: must be 0\.05 to 5"):
        Slide(tissue_path, 9)


@pytest.mark.parametrize("mpp", [0.02, 9.0])
def test_implausible_mpp(tmp_path: Path, mpp: float) -> None:
    with pytest.raises(SlideError, match=rf"a\.svs: implausible mpp {mpp:g} from the slide"):
        Slide(sf.make_slide(tmp_path / "a.svs", width=300, height=300, mpp=mpp))


# Files that are no slides


def test_no_slide(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"none\.svs: no such slide"):
        Slide(tmp_path / "none.svs")
    with pytest.raises(SlideError, match="no such slide"):
        Slide(tmp_path)
    with pytest.raises(SlideError, match=r"a\.svs: not a slide that OpenSlide can read"):
        Slide(sf.not_a_slide(tmp_path / "a.svs"))
    (tmp_path / "empty.svs").write_bytes(b"")
    with pytest.raises(SlideError, match=r"empty\.svs: not a slide"):
        Slide(tmp_path / "empty.svs")


def test_a_slide_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colleague's with a umask of 077: OpenSlide says that it is no slide, and G2L said so, and to convert it."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SlideError, match=r"a\.svs: this user has no permission to read it\. .* chmod g\+r"):
        Slide(sf.not_a_slide(tmp_path / "a.svs"))


@pytest.mark.parametrize(
    ("ifds", "message"),
    [("end", "not a slide"), ("spread", "not a slide"), ("front", r"does not open \(.*\)\. Is the file whole\?")],
)
def test_slide_cut_to_60_percent(tmp_path: Path, ifds: sf.Ifds, message: str) -> None:
    whole = sf.make_slide(tmp_path / "a.svs", width=1500, height=1200, ifds=ifds)
    with pytest.raises(SlideError, match=f"a-truncated.svs: .*{message}"):
        Slide(sf.truncate(whole))


def test_a_whole_slide_of_a_kind_that_openslide_does_not_read(tmp_path: Path) -> None:
    """It is not asked whether the file is whole: it is to be converted."""
    path = sf.make_slide(tmp_path / "a.svs", width=300, height=300, downsamples=(1,))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(50001)  # WebP
    with pytest.raises(SlideError, match=r"a\.svs: the slide does not open \(Unsupported .*\)\. OpenSlide .*: convert"):
        Slide(path)


def test_a_whole_czi_of_a_compression_that_openslide_does_not_read(tmp_path: Path) -> None:
    """JPEG XR is that of most; OpenSlide's words are others than those of a TIFF."""
    path = make_czi_slide(tmp_path / "a.czi", sf.make_pixels("blank", 300, 300), mpp=0.5, compression="jpeg")
    with pytest.raises(SlideError, match=r"a\.czi: the slide does not open \(JPEG compression is not .*: convert"):
        Slide(path)


def test_patches_of_a_slide_of_four_images_are_where_these_meet(tmp_path: Path) -> None:
    pixels = sf.make_pixels("zigzag", 640, 384)
    make_vms_slide(tmp_path / "a.vms", pixels, mpp=0.5)
    slide = Slide(tmp_path / "a.vms")
    assert (slide.info.mpp, slide.info.size_l0_px) == (0.5, (640, 384))
    patch = slide.read_patch(293, 171, slide.geometry(64, 0.5)).astype(int)
    assert abs(patch - pixels[171:235, 293:357]).mean() < 3  # JPEG


@pytest.mark.parametrize("compression", ["none", "zstd0", "zstd1"])
def test_patches_of_a_czi_are_where_its_scenes_are(tmp_path: Path, compression: Compression) -> None:
    """Of two scenes, of which the first begins below the second; between them nothing was scanned."""
    pixels = sf.make_pixels("zigzag", 1501, 1003)
    path = tmp_path / "a.czi"
    scenes = [(0, 300, 600, 700), (801, 0, 700, 900)]
    slide = Slide(make_czi_slide(path, pixels, mpp=0.25, scenes=scenes, compression=compression))
    assert (slide.info.size_l0_px, slide.info.downsamples, slide.info.mpp) == ((1501, 1003), (1.0, 2.0, 4.0), 0.25)
    for mpp, corners in (
        (0.25, [(17, 401), (901, 33)]),
        (0.5, [(20, 400), (1001, 98)]),
        (1.0, [(40, 340), (1041, 76)]),
    ):
        geometry = slide.geometry(64, mpp)
        assert geometry.downsample == mpp / 0.25
        step = int(geometry.downsample)
        for x, y in corners:
            patch = slide.read_patch(x, y, geometry).astype(int)
            truth = sf.area_average(pixels[y : y + 64 * step, x : x + 64 * step], step).astype(int)
            assert abs(patch - truth).mean() < 1.5  # a corner between pixels of the level is resampled
    with pytest.raises(EmptyPatchError):
        slide.read_patch(620, 100, slide.geometry(64, 0.25))


@pytest.mark.slow
def test_slide_cut_to_60_percent_that_opens(tmp_path: Path) -> None:
    """A big slide with its directories in front opens nevertheless: what is behind the cut raises."""
    options = {"width": 2048, "height": 1536, "mpp": 0.5, "downsamples": (1,)}
    path = sf.make_slide(tmp_path / "a.svs", compression="none", ifds="front", **options)
    slide, truth = Slide(sf.truncate(path)), sf.make_pixels("tissue", 2048, 1536, mpp=0.5)
    geometry = slide.geometry(224, 0.5)
    for _ in range(2):
        with pytest.raises(PatchError, match=r"^the slide is damaged there \(.*Read error"):
            slide.read_patch(1024, 1280, geometry)
        np.testing.assert_array_equal(slide.read_patch(512, 512, geometry), truth[512:736, 512:736])


# Whatever goes wrong with one slide is named


def test_a_property_whose_name_is_not_utf8(tissue_path: Path, tmp_path: Path) -> None:
    """OpenSlide lists it, and has no value for what Python makes of its name."""
    path = tmp_path / "a.svs"
    path.write_bytes(tissue_path.read_bytes())
    slide = Slide(sf.rename_property(path, b"AppMag", b"App\xff\xfeg"))
    assert slide.info.mpp == 0.5
    assert "1 of its properties have names that are not UTF-8 and are skipped" in slide.info.warnings


@pytest.mark.parametrize("error", [KeyError(), ValueError("no number"), MemoryError(), OverflowError("too large")])
def test_any_exception_fails_the_slide(tissue_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.slides.reader.read_info", failing(error))
        with pytest.raises(SlideError, match=rf"a\.svs: the slide cannot be used \({type(error).__name__}"):
            Slide(tissue_path)
    slide = Slide(tissue_path)
    monkeypatch.setattr("pipeline.slides.reader.Slide._read_rgba", failing(error))
    for read in (lambda: slide.read_region(0, (0, 0), (8, 8)), lambda: slide.read_patch(0, 0, slide.geometry(64, 0.5))):
        with pytest.raises(PatchError, match=type(error).__name__):
            read()


def test_without_memory_no_slide_and_no_patch_is_called_unreadable(
    tissue_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the process that has none; what asks for too much of plenty fails by name, as above."""
    slide = Slide(tissue_path)
    with little_memory_left():
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.slides.reader.read_info", failing(MemoryError()))
            with pytest.raises(LimitError, match=r"ulimit -v"):
                Slide(tissue_path)
        monkeypatch.setattr("pipeline.slides.reader.Slide._read_rgba", failing(MemoryError()))
        with pytest.raises(LimitError, match=r"ulimit -v"):
            slide.read_patch(0, 0, slide.geometry(64, 0.5))


def test_a_property_that_is_no_number(tissue_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5", "openslide.background-color": "none"}
    monkeypatch.setattr("pipeline.slides.reader._read_properties", lambda _: (found, 0))
    with pytest.raises(SlideError, match=r"a\.svs: the slide cannot be used \(ValueError: invalid literal"):
        Slide(tissue_path)


def test_what_is_read_at_once_is_bounded(tmp_path: Path) -> None:
    """A patch of 4096 pixels at 5 um/px from a slide of one level at 0.05: 400,000 pixels a side, 671 GB."""
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=600, height=400, mpp=0.05, downsamples=(1,)))
    with pytest.raises(SlideError, match=r"a\.svs: a patch would be reduced from 409,600 pixels a side"):
        slide.geometry(4096, 5.0)
    with pytest.raises(PatchError, match="100,000 x 100,000 pixels is too large to read at once"):
        slide.read_region(0, (0, 0), (100_000, 100_000))


# Damaged tiles


@pytest.mark.parametrize("how", ["zero", "garbage", "truncate", "outside"])
def test_patch_on_a_damaged_tile_raises_and_others_are_whole(tissue_path: Path, tmp_path: Path, how: sf.Damage) -> None:
    slide, whole = Slide(sf.damage_tiles(tissue_path, DAMAGED, how=how, out=tmp_path / "bad.svs")), Slide(tissue_path)
    geometry = slide.geometry(224, 0.5)
    for x, y in ((512, 512), (767, 767), (289, 600)):  # within the tile, one pixel of it, one column of it
        with pytest.raises(PatchError) as caught:
            slide.read_patch(x, y, geometry)
        assert not isinstance(caught.value, EmptyPatchError)
    for x, y in ((768, 512), (288, 600), (512, 288), (0, 0)):  # beside it
        np.testing.assert_array_equal(slide.read_patch(x, y, geometry), whole.read_patch(x, y, geometry))


def test_many_threads_on_a_damaged_slide(tissue_path: Path, tmp_path: Path) -> None:
    """Damage that one thread meets never reaches a patch of another."""
    slide = Slide(sf.damage_tiles(tissue_path, [(2, 2), (4, 1)], out=tmp_path / "bad.svs"))
    whole = Slide(tissue_path)
    geometry = slide.geometry(64, 0.5)
    places = [(x, y) for y in range(0, 1100, 96) for x in range(0, 1400, 96)] * 3

    def read(xy: tuple[int, int]) -> bytes | None:
        try:
            return slide.read_patch(*xy, geometry).tobytes()
        except PatchError:
            return None

    def touches(xy: tuple[int, int]) -> bool:
        tiles = ((512, 512), (1024, 256))
        return any(tx - 64 < xy[0] < tx + 256 and ty - 64 < xy[1] < ty + 256 for tx, ty in tiles)

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(read, places))
    expected = [None if touches(xy) else whole.read_patch(*xy, geometry).tobytes() for xy in places]
    assert sum(patch is None for patch in expected) > 20
    assert got == expected


def test_one_damaged_tile_costs_two_openings(
    tissue_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for the patch's own second try, one for all patches after it."""
    slide = Slide(sf.damage_tiles(tissue_path, DAMAGED, out=tmp_path / "bad.svs"))
    geometry = slide.geometry(64, 0.5)
    openings = []
    real = Slide._open
    monkeypatch.setattr(Slide, "_open", lambda self: (openings.append(1), real(self))[1])
    with pytest.raises(PatchError):
        slide.read_patch(512, 512, geometry)
    assert len(openings) == 2
    for x in range(0, 1400, 64):
        slide.read_patch(x, 0, geometry)
    assert len(openings) == 2


def test_patch_where_nothing_was_scanned(tissue_path: Path, tmp_path: Path) -> None:
    slide = Slide(sf.damage_tiles(tissue_path, DAMAGED, how="missing", out=tmp_path / "bad.svs"))
    geometry = slide.geometry(224, 0.5)
    with pytest.raises(EmptyPatchError, match="no pixels there"):
        slide.read_patch(528, 528, geometry)
    with pytest.raises(EmptyPatchError):
        slide.read_patch(512 - 100, 528, geometry)  # 124 of 224 columns are missing
    patch = slide.read_patch(512 - 124, 528, geometry)  # 100 are
    assert (patch[:, 124:] == 255).all()  # the slide's background
    np.testing.assert_array_equal(patch[:, :124], Slide(tissue_path).read_patch(512 - 124, 528, geometry)[:, :124])


def test_slide_that_goes_away(tissue_path: Path, tmp_path: Path) -> None:
    path = sf.damage_tiles(tissue_path, DAMAGED, out=tmp_path / "bad.svs")
    slide = Slide(path)
    path.unlink()
    with pytest.raises(SlideError, match=r"bad\.svs: no such slide"):
        slide.read_patch(512, 512, slide.geometry(224, 0.5))


# A slide with bounds


def test_slide_with_bounds(tmp_path: Path) -> None:
    scanned = (500, 300, 1000, 700)
    slide = Slide(sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=scanned, pattern="coordinates"))
    assert slide.info.vendor == "leica"
    assert slide.info.size_l0_px == (2000, 1500)
    assert slide.info.bounds_l0_px == scanned
    geometry = slide.geometry(100, 0.5)
    truth = sf.make_pixels("coordinates", 1000, 700)
    np.testing.assert_array_equal(slide.read_patch(701, 433, geometry), truth[133:233, 201:301])
    for x, y in ((0, 0), (399, 500), (449, 500), (1900, 1400)):
        with pytest.raises(EmptyPatchError):
            slide.read_patch(x, y, geometry)
    patch = slide.read_patch(460, 500, geometry)
    assert (patch[:, :40] == 255).all()
    np.testing.assert_array_equal(patch[:, 40:], truth[200:300, :60])


# Reduced by torch


@pytest.mark.parametrize("mpp", [0.25, 0.2521])
def test_a_patch_reduced_by_torch_is_nearly_pillows(tmp_path: Path, mpp: float) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1600, height=1280, mpp=mpp, downsamples=(1, 4)))
    pillow = slide.geometry(96, 0.5)
    torch = pillow.reduced_by("lanczos-torch")
    assert torch.resampling == "lanczos-torch"
    for x, y in ((401, 299), (0, 0), (1600 - 195, 1280 - 195)):
        ours, theirs = (slide.read_patch(x, y, geometry) for geometry in (torch, pillow))
        assert np.abs(ours.astype(int) - theirs).max() <= 2
        assert ours.shape == theirs.shape


def test_pillow_reduces_where_torch_cannot(tmp_path: Path) -> None:
    """From coarser levels, whose patches may start between pixels, and what is enlarged."""
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1600, height=1280, mpp=0.25, downsamples=(1, 4)))
    coarse, enlarged = slide.geometry(96, 1.1), slide.geometry(96, 0.24)
    for geometry in (coarse, enlarged):
        assert geometry.reduced_by("lanczos-torch") == geometry


def halved(geometry: PatchGeometry) -> PatchGeometry:
    return replace(geometry, decode="half").reduced_by("lanczos-torch")


@pytest.mark.parametrize("mpp", [0.25, 0.2467, 0.2524])
def test_half_decoded_patches_show_the_same_place(tmp_path: Path, mpp: float) -> None:
    """Also at odd corners, edges and fractions. Within 1 % of twice, half counts as fine enough."""
    path = sf.make_slide(tmp_path / "a.svs", width=1201, height=901, mpp=mpp, sampling=(2, 2), downsamples=(1,))
    slide = Slide(path)
    full = slide.geometry(96, 0.5)
    half = halved(full)
    assert slide.why_not_half(full) == ""
    side = math.ceil(full.patch_l0_px)
    for x, y in ((0, 0), (400, 298), (401, 299), (1201 - side, 901 - side)):
        ours, theirs = (slide.read_patch(x, y, geometry).astype(int) for geometry in (half, full))
        assert ours.shape == (96, 96, 3)
        assert np.abs(ours - theirs).mean() < 4
        shifted = slide.read_patch(max(x - 4, 0), y, full).astype(int)
        assert x == 0 or np.abs(ours - theirs).mean() < 0.7 * np.abs(ours - shifted).mean()


def test_half_of_twice_is_the_decoders_own_pixels(tmp_path: Path) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1200, height=900, mpp=0.25, downsamples=(1,)))
    half = halved(slide.geometry(96, 0.5))
    np.testing.assert_array_equal(slide.read_patch(40, 62, half), slide.direct.read_half(0, (20, 31), (96, 96)))


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (0.49, {}, "1.96 times, less than twice"),
        (0.5, {"compression": "deflate"}, "level 0 is not of JPEG tiles that are read directly"),
    ],
)
def test_why_half_cannot_be_is_said(tmp_path: Path, target: float, options: dict[str, Any], words: str) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1200, height=900, mpp=0.25, downsamples=(1,), **options))
    assert words in slide.why_not_half(slide.geometry(96, target))


def test_a_slide_planned_at_half_is_refused_where_that_cannot_be(tmp_path: Path) -> None:
    """The row fails: it never has other pixels in silence."""
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1200, height=900, mpp=0.25, downsamples=(1,)))
    half = halved(slide.geometry(96, 0.5))
    slide.direct._half = None  # as where the system lacks `pread`
    with pytest.raises(
        SlideError, match=r"a\.svs: planned with --decode half, which cannot be done here: level 0 is not"
    ):
        slide.read_patch(0, 0, half)


@pytest.mark.parametrize("how", ["missing", "zero"])
def test_over_a_tile_that_does_not_decode_openslide_decides_at_half(tmp_path: Path, how: sf.Damage) -> None:
    sound = sf.make_slide(tmp_path / "a.svs", width=1200, height=900, mpp=0.25, sampling=(2, 2), downsamples=(1,))
    slide = Slide(sf.damage_tiles(sound, [(2, 1)], how=how, out=tmp_path / "b.svs"))
    full = slide.geometry(96, 0.5)
    over = 3 * 256 - 64, 290  # a third of it lies on the tile
    if how == "zero":
        with pytest.raises(PatchError):
            slide.read_patch(*over, halved(full))
        return
    ours = slide.read_patch(*over, halved(full))
    place = np.asarray(slide._read_on_background(0, over, (192, 192), 0.5).reduce(2))
    np.testing.assert_array_equal(ours, place)
    with pytest.raises(EmptyPatchError):
        slide.read_patch(2 * 256 + 20, 290, halved(full))


# Several at once


WAYS: list[Callable[[PatchGeometry], PatchGeometry]] = [
    lambda geometry: geometry,
    lambda geometry: geometry.reduced_by("lanczos-torch"),
    halved,
]


@pytest.mark.parametrize("mpp", [0.25, 0.2521, 0.5])
@pytest.mark.parametrize("at_once", [2, 10**6])
@pytest.mark.parametrize("how", ["zero", "missing"])
def test_patches_read_together_are_those_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mpp: float, at_once: int, how: sf.Damage
) -> None:
    """To the bit, however they are reduced, and each with its own failure: on damage, unscanned glass, outside."""
    monkeypatch.setattr("pipeline.slides.reader.REGIONS_BYTES", at_once * 3 * 195 * 195)
    sound = sf.make_slide(tmp_path / "a.svs", width=1301, height=1103, mpp=mpp, sampling=(2, 2), downsamples=(1,))
    slide = Slide(sf.damage_tiles(sound, DAMAGED, how=how, out=tmp_path / "b.svs"))
    rng = np.random.default_rng(3)
    corners = [(int(x), int(y)) for x, y in rng.integers(0, (1301 - 195, 1103 - 195), (14, 2))]
    corners += [(512, 512), (600, 540), (1300, 1102), (-70, 5), (0, 0), (1301 - 195, 1103 - 195), (590, 530)]
    for way in WAYS if mpp < 0.5 else WAYS[:1]:
        geometry = way(slide.geometry(96, 0.5))
        together = slide.read_patches(corners, geometry)
        assert {type(each) for each in together} >= {np.ndarray, EmptyPatchError if how == "missing" else PatchError}
        for (x, y), seen in zip(corners, together, strict=True):
            if isinstance(seen, Exception):
                with pytest.raises(type(seen), match=f"^{re.escape(str(seen))}$"):
                    slide.read_patch(x, y, geometry)
            else:
                np.testing.assert_array_equal(seen, slide.read_patch(x, y, geometry))


def test_of_a_slide_that_goes_away_each_patch_says_so(tissue_path: Path, tmp_path: Path) -> None:
    path = sf.damage_tiles(tissue_path, DAMAGED, out=tmp_path / "bad.svs")
    slide = Slide(path)
    path.unlink()
    failed = slide.read_patches([(512, 512), (520, 512)], slide.geometry(224, 0.5))
    assert [type(each) for each in failed] == [SlideError] * 2


def test_neighbours_are_reduced_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1200, height=900, mpp=0.25, downsamples=(1,)))
    sizes: list[int] = []

    def counted(regions: NDArray[np.uint8], side: float, patch_px: int) -> NDArray[np.uint8]:
        sizes.append(len(regions))
        return reduce_by_torch(regions, side, patch_px)

    monkeypatch.setattr("pipeline.slides.reader.reduce_by_torch", counted)
    geometry = slide.geometry(96, 0.5).reduced_by("lanczos-torch")
    assert slide.read_patches([(x, 40) for x in range(0, 900, 100)], geometry)
    monkeypatch.setattr("pipeline.slides.reader.REGIONS_BYTES", 5 * 3 * 192 * 192)
    assert slide.read_patches([(x, 40) for x in range(0, 900, 100)], geometry)
    assert sizes == [9, 5, 4]
    assert slide.read_patches([], geometry) == []


def test_what_is_too_large_to_read_at_once_asks_for_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1200, height=900, mpp=0.25, downsamples=(1,)))
    geometry = slide.geometry(96, 0.5).reduced_by("lanczos-torch")
    monkeypatch.setattr("pipeline.slides.reader.MAX_REGION_PX", 191 * 192)
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("asked for"))
    assert [str(each) for each in slide.read_patches([(0, 0), (9, 9)], geometry)] == [
        "a region of 192 x 192 pixels is too large to read at once"
    ] * 2


@pytest.mark.parametrize("spare", [0, 1])
def test_without_descriptors_no_slide_is_called_unreadable(tissue_path: Path, spare: int) -> None:
    """OpenSlide says of any file that it is none of its formats, or that it cannot open its parts."""
    slide = Slide(tissue_path)
    with few_files_left(spare), pytest.raises(LimitError, match=r"ulimit -n"):
        Slide(tissue_path)
    with few_files_left(), pytest.raises(LimitError, match=r"ulimit -n"):
        slide.identity()
    assert Slide(tissue_path).identity() == slide.identity()


def test_without_descriptors_no_patch_is_called_damaged(tissue_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(tissue_path)
    geometry = slide.geometry(128, 0.5)
    monkeypatch.setattr(slide, "_read_box", failing(os_error(errno.EMFILE)))
    with pytest.raises(LimitError, match=r"ulimit -n"):
        slide.read_patches([(0, 0)], geometry)


# Levels that were filled up to whole tiles


@pytest.fixture
def filled(tmp_path: Path) -> Slide:
    """A slide at 0.5 um/px whose level 1 was filled up with white to 61 x 60 tiles: 0.8 % more of one side."""
    pixels = sf.make_pixels("zigzag", 121 * 16, 120 * 16)
    half = np.pad(sf.area_average(pixels, 2), ((0, 0), (0, 8), (0, 0)), constant_values=255)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for level, per_cm in ((pixels, 2e4), (half, 1e4)):
            unit = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER", "metadata": None}
            writer.write(level, tile=(16, 16), photometric="rgb", compression="zlib", subfiletype=per_cm < 2e4, **unit)
    return Slide(tmp_path / "a.tif")


def test_patches_of_a_level_that_was_filled_up(filled: Slide) -> None:
    assert filled.info.level_sizes_px == ((1936, 1920), (976, 960))
    geometry = filled.geometry(64, 1.0)
    assert (geometry.level, geometry.downsample) == (1, 2)
    for x, y in ((0, 0), (1700, 300), (1808, 1792)):
        patch = filled.read_patch(x, y, geometry).astype(float)
        np.testing.assert_allclose(patch[0, 1:-1, 0], sf.zigzag(x + 2 * np.arange(64)[1:-1]) + 0.5, atol=4)
        np.testing.assert_allclose(patch[1:-1, 0, 1], sf.zigzag(y + 2 * np.arange(64)[1:-1]) + 0.5, atol=4)


def test_patches_of_a_level_whose_magnification_the_format_states(tmp_path: Path) -> None:
    """Ventana's TIFF: both sides are filled up alike, so that the sizes do not show it."""
    pixels = sf.make_pixels("zigzag", 41 * 16, 41 * 16)
    half = np.pad(sf.area_average(pixels, 2), ((0, 8), (0, 8), (0, 0)), constant_values=255)
    scan = b'<iScan Magnification="20" ScanRes="0.5" UnitNumber="1" Z-layers="1"/>'
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "software": False}
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        label = np.full((64, 64, 3), 200, np.uint8)
        writer.write(label, description="Label_Image", extratags=[(700, 7, len(scan), scan, True)], **options)
        for level, (picture, power) in enumerate(((pixels, 20), (half, 10))):
            words = f"level={level} mag={power} quality=90"
            writer.write(picture, tile=(16, 16), compression="zlib", description=words, **options)
    slide = Slide(tmp_path / "a.tif")
    assert (slide.info.vendor, slide.info.downsamples) == ("ventana", (1, 2))
    patch = slide.read_patch(500, 400, slide.geometry(64, 1.0)).astype(float)
    np.testing.assert_allclose(patch[0, 8:, 0], sf.zigzag(500 + 2 * np.arange(8, 64)) + 0.5, atol=2)


def test_a_plan_that_took_the_ratio_of_its_sizes_goes_on(filled: Slide) -> None:
    """Of an earlier version; its patches are where they were."""
    geometry = filled.geometry(64, 1.0)
    earlier = replace(geometry, downsample=(1936 / 976 + 2) / 2)
    assert require_planned(filled, filled.identity(), earlier) == ""
    with pytest.raises(SlideError, match=r"downsample of level 1: 1\.99 -> 2"):
        require_planned(filled, filled.identity(), replace(geometry, downsample=1.99))


# MIRAX


def test_patches_of_a_mirax_slide_are_where_its_photos_are(tmp_path: Path) -> None:
    """Of every level, against the pixels that the photos were cut from: they overlap, and are off their grid."""
    pixels = np.tile(sf.make_pixels("tissue", 1600, 1400, seed=3, mpp=0.5)[400:1000, 500:900], (3, 4, 1))
    slide = Slide(make_mirax_slide(tmp_path / "a.mrxs", pixels, mpp=0.5, missing=[(0, 0), (5, 4)]))
    assert (slide.info.vendor, slide.info.mpp, slide.info.mpp_source) == ("mirax", 0.5, "slide")
    left, top = min(photo_corner((0, row))[0] for row in range(1, 5)), min(photo_corner((c, 0))[1] for c in range(1, 6))
    assert slide.info.bounds_l0_px[:2] == (left, top)
    assert slide.info.downsamples == (1, 2, 4, 8)
    for level, mpp in enumerate((0.5, 1.0, 2.0, 4.0)):
        geometry = slide.geometry(96, mpp)
        assert geometry.level == level
        x, y, side = 401, 303, 96 * 2**level
        expected = np.asarray(Image.fromarray(pixels[y : y + side, x : x + side]).resize((96, 96)), int)
        patch = slide.read_patch(x, y, geometry).astype(int)
        moved = [np.abs(np.roll(patch, 1, axis) - expected).mean() for axis in (0, 1)]
        assert np.abs(patch - expected).mean() < 0.5 * min(moved)
    with pytest.raises(EmptyPatchError):
        slide.read_patch(60, 60, slide.geometry(96, 0.5))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda path: shutil.rmtree(path.with_suffix("")), "in a folder of its name beside it, a/, and there is none"),
        (lambda path: (path.with_suffix("") / "Slidedat.ini").unlink(), "beside it, a/, and it has no Slidedat.ini"),
        (lambda path: path.rename(path.with_suffix(".MRXS")), r"small letters. Rename the file to a\.mrxs"),
    ],
    ids=["no folder", "no head", "capitals"],
)
def test_what_is_wrong_with_a_mirax_slides_files_is_said(
    tmp_path: Path, break_it: Callable[[Path], object], words: str
) -> None:
    """OpenSlide says of each that it is no slide at all; nobody needs to convert it."""
    path = make_mirax_slide(tmp_path / "a.mrxs", np.full((300, 300, 3), 200, np.uint8), mpp=0.5, photos=(1, 1))
    break_it(path)
    with pytest.raises(SlideError, match=words) as told:
        Slide(next(tmp_path.glob("*.[mM]*")))
    assert "convert" not in str(told.value)


def test_a_link_to_a_mirax_slide_needs_one_to_its_folder(tmp_path: Path) -> None:
    path = make_mirax_slide(tmp_path / "a.mrxs", np.full((300, 300, 3), 200, np.uint8), mpp=0.5, photos=(1, 1))
    link = tmp_path / "b.mrxs"
    link.symlink_to(path)
    with pytest.raises(SlideError, match=r"b/, and there is none\. .* also of a link: make one of the folder, too"):
        Slide(link)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert Slide(link).info.mpp == 0.5
