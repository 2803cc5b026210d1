"""Edges of bubbles and coverslips are found on glass and over tissue; bubbles with what is within them."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from support.artefacts import PIXEL_UM, Section

from pipeline.slides.artefacts.edges import find_edges

GREY = (0.9, 0.9, 0.9)


def line(shape: tuple[int, int], width_px: float, slope: float = 0.1) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(np.abs(rows - 190 - slope * (columns - 240)) <= width_px / 2)


def ring(shape: tuple[int, int], radius_px: float) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    radius = np.hypot(rows - 190, columns - 240)
    return np.abs(radius - radius_px) < 5, radius < radius_px


@pytest.mark.parametrize("kind", ["section", "brown_section"])
def test_a_line_is_found_on_glass_and_over_tissue(kind: str, request: Any) -> None:
    clean: Section = request.getfixturevalue(kind)
    where = line(clean.tissue.shape, 10)
    found = find_edges(*clean.inked(GREY, where).arguments())
    assert found[where & clean.tissue].mean() > 0.97
    assert found[where & ~clean.tissue].mean() > 0.97
    assert not found[~ndimage.binary_dilation(where, np.ones((13, 13)))].any()


@pytest.mark.parametrize("kind", ["section", "brown_section"])
def test_clean_tissue_pale_and_strong_has_none(kind: str, request: Any) -> None:
    clean: Section = request.getfixturevalue(kind)
    glass = np.array(clean.glass[0])
    for strength in (0.3, 1.0, 2.0):
        other = clean.with_image(glass * (np.maximum(clean.image, 1) / glass) ** strength)
        assert not find_edges(*other.arguments()).any(), strength


def test_a_bubble_is_found_with_its_inside(section: Section) -> None:
    edge, inside = ring(section.tissue.shape, 70)
    found = find_edges(*section.inked(GREY, edge).arguments())
    assert found[edge | inside].mean() > 0.99
    assert found[~(edge | inside)].mean() < 0.03


def test_of_an_open_ring_the_edge_alone_is_found(section: Section) -> None:
    edge, inside = ring(section.tissue.shape, 70)
    edge[:, 240:290] = False
    found = find_edges(*section.inked(GREY, edge).arguments())
    assert found[edge].mean() > 0.97
    assert found[inside & ~ndimage.binary_dilation(edge, np.ones((13, 13)))].mean() < 0.01


def test_short_and_wide_marks_are_no_edges(section: Section) -> None:
    shape = section.tissue.shape
    short = line(shape, 10) & (np.arange(shape[1]) > 200) & (np.arange(shape[1]) < 260)
    assert not find_edges(*section.inked(GREY, short).arguments()).any()
    block = np.zeros(shape, bool)
    block[130:250, 180:300] = True
    assert not find_edges(*section.inked(GREY, block).arguments()).any()


def test_a_slide_that_is_turned_gives_the_same_turned(section: Section) -> None:
    inked = section.inked(GREY, line(section.tissue.shape, 10))
    found = find_edges(*inked.arguments())
    np.testing.assert_array_equal(find_edges(*inked.turned().arguments()), np.rot90(found))


def test_small_images(section: Section) -> None:
    for shape in ((0, 0), (1, 1), (5, 3)):
        image, tissue = section.image[: shape[0], : shape[1]], section.tissue[: shape[0], : shape[1]]
        assert not find_edges(image, PIXEL_UM, tissue, ~tissue, []).any()
