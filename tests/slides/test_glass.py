"""The colour of the glass: found however it is tinted, and never taken from tissue."""

import numpy as np
import pytest
from support.glass import BACKGROUNDS, PINK, with_noise

from pipeline.slides.glass import find_background, find_glass, saturation_against_glass
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


@pytest.mark.parametrize("deviation", [0, 3, 6])
@pytest.mark.parametrize("colour", [PINK, (140, 90, 150), (205, 130, 175)])
def test_smooth_tissue_all_over_is_no_background(colour: tuple[int, int, int], deviation: float) -> None:
    """Pink and purple of haematoxylin and eosin, without any structure to tell them by."""
    image = with_noise(np.full((120, 120, 3), colour, np.uint8), deviation)
    assert find_background(image, np.ones((120, 120), bool), []) is None
    assert segment(image, 8.0).all()
