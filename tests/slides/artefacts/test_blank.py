"""Blank rectangles within the tissue are found; lumina and tissue of one colour are not."""

import numpy as np
import pytest
from support.artefacts import Section

from pipeline.slides.artefacts.blank import find_blank


@pytest.mark.parametrize("colour", [(255, 255, 255), (128, 128, 128), (200, 130, 170), (60, 60, 60)])
@pytest.mark.parametrize("size", [(8, 8), (16, 64)])
def test_blank_tiles_are_found(section: Section, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    image = section.image.copy()
    image[150 : 150 + size[0], 200 : 200 + size[1]] = colour
    found = find_blank(*section.with_image(image).arguments())
    assert found[150 : 150 + size[0], 200 : 200 + size[1]].all()
    assert found.sum() <= (size[0] + 2) * (size[1] + 2)


def test_lumina_and_tissue_are_left(section: Section) -> None:
    rows, columns = np.ogrid[:384, :480]
    image = section.image.copy()
    image[abs(rows - 200) + abs(columns - 240) < 20] = section.glass[0]
    image[((rows - 150) / 8) ** 2 + ((columns - 200) / 30) ** 2 < 1] = section.glass[0]
    image[60:76, 220:260] = section.glass[0]  # straight edges by chance
    assert not find_blank(*section.with_image(image).arguments()).any()


def test_unknown_pixels_are_left(section: Section) -> None:
    image = section.image.copy()
    image[150:180, 200:240] = 0
    assert not find_blank(*section.with_image(image).arguments()).any()


def test_small_images() -> None:
    for shape in ((0, 0), (1, 1), (5, 3), (1, 40)):
        assert not find_blank(
            np.full((*shape, 3), 9, np.uint8), 8.0, np.ones(shape, bool), np.ones(shape, bool), []
        ).any()
