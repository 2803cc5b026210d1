"""Pen of four colours is found on glass and over tissue, of H&E and of DAB; stains are not pen."""

from typing import Any

import numpy as np
import pytest
from support.artefacts import GLASS, Section, stained_section, stroke

from pipeline.slides.artefacts.pen import find_pen

INKS = {"black": (1.4, 1.4, 1.4), "blue": (1.8, 1.1, 0.35), "green": (1.4, 0.45, 0.65), "red": (0.1, 1.6, 1.7)}


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("kind", ["section", "brown_section"])
def test_ink_is_found_on_glass_and_over_tissue(ink: str, kind: str, request: Any) -> None:
    clean: Section = request.getfixturevalue(kind)
    where = stroke(clean.tissue.shape, 60)
    inked = clean.inked(INKS[ink], where)
    found = find_pen(*inked.arguments())
    visible = where & inked.known  # black ink over dark tissue is black: no tissue anyway
    assert found[visible & clean.tissue].mean() > 0.98
    assert found[visible & ~clean.tissue].mean() > 0.98
    assert found[clean.tissue & ~stroke(clean.tissue.shape, 72)].mean() < 0.01


@pytest.mark.parametrize("kind", ["section", "brown_section"])
def test_no_stain_is_ink(kind: str, request: Any) -> None:
    clean: Section = request.getfixturevalue(kind)
    for strength in (0.3, 1.0, 2.0):  # pale and strong
        glass = np.array(clean.glass[0])
        other = clean.with_image(glass * (np.maximum(clean.image, 1) / glass) ** strength)
        assert not find_pen(*other.arguments()).any(), strength


def test_haematoxylin_alone_is_not_ink(section: Section) -> None:
    glass = np.array(section.glass[0])
    amount = -np.log(section.image[..., 1] / glass[1])[..., None]
    blue = section.with_image(glass * np.exp(-amount * np.array([0.95, 0.9, 0.4])))
    assert find_pen(*blue.arguments())[section.tissue].mean() < 0.01


@pytest.mark.parametrize("eosin", [(0.216, 0.80, 0.558), (0.2, 0.9, 0.3)])
@pytest.mark.parametrize("amounts", [(1.2, 0.25), (1.2, 0.45), (0.8, 0.2)])
def test_crowded_nuclei_of_a_blue_scan_are_not_ink(eosin: tuple[float, ...], amounts: tuple[float, float]) -> None:
    """Follicles in a section that is mostly eosin, so that the band of its stains holds no haematoxylin. As blue as the
    bluest that was measured: more red than green absorbed, beside blue.
    """
    stains = np.array([(0.713, 0.613, 0.34), eosin])
    clean = stained_section(stains * [[0.2], [1.0]])
    follicles = stroke(clean.tissue.shape, 50) & clean.tissue
    rng = np.random.default_rng(0)
    each = np.array(amounts) * np.exp(0.15 * rng.normal(size=(*clean.tissue.shape, 2)))
    crowded = GLASS * np.exp(-(each @ stains))
    seen = clean.with_image(np.where(follicles[..., None], crowded, clean.image))
    assert find_pen(*seen.arguments())[clean.tissue].mean() < 0.005


def test_a_slide_that_is_turned_gives_the_same_turned(section: Section) -> None:
    inked = section.inked(INKS["green"], stroke(section.tissue.shape, 50))
    turned = find_pen(*inked.turned().arguments())
    np.testing.assert_array_equal(turned, np.rot90(find_pen(*inked.arguments())))


def test_specks_are_left(section: Section) -> None:
    where = np.zeros(section.tissue.shape, bool)
    where[200:206, 200:206] = True
    assert not find_pen(*section.inked(INKS["blue"], where).arguments()).any()


def test_slides_without_anything(section: Section) -> None:
    glass, pixel_um, *_ = section.image[:1, :1], 8.0
    for shape in ((1, 1), (0, 0), (7, 1), (40, 40)):
        image, none = (
            np.broadcast_to(glass, (*shape, 3)).copy() if min(shape) else np.zeros((*shape, 3), np.uint8),
            None,
        )
        none = np.zeros(shape, bool)
        assert find_pen(image, pixel_um, none, ~none, []).shape == shape
