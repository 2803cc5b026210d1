"""A whole slide is read as it is, in blocks, also around what cannot be read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
import tifffile
from PIL import Image

from pipeline.base.errors import SlideError
from pipeline.slides import whole_slide
from pipeline.slides.reader import Slide
from pipeline.slides.whole_slide import long_reading_note, read_whole


@pytest.mark.slow
@pytest.mark.parametrize("block_px", [2048, 256, 100])
@pytest.mark.parametrize("downsamples", [(1,), (1, 4)], ids=str)
def test_thumbnail_is_the_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, downsamples: tuple[int, ...], block_px: int
) -> None:
    """Whatever the blocks: each pixel the mean of its square of the level, at the edge of what is left of it."""
    monkeypatch.setattr(whole_slide, "BLOCK_PX", block_px)
    width, height, mpp = 1112, 908, 0.6
    path = tmp_path / "a.svs"
    sf.make_slide(path, width=width, height=height, mpp=mpp, downsamples=downsamples, compression="deflate")
    whole = read_whole(Slide(path))
    thumbnail, unreadable, pixel_l0_px = whole.image, whole.unreadable, whole.pixel_l0_px
    factor = round(8 / mpp / downsamples[-1])
    assert pixel_l0_px == factor * downsamples[-1]
    assert not unreadable.any()
    level = sf.area_average(sf.make_pixels("tissue", width, height, mpp=mpp), downsamples[-1])
    assert thumbnail.shape == (-(-level.shape[0] // factor), -(-level.shape[1] // factor), 3)
    for row, column in ((0, 0), (20, 31), (thumbnail.shape[0] - 1, thumbnail.shape[1] - 1)):
        square = level[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        np.testing.assert_allclose(thumbnail[row, column], square.mean((0, 1)), atol=1)  # Pillow may round down
    np.testing.assert_array_equal(thumbnail, np.asarray(Image.fromarray(level).reduce(factor)))


@pytest.mark.slow
def test_thumbnail_around_damage_is_the_slide(tmp_path: Path) -> None:
    """13 level pixels a mask pixel: the quarters of a block that cannot be read must still begin on mask pixels."""
    path = tmp_path / "a.svs"
    sf.make_slide(path, width=1600, height=1300, mpp=0.6, downsamples=(1,), compression="none")
    whole = read_whole(Slide(sf.damage_tiles(path, [(3, 2)], how="outside")))
    thumbnail, unreadable, pixel_l0_px = whole.image, whole.unreadable, whole.pixel_l0_px
    assert pixel_l0_px == 13
    truth = np.asarray(Image.fromarray(sf.make_pixels("tissue", 1600, 1300, mpp=0.6)).reduce(13))
    assert 0 < unreadable.mean() < 0.3
    assert unreadable[512 // 13 : 768 // 13, 768 // 13 : 1024 // 13].all()
    np.testing.assert_array_equal(thumbnail[~unreadable], truth[~unreadable])


def test_a_slide_that_claims_more_than_any_has(tmp_path: Path) -> None:
    """Sizes that a damaged header may name: nothing of that size is made."""
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=600, height=400, mpp=4.0, downsamples=(1,)))
    slide.info = replace(slide.info, size_l0_px=(900_000, 900_000), level_sizes_px=((900_000, 900_000),))
    with pytest.raises(SlideError, match=r"a\.svs: at 4 um/px its 900,000 x 900,000 pixels are 3600 x 3600 mm"):
        read_whole(slide)


def test_a_slide_of_which_nothing_can_be_read_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quartering stops after so many failed reads; what was not tried counts as unreadable."""
    whole = sf.make_slide(tmp_path / "a.svs", width=1024, height=1024, mpp=0.5, downsamples=(1,))
    bad = Slide(sf.damage_tiles(whole, [(x, y) for x in range(4) for y in range(4)]))
    monkeypatch.setattr(whole_slide, "BLOCK_PX", 512)
    monkeypatch.setattr(whole_slide, "MIN_BLOCK_PX", 16)
    monkeypatch.setattr(whole_slide, "MOST_FAILED_READS", 10)
    reads = []
    real = Slide.read_region
    monkeypatch.setattr(Slide, "read_region", lambda self, *a, **k: (reads.append(1), real(self, *a, **k))[1])
    assert read_whole(bad).unreadable.all()
    assert len(reads) < 30


@pytest.mark.slow
def test_a_slide_without_levels_says_that_it_takes_longer(tmp_path: Path) -> None:
    one = Slide(sf.make_vast_slide(tmp_path / "one.svs", seed=1))
    assert one.info.size_l0_px == (100_000, 80_000)
    note = long_reading_note(one)
    assert "one.svs has only one level, so its tissue is found from all 100,000 x 80,000 pixels of level 0" in note
    assert "averaged 32 x 32" in note
    assert long_reading_note(Slide(sf.make_vast_slide(tmp_path / "levels.svs", downsamples=(1, 4, 16)))) == ""
    assert "no level near 8 um/px" in long_reading_note(
        Slide(sf.make_vast_slide(tmp_path / "two.svs", downsamples=(1, 2)))
    )
    small = Slide(sf.make_slide(tmp_path / "small.svs", width=600, height=400, mpp=0.5, downsamples=(1,)))
    assert long_reading_note(small) == ""


def test_a_slide_whose_levels_openslide_does_not_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SubIFDs of an OME-TIFF: the user thinks that it has levels."""
    monkeypatch.setattr(whole_slide, "MANY_PX", 1)
    pixels, tags = sf.make_pixels("blank", 256, 256), {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    for name, num_hidden in (("plain.tif", 0), ("hidden.ome.tif", 1)):
        with tifffile.TiffWriter(tmp_path / name) as writer:
            writer.write(pixels, tile=(64, 64), photometric="rgb", subifds=num_hidden, **tags)
            for _ in range(num_hidden):
                writer.write(pixels[::2, ::2], tile=(64, 64), photometric="rgb", subfiletype=1)
        slide = Slide(tmp_path / name)
        assert len(slide.info.downsamples) == 1
        assert ("others are SubIFDs" in long_reading_note(slide)) is (num_hidden > 0)


def test_blocks_of_one_level_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once does not grow with the level, and each pixel is read once."""
    slide = Slide(sf.make_vast_slide(tmp_path / "a.svs", width=5_000, height=4_500))
    sizes = []
    real = Slide.read_region
    monkeypatch.setattr(Slide, "read_region", lambda self, *a, **k: (sizes.append(a[2]), real(self, *a, **k))[1])
    assert read_whole(slide).image.shape == (141, 157, 3)
    assert max(max(size) for size in sizes) <= whole_slide.BLOCK_PX
    assert sum(width * height for width, height in sizes) == 5_000 * 4_500
