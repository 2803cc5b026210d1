"""The colour of the glass: found however it is tinted, and never taken from tissue."""

from collections.abc import Callable

import numpy as np
import pytest
from support.glass import BACKGROUNDS, PINK, TINTS, on_glass, with_noise
from support.plain_glass import plain_background, plain_glass, plain_saturation

from pipeline.slides import glass as glass_module
from pipeline.slides.glass import find_background, find_glass, saturation_against_glass, without_textured
from pipeline.slides.tissue import segment


def test_white_glass_is_as_it_was(stained: np.ndarray) -> None:
    """Saturation is the plain one: masks of usual slides do not change."""
    assert [max(colour) - min(colour) < 3 for colour in find_glass(stained, np.ones(stained.shape[:2], bool))] == [True]
    plain = np.ptp(stained.astype(np.float32), axis=2) / stained.max(axis=2)
    np.testing.assert_allclose(saturation_against_glass(stained, [(243.0, 243.0, 242.0)]), plain, rtol=1e-6)
    np.testing.assert_allclose(saturation_against_glass(stained, []), plain, rtol=1e-6)


def test_background_needs_squares_and_known_places() -> None:
    lilac = np.full((20, 20, 3), BACKGROUNDS["lilac"], np.uint8)
    assert find_background(lilac, np.ones((20, 20), bool), []) == pytest.approx(BACKGROUNDS["lilac"])
    assert find_background(lilac, np.ones((20, 20), bool), [(225.0, 212.0, 245.0)]) is None
    assert find_background(lilac, np.ones((20, 20), bool), [(255.0, 255.0, 255.0)]) is None  # there is other glass
    assert find_background(lilac, np.zeros((20, 20), bool), []) is None
    assert find_background(lilac[:4], np.ones((4, 20), bool), []) is None


def test_a_picture_smaller_than_a_square_keeps_its_glass() -> None:
    blue = (200.0, 215.0, 240.0)
    for shape in ((3, 40), (40, 3), (3, 3)):
        image, known = np.full((*shape, 3), blue, np.uint8), np.ones(shape, bool)
        assert without_textured(image, known, [blue]) == [blue]
        assert find_background(image, known, []) is None
    image = np.full((40, 40, 3), blue, np.uint8)
    assert without_textured(image, np.zeros((40, 40), bool), [blue]) == [blue]
    assert without_textured(image, np.ones((40, 40), bool), []) == []


@pytest.mark.parametrize("deviation", [0, 3, 6])
@pytest.mark.parametrize("colour", [PINK, (140, 90, 150), (205, 130, 175)])
def test_smooth_tissue_all_over_is_no_background(colour: tuple[int, int, int], deviation: float) -> None:
    """Pink and purple of haematoxylin and eosin, without any structure to tell them by."""
    image = with_noise(np.full((120, 120, 3), colour, np.uint8), deviation)
    assert find_background(image, np.ones((120, 120), bool), []) is None
    assert segment(image, 8.0).all()


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS.keys())
def test_the_glass_of_a_slide_has_its_tint(stained: np.ndarray, tint: tuple[int, int, int]) -> None:
    """And pale stroma is no second glass."""
    (glass,) = find_glass(on_glass(stained, tint), np.ones(stained.shape[:2], bool))
    assert np.abs(np.subtract(glass, tint)).max() <= 3


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS.keys())
def test_saturation_is_that_on_white_glass(stained: np.ndarray, tint: tuple[int, int, int]) -> None:
    """Light passes stain and glass in turn: dividing by the glass gives back the stain, up to whole grey levels."""
    colour = (float(tint[0]), float(tint[1]), float(tint[2]))
    found = saturation_against_glass(on_glass(stained, tint), [colour])
    white = saturation_against_glass(stained, [])
    assert found.dtype == np.float32
    if max(tint) - min(tint) > 0.1 * max(tint):
        assert np.abs(found - white).max() < 0.04
    assert 0 <= found.min() <= found.max() <= 1


def test_of_several_glasses_each_place_has_its_own() -> None:
    image = np.empty((10, 20, 3), np.uint8)
    image[:, :10], image[:, 10:] = TINTS["yellow"], TINTS["bluish"]
    glass = [(246.0, 228.0, 160.0), (205.0, 224.0, 246.0)]
    assert saturation_against_glass(image, glass).max() < 0.01
    assert saturation_against_glass(image, glass[:1])[:, 10:].min() > 0.2
    image[:, 10:] = 200  # white, if one of the glasses is
    assert saturation_against_glass(image, [glass[0], (243.0, 243.0, 242.0)]).max() < 0.01


def test_glass_is_told_by_share_and_only_among_known_places() -> None:
    image = np.empty((100, 100, 3), np.uint8)
    image[:, :70], image[:, 70:] = TINTS["cream"], TINTS["bluish"]
    everywhere = np.ones((100, 100), bool)
    assert find_glass(image, everywhere) == [TINTS["cream"], TINTS["bluish"]]
    right = everywhere.copy()
    right[:, :75] = False
    assert find_glass(image, right) == [TINTS["bluish"]]
    assert find_glass(image, np.zeros((100, 100), bool)) == []


@pytest.mark.parametrize("colour", [PINK, (120, 120, 120), (200, 60, 60)], ids=["pink", "dark", "a felt pen"])
def test_what_is_no_glass(colour: tuple[int, int, int]) -> None:
    assert find_glass(np.full((60, 60, 3), colour, np.uint8), np.ones((60, 60), bool)) == []


def test_rough_places_are_no_glass() -> None:
    noise = np.random.default_rng(0).integers(200, 256, (100, 100, 1), np.uint8).repeat(3, axis=2)
    assert find_glass(noise, np.ones((100, 100), bool)) == []


# Colours counted in strips


def two_glasses(image: np.ndarray) -> np.ndarray:
    half = image.shape[1] // 2
    return np.concatenate([on_glass(image[:, :half], TINTS["yellow"]), on_glass(image[:, half:], TINTS["bluish"])], 1)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda image: image,
    "two glasses": two_glasses,
    "unscanned": lambda image: np.where(np.arange(image.shape[1])[:, None] < 90, np.uint8(255), image),
    **{tint: lambda image, tint=tint: on_glass(image, TINTS[tint]) for tint in TINTS},  # type: ignore[misc]
    **{
        f"noisy {tint}": lambda image, tint=tint: with_noise(on_glass(image, BACKGROUNDS[tint]), 5)  # type: ignore[misc]
        for tint in BACKGROUNDS
    },
}


@pytest.mark.parametrize("strip_px", [100, 5_000, 2**18])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_counted_colours_in_strips_give_the_same(
    stained: np.ndarray, change: Callable[[np.ndarray], np.ndarray], strip_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, whatever the strips: plans stay what they are."""
    monkeypatch.setattr(glass_module, "STRIP_PX", strip_px)
    image = change(stained)
    known = np.random.default_rng(0).random(image.shape[:2]) < 0.97
    glass = find_glass(image, known)
    assert glass == plain_glass(image, known)
    assert find_background(image, known, glass) == plain_background(image, known, glass)
    np.testing.assert_array_equal(saturation_against_glass(image, glass), plain_saturation(image, glass))
    kinds = [(246.0, 228.0, 160.0), (205.0, 224.0, 246.0), (240.0, 241.0, 240.0)]
    np.testing.assert_array_equal(saturation_against_glass(image, kinds), plain_saturation(image, kinds))
