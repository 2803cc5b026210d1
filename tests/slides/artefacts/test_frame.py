"""Frames of scans and haze: found where they are, and not in tissue."""

import numpy as np
import pytest
from scipy import ndimage
from support.stained import HEIGHT, WIDTH, glass, piece, stain

from pipeline.slides.artefacts.frame import find_border, find_haze

KNOWN = np.ones((HEIGHT, WIDTH), bool)
PIECE = piece(100, 130, 60, 90)
SATURATION = np.full((HEIGHT, WIDTH), 0.1, np.float32)


@pytest.mark.parametrize("level", [0, 40, 80])
def test_a_frame_is_found_with_its_rim(level: int) -> None:
    image = glass()
    image[:30] = level
    image[:, :10] = level
    image[30, 10:] = 150  # the row in which averaging mixes both
    found = find_border(image, image.max(axis=2), 8.0, KNOWN)
    assert found[:33].all()
    assert found[:, :13].all()
    assert not found[34:, 14:].any()


def test_what_is_dark_within_the_picture_is_no_frame() -> None:
    image = glass()
    image[50:90, 60:100] = 20
    assert not find_border(image, image.max(axis=2), 8.0, KNOWN).any()


@pytest.mark.parametrize("colour", [(90, 40, 110), (90, 60, 35)], ids=["nuclei", "DAB"])
def test_dark_tissue_at_the_edge_is_no_frame(colour: tuple[int, int, int]) -> None:
    image = stain(glass(), np.arange(WIDTH) < 80 * np.ones((HEIGHT, 1)), colour, 0.2)
    assert not find_border(image, image.max(axis=2), 8.0, KNOWN).any()


def test_only_known_pixels_are_looked_at() -> None:
    image = glass()
    image[:30] = 0
    known = KNOWN.copy()
    known[:30] = False
    assert not find_border(image, image.max(axis=2), 8.0, known).any()
    assert not find_border(image, image.max(axis=2), 8.0, ~KNOWN).any()


def test_haze_is_pale_tissue_without_texture() -> None:
    image = stain(glass(), PIECE, (225, 190, 210), 0.0)
    rows = np.arange(HEIGHT) < HEIGHT // 2
    textured = stain(glass(), PIECE, (225, 190, 210), 0.5)
    image[~rows] = textured[~rows]
    found = find_haze(image, image.max(axis=2), 8.0, PIECE, SATURATION)
    assert found[: HEIGHT // 2 - 8][PIECE[: HEIGHT // 2 - 8]].mean() > 0.9
    assert not found[HEIGHT // 2 + 8 :].any()
    assert not (found & ~PIECE).any()


def test_strong_or_small_areas_are_no_haze() -> None:
    image = stain(glass(), PIECE, (225, 190, 210), 0.0)
    assert not find_haze(image, image.max(axis=2), 8.0, PIECE, SATURATION * 3).any()
    small = piece(100, 130, 4, 4) & PIECE
    assert not find_haze(image, image.max(axis=2), 8.0, small, SATURATION).any()
    assert not find_haze(image, image.max(axis=2), 8.0, ~KNOWN, SATURATION).any()


def test_haze_reaches_to_the_tissue_that_it_lies_beside() -> None:
    """Between the teeth of a ragged edge no square of 80 um fits that sees haze alone."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    is_tissue = PIECE & (columns < 130 + 8 * (rows // 5 % 2))
    image = stain(glass(), PIECE, (225, 190, 210), 0.0)
    image[is_tissue] = stain(glass(), PIECE, (190, 120, 170), 0.5)[is_tissue]
    saturation = np.where(is_tissue, 0.4, 0.1).astype(np.float32)
    found = find_haze(image, image.max(axis=2), 8.0, PIECE, saturation)
    between = PIECE & ~is_tissue & (columns < 138)
    assert found[between].mean() > 0.45  # all but the pixels next to tissue, which see it; none by squares alone
    assert not found[is_tissue].any()
    pale = np.full_like(saturation, 0.1)  # tissue as pale as the haze is kept for its texture
    found = find_haze(image, image.max(axis=2), 8.0, PIECE, pale)
    assert found[is_tissue].mean() < 0.03


def test_pale_tissue_out_of_focus_beside_haze_is_kept() -> None:
    """It is as smooth from pixel to pixel as haze is, but not over 70 um."""
    image = stain(glass(), PIECE, (225, 190, 210), 0.0).astype(np.float64)
    is_tissue = PIECE & (np.arange(WIDTH) < 130)
    wave = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(HEIGHT, WIDTH)), 3.0)
    image[is_tissue] += (5.5 * wave / wave.std())[is_tissue, None]
    blurred = image.clip(0, 255).astype(np.uint8)
    found = find_haze(blurred, blurred.max(axis=2), 8.0, PIECE, SATURATION)
    assert found[PIECE & ~is_tissue].mean() > 0.9
    assert found[is_tissue].mean() < 0.05
