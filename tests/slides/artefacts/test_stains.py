"""Where a slide's stains lie, and which pixels have a colour."""

import numpy as np

from pipeline.slides.artefacts.stains import FEW_PIXELS, USUAL, look_at_stains

GLASS = [(243.0, 243.0, 243.0)]


def picture(density: tuple[float, float, float]) -> np.ndarray:
    """A square of 60 pixels of a colour of these densities, in the middle of glass of 100, with some noise."""
    image = np.full((100, 100, 3), 243.0)
    strength = np.random.default_rng(0).uniform(0.8, 1.2, (60, 60, 1))
    image[20:80, 20:80] = 243 * np.exp(-strength * np.array(density))
    return np.round(image).astype(np.uint8)


def test_the_band_is_where_the_tissue_is_and_glass_has_no_colour() -> None:
    image, density = picture((0.4, 1.0, 0.6)), np.array((0.4, 1.0, 0.6))
    tissue = np.zeros((100, 100), bool)
    tissue[20:80, 20:80] = True
    seen = look_at_stains(image, 16.0, tissue, list(GLASS))
    assert (seen.mask_of(np.ones(len(seen.places), bool)) == tissue).all()
    assert abs(seen.band.x - np.log(density[0] / density[1])) < 0.05
    assert abs(seen.band.y - np.log(density[2] / density[1])) < 0.05
    assert not seen.band.brown
    assert not seen.mask_of(np.zeros(len(seen.places), bool)).any()


def test_without_tissue_the_usual_values_stand_in() -> None:
    tissue = np.zeros((100, 100), bool)
    tissue[20, 20 : 20 + FEW_PIXELS - 1] = True
    assert look_at_stains(picture((0.4, 1.0, 0.6)), 16.0, tissue, list(GLASS)).band == USUAL


def test_brown_is_a_stain_where_much_of_the_tissue_has_it() -> None:
    tissue = np.ones((100, 100), bool)
    assert look_at_stains(picture((0.45, 0.95, 1.3)), 16.0, tissue, list(GLASS)).band.brown
