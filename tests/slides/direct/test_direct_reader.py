"""Tiles read directly: pixels are OpenSlide's, and whatever is odd or different is left to OpenSlide."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.slides as sf
import tifffile
from numpy.typing import NDArray
from support.tiled import (
    COMPARED_OF_16,
    HEIGHT,
    SAMPLINGS,
    WHOLE,
    WIDTH,
    assert_reads_as_openslide,
    by_openslide,
    count_decoding,
    make,
    make_in_tiles,
)

from pipeline import demo_data
from pipeline.base.errors import PatchError
from pipeline.disk.files import sha256_file
from pipeline.slides import reader
from pipeline.slides.direct.direct_reader import DirectReader
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.direct.tiled_tiff import TiledTiff
from pipeline.slides.reader import Slide


@pytest.mark.parametrize("tile", [256, 240, 512])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_pixels_are_openslides(tmp_path: Path, sampling: str, tile: int) -> None:
    assert_reads_as_openslide(make(tmp_path / "a.svs", SAMPLINGS[sampling], tile=tile), seed=tile)


@pytest.mark.slow
def test_pixels_of_a_real_slide_are_openslides() -> None:
    """The demo's, by Aperio; where `g2l demo` has fetched it."""
    path = demo_data.cache_folder() / demo_data.SLIDE_NAME
    if not path.is_file():
        pytest.skip(f"the demo's slide is not in {path.parent}: g2l demo fetches it")
    assert sha256_file(path) == demo_data.SLIDE_SHA256
    assert_reads_as_openslide(path, seed=11, regions=60, most_px=700)


def test_a_generic_tiff_is_read_as_well(tmp_path: Path) -> None:
    assert_reads_as_openslide(make(tmp_path / "a.tif", vendor="generic-tiff"))


def test_a_patch_is_the_same_by_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sf.make_slide(tmp_path / "a.svs", width=WIDTH, height=HEIGHT, mpp=0.26, sampling=(2, 2))
    slide = Slide(path)
    geometry = slide.geometry(96, 0.5)
    places = [(0, 0), (301, 211), (WIDTH - 185, HEIGHT - 185)]
    ours = [slide.read_patch(x, y, geometry) for x, y in places]
    monkeypatch.setattr(slide.direct, "read", lambda *_: None)
    for patch, (x, y) in zip(ours, places, strict=True):
        np.testing.assert_array_equal(patch, slide.read_patch(x, y, geometry))


def test_half_is_not_replaced_where_the_file_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSlide's pixels in full, averaged, are other pixels: which they are must not depend on the moment."""
    slide = Slide(make(tmp_path / "a.svs"))
    half = replace(slide.geometry(64, 0.5), target_mpp=1.0, decode="half")
    assert slide.why_not_half(half) == ""
    slide.direct.forget_tiles()

    def no_answer(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", no_answer)
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
        patched.setattr(os, "pread", no_answer)
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
        patched.setattr(tifffile, "TiffFile", no_answer)
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

    monkeypatch.setattr(os, "pread", one_bad_place)
    assert slide.direct.can_halve(0)


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

    monkeypatch.setattr(tifffile, "TiffFile", broken)
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
