"""What is out of focus is found relative to the slide; contrast and stain do not matter."""

import numpy as np
import pytest
from scipy import ndimage
from support.artefacts import Section

from pipeline.slides.artefacts.focus import find_blur

WHERE = np.s_[120:280, 140:300]


def blurred(section: Section, sigma_px: float) -> Section:
    image = section.image.astype(np.float32)
    image[WHERE] = ndimage.gaussian_filter(image, (sigma_px, sigma_px, 0))[WHERE]
    return section.with_image(image)


@pytest.mark.parametrize("sigma_px", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("contrast", [0.3, 1.0])
def test_blur_is_found(section: Section, sigma_px: float, contrast: float) -> None:
    pale = section.with_image(243 - (243 - section.image.astype(float)) * contrast)
    found = find_blur(*blurred(pale, sigma_px).arguments())
    inside = np.zeros_like(found)
    inside[WHERE] = True
    assert found[inside].mean() > 0.93
    assert found[section.tissue & ~inside].mean() < 0.03


def test_sharp_slides_and_slides_blurred_all_over_have_none(section: Section) -> None:
    assert not find_blur(*section.arguments()).any()
    image = ndimage.gaussian_filter(section.image.astype(np.float32), (2, 2, 0))
    assert find_blur(*section.with_image(image).arguments()).mean() < 0.01


def test_a_slide_that_is_turned_gives_the_same_turned(section: Section) -> None:
    other = blurred(section, 2.0)
    np.testing.assert_array_equal(find_blur(*other.turned().arguments()), np.rot90(find_blur(*other.arguments())))


def test_one_colour_and_little_tissue_are_not_judged(section: Section) -> None:
    assert not find_blur(*section.with_image(np.full_like(section.image, 150)).arguments()).any()
    for shape in ((0, 0), (5, 3), (24, 24)):
        assert not find_blur(np.zeros((*shape, 3), np.uint8), 8.0, np.ones(shape, bool), np.ones(shape, bool), []).any()
