"""Frames of scans and haze: found where they are, and not in tissue."""

import numpy as np
import pytest
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
