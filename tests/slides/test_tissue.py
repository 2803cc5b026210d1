"""Tissue: found where it is, not where it is not; the thumbnail is the slide; what cannot be read is not glass."""

import gc
import itertools
import weakref
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import support.slides as sf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage.morphology import remove_small_objects
from support.artefacts import stroke
from support.czi import make_czi_slide
from support.glass import BACKGROUNDS, GLASS, PINK, STROMA, TINTS, on_glass, with_noise
from support.stained import HEIGHT, WIDTH, glass, overlap, piece, stain

from pipeline.config.tissue_rules import rules_in_use
from pipeline.slides.artefacts.rules import drop_artefacts
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import (
    TissueMask,
    find_tissue,
    like_tissue,
    look_for_tissue,
    reason_of,
    segment,
    without_small,
)


def painted(*boxes: tuple[int, int, int, int], colour: tuple[int, int, int] = PINK, side: int = 200) -> np.ndarray:
    """Glass with boxes (x, y, width, height) of a colour: uint8 (side, side, 3)."""
    image = np.full((side, side, 3), GLASS, np.uint8)
    for x, y, w, h in boxes:
        image[y : y + h, x : x + w] = colour
    return image


def test_a_box_of_tissue() -> None:
    mask = segment(painted((50, 60, 70, 40)), 8.0)
    expected = np.zeros((200, 200), bool)
    expected[60:100, 50:120] = True
    assert mask.dtype == bool
    assert (mask != expected).sum() <= 16  # the median filter takes the tips of the corners


def test_specks_go_and_small_holes_are_filled() -> None:
    """At 8 um/px 0.02 mm2 are 312 pixels, 0.05 mm2 are 781."""
    speck, lump = (10, 10, 16, 16), (10, 60, 20, 20)
    mask = segment(painted(speck, lump, side=100), 8.0)
    assert not mask[:40].any()
    assert mask[62:78, 12:28].all()
    image = painted((10, 10, 180, 180))
    image[30:56, 30:56] = GLASS  # 676 pixels
    image[100:140, 100:140] = GLASS  # 1600
    image[:20, :20] = image[40:60, 180:] = GLASS  # glass at the border is no hole
    mask = segment(image, 8.0)
    assert mask[30:56, 30:56].all()
    assert not mask[103:137, 103:137].any()
    assert not mask[:8, :8].any()
    assert not mask[43:57, 183:].any()


@pytest.mark.parametrize("um", [2.0, 4.0, 8.0, 16.0])
def test_sizes_are_in_micrometres(um: float) -> None:
    """A box of 0.4 x 0.4 mm is found at any resolution of the thumbnail; one of 0.1 x 0.1 mm never."""
    px = round(400 / um)
    image = painted((px // 2, px // 2, px, px), (2 * px, 2 * px, px // 4, px // 4), side=3 * px)
    mask = segment(image, um)
    assert mask.sum() == pytest.approx(px**2, rel=0.1)
    assert not mask[2 * px :, 2 * px :].any()


def test_no_tissue_where_there_is_no_colour() -> None:
    noise = np.random.default_rng(0).integers(238, 248, (200, 200, 1), np.uint8).repeat(3, axis=2)
    assert not segment(noise, 8.0).any()
    assert not segment(np.full((50, 50, 3), 255, np.uint8), 8.0).any()
    assert not segment(painted((20, 20, 100, 100), colour=(30, 10, 20)), 8.0).any()  # a black mark
    assert not segment(np.zeros((1, 1, 3), np.uint8), 8.0).any()
    assert not segment(painted(side=20), 8.0).any()  # smaller than the holes that are filled


def test_a_slide_full_of_tissue_is_all_tissue() -> None:
    rng = np.random.default_rng(0)
    image = (np.array(PINK) + rng.integers(-12, 12, (150, 150, 1))).astype(np.uint8)
    image[:, 75:] = (140, 90, 150)  # two stains that Otsu alone would part
    assert segment(image, 8.0).all()


def test_pale_tissue_beside_dark() -> None:
    image = painted((20, 20, 60, 60), colour=(120, 60, 140))
    image[120:180, 120:180] = (232, 205, 220)  # pale stroma, saturation 0.12
    mask = segment(image, 8.0)
    assert mask[25:75, 25:75].all()


def test_ignored_places_count_for_nothing() -> None:
    image = painted((50, 50, 60, 60))
    ignore = np.zeros((200, 200), bool)
    ignore[:, :80] = True
    mask = segment(image, 8.0, ignore)
    assert not mask[:, :75].any()
    assert mask[55:105, 85:105].all()


@pytest.mark.slow
def test_mask_of_a_slide(tmp_path: Path) -> None:
    """Against the truth: places where the factory put colour, seen at level 0."""
    pixels = sf.make_pixels("tissue", 3000, 2400, mpp=0.5)
    truth = np.ptp(ndimage.uniform_filter(pixels.astype(np.float32), (33, 33, 0)), axis=2) > 20
    path = sf.make_slide(tmp_path / "a.svs", width=3000, height=2400, mpp=0.5, downsamples=(1, 4))
    found = find_tissue(Slide(path))
    assert found.pixel_l0_px == 16
    assert found.mask.shape == (150, 188)
    assert found.thumbnail.shape == (150, 188, 3)
    assert not found.unreadable.any()
    level_0 = found.mask.repeat(16, 0).repeat(16, 1)[:2400, :3000]
    overlap = (level_0 & truth).sum() / (level_0 | truth).sum()
    assert overlap > 0.95
    np.testing.assert_array_equal(found.integral()[-1, -1], found.mask.sum())


def test_blank_glass_has_no_tissue(tmp_path: Path) -> None:
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=1500, height=1200, mpp=0.5, pattern="blank"))
    assert not find_tissue(slide).mask.any()


def test_what_cannot_be_read_counts_as_tissue(tmp_path: Path) -> None:
    """On glass as well; the area is that of the tiles, to the blocks that are tried."""
    whole = sf.make_slide(tmp_path / "a.svs", width=3072, height=2048, mpp=0.5, downsamples=(1,), pattern="blank")
    found = find_tissue(Slide(sf.damage_tiles(whole, [(2, 1), (11, 7)])))
    expected = np.zeros((128, 192), bool)
    expected[16:32, 32:48] = expected[112:128, 176:192] = True
    np.testing.assert_array_equal(found.unreadable, expected)
    np.testing.assert_array_equal(found.mask, expected)
    assert (found.thumbnail[expected] == 0).all()
    assert (found.thumbnail[~expected] > 230).all()


@pytest.mark.slow
def test_damage_spares_the_tissue_around_it(tmp_path: Path) -> None:
    whole = sf.make_slide(tmp_path / "a.svs", width=3000, height=2400, mpp=0.5, downsamples=(1,))
    before, after = find_tissue(Slide(whole)), find_tissue(Slide(sf.damage_tiles(whole, [(5, 4)])))
    assert after.unreadable.any()
    near = ndimage.binary_dilation(after.unreadable, iterations=4)
    np.testing.assert_array_equal(after.mask[~near], before.mask[~near])


@pytest.mark.parametrize(
    "tint", [(1.0, 1.0, 1.0), (1.0, 0.93, 0.78), (0.95, 0.92, 1.0)], ids=["white", "amber", "lilac"]
)
def test_tinted_glass_of_a_small_scanned_part(tmp_path: Path, tint: tuple[float, float, float]) -> None:
    """It is a hundredth of the slide, the rest of which was not scanned and is white."""
    scene = (sf.make_pixels("tissue", 240, 200, seed=3, mpp=8.0) * np.array(tint)).clip(0, 255).astype(np.uint8)
    masks = []
    for scale in (1, 8):
        pixels = np.full((200 * scale, 240 * scale, 3), 255, np.uint8)
        pixels[:200, :240] = scene
        boxes = [(0, 0, 240, 200)]
        path = make_czi_slide(tmp_path / f"{scale}.czi", pixels, mpp=4.0, scenes=boxes, downsamples=(1,))
        masks.append(find_tissue(Slide(path), ALL).mask)
    alone, beside = masks
    assert beside.shape == (8 * alone.shape[0], 8 * alone.shape[1])
    assert 0.1 < alone.mean() < 0.6
    assert (beside[: alone.shape[0], : alone.shape[1]] != alone).mean() < 0.01
    assert beside.sum() == beside[: alone.shape[0], : alone.shape[1]].sum()


@pytest.mark.parametrize("tint", [(1.0, 0.93, 0.78), (0.8, 0.8, 0.8)], ids=["amber", "grey"])
def test_densities_are_measured_against_the_glass_of_the_scanned_part(
    tmp_path: Path, tint: tuple[float, float, float]
) -> None:
    """Against the white of what was not scanned, tissue on amber glass has the colour of ink."""
    scene = sf.make_pixels("tissue", 1200, 1000, seed=3, mpp=2.0)[150:850, 250:950] * np.array(tint)
    pixels = np.full((2000, 2000, 3), 255, np.uint8)
    pixels[:700, :700] = scene.clip(0, 255).astype(np.uint8)
    path = make_czi_slide(tmp_path / "a.czi", pixels, mpp=2.0, scenes=[(0, 0, 700, 700)], downsamples=(1,))
    found = find_tissue(Slide(path), ALL)
    assert np.abs(np.subtract(found.glass[0], np.array(tint) * 243)).max() < 4
    assert drop_artefacts(found, found.pixel_l0_px * 2.0).mask.sum() == found.mask.sum() > 0


def test_finding_tissue_leaves_no_tiles_behind(tmp_path: Path) -> None:
    """They take as much memory as the masks, and what is read next is at the top of the slide, or on another level."""
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=600, height=400, mpp=0.5))
    patch = slide.read_region(0, (0, 0), (300, 300))
    assert slide.direct._tiff is not None
    cache = slide.direct._tiff._cache
    assert cache._tiles
    find_tissue(slide)
    assert not cache._tiles
    assert slide.read_region(0, (0, 0), (300, 300)) == patch


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), most_px=st.integers(0, 12))
def test_small_objects_are_those_of_skimage(seed: int, share: float, most_px: int) -> None:
    """In strips of a few rows, so that objects lie in several."""
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 40, 2)) < share
    with mock.patch("pipeline.slides.glass.STRIP_PX", 60):
        np.testing.assert_array_equal(without_small(mask, most_px), remove_small_objects(mask, max_size=most_px))


def test_a_slide_is_closed_when_it_is_dropped(tmp_path: Path) -> None:
    """Not when Python next looks for cycles: until then each would hold its tiles, 64 MB."""
    slide = Slide(sf.make_slide(tmp_path / "a.svs", width=600, height=400, mpp=0.5))
    gc.collect()
    gc.disable()
    try:
        find_tissue(slide)
        dropped = weakref.ref(slide)
        del slide
        assert dropped() is None
    finally:
        gc.enable()


# Tinted glass


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS.keys())
def test_tissue_on_tinted_glass_is_that_on_white_glass(stained: np.ndarray, tint: tuple[int, int, int]) -> None:
    white, found = segment(stained, 8.0), segment(on_glass(stained, tint), 8.0)
    assert 0.1 < white.mean() < 0.7
    assert white[STROMA].mean() > 0.95
    assert (white & found).sum() / (white | found).sum() > 0.99


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS.keys())
def test_blank_tinted_glass_has_no_tissue(tint: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (120, 160, 3))
    blank = on_glass(np.full((120, 160, 3), GLASS, np.uint8), tint)
    assert not segment((blank + noise).clip(0, 255).astype(np.uint8), 8.0).any()


def test_white_fill_beside_tinted_glass(stained: np.ndarray) -> None:
    """Half of the picture was never scanned and is filled with white: neither that nor the glass is tissue."""
    image = on_glass(stained, TINTS["cream"])
    white = segment(stained, 8.0)
    image[:, image.shape[1] // 2 :] = 255
    white[:, image.shape[1] // 2 :] = False
    found = segment(image, 8.0)
    assert found[STROMA].mean() > 0.95
    assert (white & found).sum() / (white | found).sum() > 0.9
    assert not found[:, image.shape[1] // 2 + 4 :].any()


@pytest.fixture(scope="module")
def tissue_all_over() -> np.ndarray:
    return np.asarray(Image.fromarray(sf.make_pixels("tissue", 4000, 4000, mpp=0.5)[1300:2700, 1300:2700]).reduce(16))


@pytest.mark.parametrize("tint", [GLASS, *TINTS.values()])
def test_a_slide_that_is_tissue_all_over(tissue_all_over: np.ndarray, tint: tuple[int, int, int]) -> None:
    """It has no glass to go by: nothing of it is taken for glass."""
    assert segment(on_glass(tissue_all_over, tint), 8.0).mean() > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("tint", ["cream", "bluish"])
def test_a_slide_on_tinted_glass(tmp_path: Path, tint: str) -> None:
    """Through JPEG and OpenSlide."""
    pixels = sf.make_pixels("tissue", 2400, 2000, seed=1, mpp=0.5)
    white = find_tissue(Slide(sf.write_slide(tmp_path / "white.svs", pixels, mpp=0.5)))
    tinted = find_tissue(Slide(sf.write_slide(tmp_path / "tinted.svs", on_glass(pixels, TINTS[tint]), mpp=0.5)))
    assert (white.mask & tinted.mask).sum() / (white.mask | tinted.mask).sum() > 0.95


@pytest.mark.parametrize("deviation", [0, 3, 6])
@pytest.mark.parametrize("tint", BACKGROUNDS.values(), ids=BACKGROUNDS.keys())
def test_small_tissue_on_noisy_tinted_glass(tint: tuple[int, int, int], deviation: float) -> None:
    """Found where it is; without it the slide has none."""
    blank = np.full((120, 120, 3), GLASS, np.uint8)
    with_box = painted((40, 50, 40, 30), side=120)
    with_box[50:80, 40:80] -= np.random.default_rng(1).integers(0, 40, (30, 40, 1), np.uint8)
    assert not segment(with_noise(on_glass(blank, tint), deviation), 8.0).any()
    found = segment(with_noise(on_glass(with_box, tint), deviation), 8.0)
    truth = (with_box != GLASS).any(axis=2)
    assert (found & truth).sum() / (found | truth).sum() > 0.9


@pytest.mark.parametrize("tint", ["bluish grey", "amber"])
def test_tissue_all_over_on_such_glass(tissue_all_over: np.ndarray, tint: str) -> None:
    assert segment(on_glass(tissue_all_over, BACKGROUNDS[tint]), 8.0).mean() > 0.98


def test_noisy_glass_beside_white_fill() -> None:
    """The fill is glass that `find_glass` finds; the noisy glass is still looked for."""
    image = with_noise(np.full((120, 120, 3), BACKGROUNDS["amber"], np.uint8), 5)
    image[:, :60] = 255
    assert not segment(image, 8.0).any()


# Slides that were scanned in part


@pytest.mark.slow
def test_nothing_counts_outside_of_the_bounds(tmp_path: Path) -> None:
    """Neither colour nor damage."""
    whole = sf.make_slide(tmp_path / "a.svs", width=1600, height=1280, mpp=0.5, downsamples=(1,))
    slide = Slide(sf.damage_tiles(whole, [(3, 2), (0, 0)]))
    everywhere = find_tissue(slide)
    slide.info = replace(slide.info, bounds_l0_px=(640, 480, 512, 320))
    found = find_tissue(slide)
    inside = np.zeros_like(found.mask)
    inside[30:50, 40:72] = True
    assert everywhere.mask[~inside].any()
    np.testing.assert_array_equal(found.mask, everywhere.mask & inside)
    np.testing.assert_array_equal(found.unreadable, everywhere.unreadable & inside)
    assert found.unreadable.any()


def test_tissue_of_a_sparse_scan(tmp_path: Path) -> None:
    """The scanned area is a small part of the block that is read; it must not be taken for empty."""
    scanned = (500, 300, 1000, 700)
    path = sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=scanned, width=3000, height=3000, seed=1)
    found = find_tissue(Slide(path))
    inside = np.zeros_like(found.mask)
    inside[300 // 16 : 1000 // 16 + 1, 500 // 16 : 1500 // 16 + 1] = True
    assert found.mask[inside].mean() > 0.15
    assert not found.mask[~inside].any()
    assert (found.thumbnail[:15, :25] == 255).all()  # never scanned: the slide's background
    truth = (np.ptp(sf.make_pixels("tissue", 1000, 700, seed=1, mpp=0.5).astype(int), axis=2) > 20).mean()
    assert found.mask.sum() * 16**2 / 700_000 == pytest.approx(truth, rel=0.15)


# Kinds of slides, by all rules that are on


ALL = rules_in_use([], [])
HE, FAINT, BROWN, COUNTERSTAIN = (215, 140, 185), (238, 221, 230), (120, 75, 45), (212, 220, 232)
PIECE = piece(100, 130, 60, 90)


def found_by_all(image: np.ndarray) -> np.ndarray:
    return segment(image, 8.0, rules=ALL)


def test_faint_eosin_on_clean_glass() -> None:
    image = stain(glass(), PIECE, FAINT, 0.25)
    assert overlap(found_by_all(image), PIECE) > 0.95
    assert overlap(segment(image, 8.0), PIECE) < 0.5  # as earlier versions did


def test_faint_eosin_beside_dark_nuclei() -> None:
    dark = piece(100, 80, 30, 30) & PIECE
    image = stain(stain(glass(), PIECE, FAINT), dark, (150, 80, 160))
    assert overlap(found_by_all(image), PIECE) > 0.9
    assert overlap(segment(image, 8.0), PIECE) < 0.5


@pytest.mark.parametrize("strength", [0.13, 0.15, 0.16, 0.17, 0.18, 0.2, 0.24])
def test_pale_tissue_of_any_strength_beside_dark_tissue(strength: float) -> None:
    """Also where it is half above the threshold of the dark tissue, and neither half is solid."""
    rng, pale, dark = np.random.default_rng(0), piece(120, 110, 80, 80), piece(120, 235, 35, 25)
    eosin, haematoxylin = np.array([0.2, 0.9, 0.3]), np.array([0.65, 0.70, 0.29])
    amounts = np.exp(0.25 * rng.normal(size=PIECE.shape) + ndimage.gaussian_filter(rng.normal(size=PIECE.shape), 4))
    density = (pale * strength * amounts)[..., None] * eosin
    density += (dark * amounts)[..., None] * (0.6 * haematoxylin + 0.5 * eosin)
    image = (glass() * np.exp(-density)).round().astype(np.uint8)
    assert overlap(found_by_all(image), pale | dark) > 0.95


def test_brown_and_its_counterstain() -> None:
    brown = piece(100, 160, 25, 30) & PIECE
    image = stain(stain(glass(), PIECE, COUNTERSTAIN), brown, BROWN)
    found = found_by_all(image)
    assert found[ndimage.binary_erosion(brown, iterations=4)].all()
    assert overlap(found, PIECE) > 0.9
    assert overlap(segment(image, 8.0), PIECE) < 0.8
    strong = stain(glass(), PIECE, (80, 45, 25), 0.2)
    assert overlap(found_by_all(strong), PIECE) > 0.98


@pytest.mark.parametrize("brown", [False, True], ids=["negative", "positive in part"])
@pytest.mark.parametrize("colour", [(226, 225, 234), (224, 222, 233), (220, 219, 232), (205, 203, 226)], ids=str)
def test_an_even_counterstain_is_no_second_glass(colour: tuple[int, int, int], brown: bool) -> None:
    """Its smooth places are; beside clear glass, and where it is everywhere."""
    for where in (PIECE, np.ones_like(PIECE)):
        image = stain(glass(), where, colour, 0.2)
        image = stain(image, piece(100, 160, 25, 30), BROWN) if brown else image
        assert overlap(found_by_all(image), where) > 0.95


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("tint", [(230, 200, 140), (240, 228, 205)], ids=["amber", "cream"])
def test_yellowed_glass_that_is_mottled_is_glass(tint: tuple[int, int, int], scale: int) -> None:
    """Uneven as a counterstain is: by its colour it is none."""
    mottle = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=PIECE.shape), scale)
    image = glass(tint, 3) + (2.25 / mottle.std() * mottle)[..., None]
    image = stain(image.clip(0, 255).astype(np.uint8), piece(100, 150, 60, 60), HE)
    for white_px in (0, 60):
        image[:, :white_px] = 255
        found = found_by_all(image)
        assert not found[:20].any()
        assert overlap(found[:, 64:], piece(100, 150, 60, 60)[:, 64:]) > 0.9


@pytest.mark.parametrize("noise", [0.5, 3, 6])
@pytest.mark.parametrize("tint", [(200, 215, 240), (230, 200, 140), (215, 235, 215)], ids=["blue", "amber", "green"])
def test_tinted_glass_beside_white_is_glass(tint: tuple[int, int, int], noise: float) -> None:
    """However noisy it is, and if its tint changes across the slide."""
    image = glass(tint, noise) + np.linspace(-8, 8, PIECE.shape[1])[None, :, None]
    image = stain(image.clip(0, 255).astype(np.uint8), piece(100, 150, 60, 60), HE)
    image[:, :60] = 255
    assert not found_by_all(image)[:20].any()
    assert overlap(found_by_all(image)[:, 64:], piece(100, 150, 60, 60)[:, 64:]) > 0.9


@pytest.mark.parametrize(
    "tint", [*BACKGROUNDS.values(), *TINTS.values(), (120, 120, 125)], ids=[*BACKGROUNDS, *TINTS, "dark grey"]
)
def test_tissue_on_glass_of_any_tint(tint: tuple[int, int, int]) -> None:
    assert overlap(found_by_all(stain(glass(tint), PIECE, HE)), PIECE) > 0.95
    assert not found_by_all(glass(tint)).any()


def test_no_background_at_all() -> None:
    everywhere = np.ones_like(PIECE)
    assert found_by_all(stain(glass(), everywhere, HE)).mean() > 0.98
    two = stain(stain(glass(), everywhere, FAINT), PIECE, HE)
    assert found_by_all(two).mean() > 0.95


def test_several_pieces() -> None:
    pieces = piece(60, 60, 40, 35, 1) | piece(130, 190, 40, 40, 2) | piece(160, 60, 20, 30, 3)
    found = found_by_all(stain(glass(), pieces, HE))
    assert overlap(found, pieces) > 0.95
    assert ndimage.label(found)[1] == ndimage.label(pieces)[1]


@pytest.mark.parametrize("level", [0, 30, 50, 70, 90])
def test_a_dark_border_is_no_tissue(level: int) -> None:
    """In dark grey, noise has a strong saturation; the tissue touches the border."""
    frame = np.ones_like(PIECE)
    frame[20:-16, 40:-8] = False
    image = stain(glass(), PIECE, HE)
    image[frame] = (level + np.random.default_rng(0).normal(0, 4, (frame.sum(), 3))).clip(0, 255)
    found = look_for_tissue(image, 8.0, np.zeros_like(PIECE), ALL)
    assert overlap(found.mask, PIECE & ~ndimage.binary_dilation(frame, np.ones((7, 7)))) > 0.98
    assert (found.reasons[frame] == reason_of("border")).mean() > 0.99


@pytest.mark.parametrize("colour", [(255, 255, 255), (128, 128, 128), (0, 0, 0), PINK, (120, 75, 45)], ids=str)
def test_a_slide_of_one_colour_has_no_tissue(colour: tuple[int, int, int]) -> None:
    assert not found_by_all(np.full((60, 80, 3), colour, np.uint8)).any()


def test_grey_tissue_where_there_is_no_other() -> None:
    grey = stain(glass(noise=0), PIECE, (170, 170, 170)).mean(axis=2, keepdims=True)
    image = grey.repeat(3, axis=2).astype(np.uint8)
    assert overlap(found_by_all(image), PIECE) > 0.95
    assert not segment(image, 8.0, rules=[rule for rule in ALL if rule != "grey"]).any()
    beside = image.copy()
    beside[:40, :60] = stain(glass()[:40, :60], np.ones((40, 60), bool), HE)
    assert not found_by_all(beside)[60:].any()  # shadows and dust of a stained slide stay out


def test_haze_beside_tissue() -> None:
    """Stain that ran out over the glass: pale, and without texture."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    density = np.exp(-((rows - 40) ** 2 + (columns - 200) ** 2) / 1500)
    image = (stain(glass(), PIECE, HE) * (1 - density[..., None] * (0.02, 0.12, 0.05))).astype(np.uint8)
    found = look_for_tissue(image, 8.0, np.zeros_like(PIECE), ALL)
    assert overlap(found.mask, PIECE) > 0.95
    assert (found.reasons == reason_of("haze")).sum() > 1000


def test_reasons_are_where_there_is_no_tissue() -> None:
    """And specks say so."""
    image = stain(glass(), PIECE | piece(20, 20, 6, 6), HE)
    image[95:98, 120:123] = 10  # within tissue: a hole that is filled
    found = look_for_tissue(image, 8.0, np.zeros_like(PIECE), ALL)
    assert not found.reasons[found.mask].any()
    assert found.mask[95:98, 120:123].all()
    assert set(np.unique(found.reasons[:40, :40]).tolist()) == {0, reason_of("specks")}
    assert segment(image, 8.0, rules=[rule for rule in ALL if rule != "specks"])[20, 20]
    assert not segment(image, 8.0, rules=ALL)[20, 20]


@pytest.mark.slow
def test_the_scale_of_a_slide_does_not_move_the_contour(tmp_path: Path) -> None:
    """The same tissue at other um/px of level 0: contours are within two pixels of the thumbnail."""
    pixels = sf.make_pixels("tissue", 3200, 2560, seed=1, mpp=0.5)
    whole = Image.fromarray(pixels)
    masks = {}
    for mpp in (0.5, 0.625, 0.8, 1.0):
        size = (round(3200 * 0.5 / mpp), round(2560 * 0.5 / mpp))
        scaled = np.asarray(whole.resize(size, Image.Resampling.BOX))
        found = find_tissue(Slide(sf.write_slide(tmp_path / f"{mpp}.svs", scaled, mpp=mpp)), ALL)
        at_8 = Image.fromarray(found.mask).resize((200, 160), Image.Resampling.NEAREST)
        masks[mpp] = np.asarray(at_8)
    reference = masks[0.5]
    near = ndimage.binary_dilation(reference, iterations=2) & ~ndimage.binary_erosion(reference, iterations=2)
    assert 0.1 < reference.mean() < 0.9
    for mpp, mask in masks.items():
        assert not ((mask != reference) & ~near).any(), mpp


def test_black_and_glass_are_not_like_tissue() -> None:
    """Of a frame, a black mark and a pen's stroke on a slide with tissue: the rim beside the frame, and the stroke."""
    image = stain(glass(), PIECE, HE)
    rng = np.random.default_rng(4)
    image[:60] = rng.normal(60, 4, (60, WIDTH, 3)).round()
    image[180:190, 20:40] = rng.normal(20, 4, (10, 20, 3)).round().clip(0, 255)
    image[100:104, 60:160] = (30, 4, 30)  # dark, and with a colour
    found = look_for_tissue(image, 8.0, np.zeros_like(PIECE), ALL)
    mask = TissueMask(found.mask, 1.0, np.zeros_like(PIECE), image, found.reasons, tuple(found.glass), ALL)
    like = like_tissue(mask, 8.0)
    rim = (found.reasons == reason_of("border")) & (np.arange(HEIGHT) >= 60)[:, None]
    assert rim.any()
    assert like[rim & ndimage.binary_erosion(PIECE, iterations=3)].all()
    assert not like[rim & ~ndimage.binary_dilation(PIECE, iterations=3)].any()
    assert not like[:60].any()
    assert not like[180:190, 20:40].any()
    assert like[(found.reasons == reason_of("dark")) & (np.arange(HEIGHT) < 110)[:, None]].all()
    assert not like[found.mask].any()
    assert not like_tissue(replace(mask, reasons=None), 8.0).any()


# Properties over many made-up slides


INKS = ((1.3, 0.45, 0.6), (1.6, 1.05, 0.35), (0.1, 1.6, 1.55), (1.2, 1.35, 1.25))
DARK = (150, 80, 160)
SQUARES_PX = 210
"""Whole in patches of 14 mask pixels, and in the squares in which blur (6) and the background (5) are judged."""


def made_up_slide(seed: int, kinds: tuple[tuple[int, int, int], ...], *, one_kind: bool = False) -> np.ndarray:
    """One to three pieces of tissue of these stains, or all of one of them."""
    rng = np.random.default_rng(seed)
    image, kind = glass(noise=rng.uniform(0, 1.5)), rng.integers(len(kinds))
    covered = np.zeros_like(PIECE)
    for number in range(rng.integers(1, 4)):
        place = rng.uniform(40, 160), rng.uniform(40, 220), *rng.uniform(25, 60, 2)
        where = piece(*place, seed * 10 + number) & ~(covered & one_kind)
        kind = kind if one_kind else rng.integers(len(kinds))
        image = stain(image, where, kinds[kind], rng.uniform(0.2, 0.5), seed * 10 + number)
        covered |= where
    return image


def with_pen_and_border(image: np.ndarray, seed: int) -> np.ndarray:
    """Of some slides ink across the middle, and a dark border."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.5:
        across = stroke(image.shape[:2], rng.uniform(6, 20))[..., None]
        image = (image * np.exp(-1.0 * across * np.array(INKS[rng.integers(len(INKS))]))).round().astype(np.uint8)
    if rng.random() < 0.4:
        image[: rng.integers(10, 30)] = 50
    return image


def found_with_artefacts(image: np.ndarray, pixel_um: float = 8.0) -> TissueMask:
    """By the rules that are on."""
    nothing = np.zeros(image.shape[:2], bool)
    found = look_for_tissue(image, pixel_um, nothing, ALL)
    mask = TissueMask(found.mask, 1.0, nothing, image, found.reasons, tuple(found.glass), ALL)
    return drop_artefacts(mask, pixel_um)


def check_that_a_turn_turns_all(seed: int) -> None:
    """Four turns, and those of the mirror image."""
    image = with_pen_and_border(made_up_slide(seed, (HE, FAINT, BROWN, COUNTERSTAIN, DARK)), seed)
    image = np.pad(image, ((0, 2 * SQUARES_PX), (0, 2 * SQUARES_PX), (0, 0)), mode="symmetric")
    image = image[:SQUARES_PX, : SQUARES_PX * (1 + seed % 2)]
    first = found_with_artefacts(image)
    for turns, mirror in itertools.product(range(4), (False, True)):

        def turned(values: np.ndarray, turns: int = turns, mirror: bool = mirror) -> np.ndarray:
            return np.rot90(values[:, ::-1] if mirror else values, turns).copy()

        second = found_with_artefacts(turned(image))
        assume(first.glass == second.glass)  # rounded sums: of a pixel at the bound of smooth glass, once in 150 slides
        assert first.reasons is not None
        assert second.reasons is not None
        np.testing.assert_array_equal(turned(first.mask), second.mask)
        np.testing.assert_array_equal(turned(first.reasons), second.reasons)


def check_that_scale_moves_no_contour(seed: int, pixels_um: tuple[float, ...]) -> None:
    """At most one pixel in 1,000 is farther than two pixels of the coarser thumbnail from the contour: where a strand
    or a hole is as small as what is dropped or filled.
    """
    image = Image.fromarray(made_up_slide(seed, (HE, BROWN, DARK), one_kind=True))
    fine = image.resize((4 * WIDTH, 4 * HEIGHT), Image.Resampling.BICUBIC)
    reference = found_with_artefacts(np.asarray(image)).mask
    edge = np.pad(reference, 1, mode="edge")
    inside, outside = (ndimage.distance_transform_cdt(each)[1:-1, 1:-1] for each in (edge, ~edge))
    distance = np.where(reference, inside, outside)
    for pixel_um in pixels_um:
        size = (round(WIDTH * 8 / pixel_um), round(HEIGHT * 8 / pixel_um))
        found = found_with_artefacts(np.asarray(fine.resize(size, Image.Resampling.BOX)), pixel_um)
        mask = np.asarray(Image.fromarray(found.mask).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
        moved = distance[mask != reference]
        assert (moved > np.ceil(2 * max(pixel_um, 8) / 8)).sum() <= reference.size / 1000, pixel_um


@settings(max_examples=3)
@given(seed=st.integers(0, 10**6))
def test_a_slide_that_is_turned_or_mirrored_has_its_tissue_turned(seed: int) -> None:
    check_that_a_turn_turns_all(seed)


@pytest.mark.slow
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_many_slides_that_are_turned_or_mirrored(seed: int) -> None:
    check_that_a_turn_turns_all(seed)


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6), pixel_um=st.sampled_from([5.5, 6.5, 7.2, 8.9, 10.5]))
def test_scale_does_not_move_the_contour(seed: int, pixel_um: float) -> None:
    check_that_scale_moves_no_contour(seed, (pixel_um,))


@pytest.mark.slow
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_scale_does_not_move_many_contours(seed: int) -> None:
    check_that_scale_moves_no_contour(seed, (5.5, 6.5, 7.2, 8.9, 10.5))
