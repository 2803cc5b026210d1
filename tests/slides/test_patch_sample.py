"""The estimate of bytes: near to what is written, by each slide's own patches; patches of one colour are counted."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import support.slides as sf

from pipeline.base.images import encode_image
from pipeline.cohort.audit import AuditRow
from pipeline.slides import patch_sample
from pipeline.slides.direct.tiled_tiff import TiledTiff
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.patch_sample import expected_pixel_bytes, is_plain, measure_patches, patches_to_measure
from pipeline.slides.reader import Slide

GEOMETRY = PatchGeometry(64, 0.5, 0.5, 0, 1.0)


def coords_of(width: int, height: int) -> np.ndarray:
    return np.array([(x, y) for y in range(0, height - 63, 64) for x in range(0, width - 63, 64)])


@pytest.mark.slow
def test_the_estimate_is_near_to_what_is_written(tmp_path: Path) -> None:
    """Glass takes a third of what nuclei take: one patch of the slide would tell either."""
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1600, height=1280, mpp=0.5, downsamples=(1,)))
    coords = coords_of(1600, 1280)
    patches = [slide.read_patch(x, y, GEOMETRY) for x, y in coords.tolist()]
    sample = measure_patches(slide, coords, GEOMETRY, 24)
    assert sample.measured == 24
    for mean, image_format in ((sample.pixel_bytes, "jpegxl"), (sample.jpeg_bytes, "jpeg")):
        assert mean is not None
        true = [len(encode_image(patch, image_format)) for patch in patches]
        assert max(true) > 2 * min(true)
        assert mean == pytest.approx(np.mean(true), rel=0.25)


def test_patches_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    whole = sf.make_slide(tmp_path / "a.svs", width=512, height=256, mpp=0.5, downsamples=(1,), tile=256)
    bad = Slide(sf.damage_tiles(whole, [(0, 0)]))
    coords = np.array([(0, 0), (64, 0), (300, 0), (380, 0)])
    half = measure_patches(bad, coords, GEOMETRY, 4)
    assert (half.measured, half.failed) == (2, 2)
    damaged = r"the slide is damaged there \(.+\)"
    assert re.fullmatch(f"2 of 4 patches looked at could not be read: {damaged}", *half.warnings())
    nothing = measure_patches(bad, coords[:2], GEOMETRY, 4)
    assert (nothing.measured, nothing.failed, nothing.pixel_bytes, nothing.jpeg_bytes) == (0, 2, None, None)
    assert re.fullmatch(f"none of the 2 patches looked at could be read: {damaged}", *nothing.warnings())
    (one,) = measure_patches(bad, coords[:1], GEOMETRY, 4).warnings()
    assert re.fullmatch(f"the one patch looked at could not be read: {damaged}", one)
    empty = measure_patches(bad, coords[:0], GEOMETRY, 4)
    assert (empty.measured, empty.failed, empty.warnings()) == (0, 0, [])


def test_a_patch_takes_as_long_by_one_as_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done once a slide is not in the figure: by a clock that counts tiles decoded and regions of OpenSlide."""
    path = sf.make_slide(tmp_path / "a.svs", width=256, height=256, mpp=0.5, downsamples=(1,), tile=64)
    events: list[str] = []
    for owner, name in ((TiledTiff, "_decode"), (Slide, "_read_rgba")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, read=original: events.append("") or read(*args))
    monkeypatch.setattr(patch_sample, "time", SimpleNamespace(monotonic=lambda: float(len(events))))
    coords = np.delete(coords_of(256, 256), (4, 8, 12), axis=0)  # the tiles that are compared stay in memory
    for count in (1, 2, 13):
        sample = measure_patches(Slide(path), coords, GEOMETRY, count)
        assert (sample.measured, sample.seconds) == (count, count)
    events.clear()
    measure_patches(Slide(path), coords[:0], GEOMETRY, 1)
    assert not events  # of a slide without patches nothing is compared


def test_patches_of_one_colour(tmp_path: Path) -> None:
    pixels = sf.make_pixels("tissue", 512, 512, mpp=0.5)
    pixels[:, :256] = (231, 180, 203)
    slide = Slide(sf.write_slide(tmp_path / "a.svs", pixels, mpp=0.5, downsamples=(1,)))
    coords = np.array([(0, 0), (64, 128), (320, 320), (384, 256)])
    sample = measure_patches(slide, coords, GEOMETRY, 4)
    assert (sample.measured, sample.plain) == (4, 2)
    assert not is_plain(pixels[:64, 250:314])


@pytest.mark.parametrize(("slides", "each"), [(1, 24), (4, 24), (10, 20), (150, 2), (200, 1), (5000, 1)])
def test_how_many_are_measured(slides: int, each: int) -> None:
    assert patches_to_measure(slides) == each


def test_each_slide_counts_by_its_own_patches() -> None:
    rows = [
        AuditRow("a", "ok", patches_taken=1000, pixel_bytes=100, jpeg_bytes=30),
        AuditRow("b", "ok", patches_taken=10, pixel_bytes=300, jpeg_bytes=90),
        AuditRow("c", "damaged", patches_taken=100),
    ]
    assert expected_pixel_bytes(rows, "jpegxl") == 1000 * 100 + 10 * 300 + 100 * 200
    assert expected_pixel_bytes(rows, "jpeg") == 1000 * 30 + 10 * 90 + 100 * 60
    assert expected_pixel_bytes(rows, "none") == 0
    assert expected_pixel_bytes(rows[2:], "jpegxl") is None
    assert expected_pixel_bytes([AuditRow("old", "ok", patches_taken=10, pixel_bytes=100)], "jpeg") == 400
