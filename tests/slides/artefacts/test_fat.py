"""Fat and lumen are found; pale tissue is not."""

import numpy as np
from support.artefacts import Section

from pipeline.slides.artefacts.density import grown
from pipeline.slides.artefacts.fat import find_fat


def test_clear_places_are_found(section: Section) -> None:
    image = section.image.copy()
    rows, columns = np.ogrid[:384, :480]
    cells = (rows % 12 > 0) & (columns % 12 > 0)  # 88 um of fat, walls of 8 um
    place = np.zeros(section.tissue.shape, bool)
    place[120:260, 150:300] = True
    image[place & cells] = section.glass[0]
    found = find_fat(*section.with_image(image).arguments())
    assert found[130:250, 160:290].mean() > 0.98
    assert not found[section.tissue & ~grown(place, 12)].any()
    assert not (found & ~section.tissue).any()


def test_pale_tissue_is_kept(section: Section) -> None:
    pale = section.with_image(243 - (243 - section.image.astype(float)) * 0.45)
    inner = np.zeros_like(section.tissue)
    inner[100:280, 120:360] = True
    assert find_fat(*section.arguments())[inner].mean() < 0.01
    assert find_fat(*pale.arguments())[inner].mean() < 0.01


def test_small_images() -> None:
    for shape in ((0, 0), (1, 1), (5, 3)):
        assert find_fat(np.zeros((*shape, 3), np.uint8), 8.0, np.ones(shape, bool), np.ones(shape, bool), []).sum() == 0
