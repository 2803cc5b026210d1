"""Folds are found where tissue is alike on both sides; strands of cells are not, whatever the direction."""

import numpy as np
import pytest
from scipy import ndimage
from support.artefacts import PIXEL_UM, Section

from pipeline.slides.artefacts import folds
from pipeline.slides.artefacts.folds import find_folds


def strip(section: Section, angle: float, width_um: float) -> np.ndarray:
    """A strip through the middle of the tissue, 1.6 mm long."""
    rows, columns = np.ogrid[: section.tissue.shape[0], : section.tissue.shape[1]]
    y, x = rows - section.tissue.shape[0] / 2, columns - section.tissue.shape[1] / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray((np.abs(across) * PIXEL_UM <= width_um / 2) & (np.abs(along) <= 100))


def folded(section: Section, where: np.ndarray) -> Section:
    """Twice the density there: the square of the light that passes."""
    light = section.image / 243
    return section.with_image(243 * np.where(where[..., None], light * np.roll(light, 30, axis=0), light))


@pytest.mark.parametrize("angle", [0.0, 0.2, 0.8, np.pi / 2, 2.5])
@pytest.mark.parametrize("width_um", [60, 150, 250])
def test_a_fold_is_found(section: Section, angle: float, width_um: float) -> None:
    where = strip(section, angle, width_um)
    found = find_folds(*folded(section, where).arguments())
    assert found[where].mean() > 0.8
    assert found[~ndimage.binary_dilation(where, np.ones((13, 13)))].mean() < 0.002


@pytest.mark.parametrize("angle", [0.0, 0.6, 1.7])
@pytest.mark.parametrize("width_um", [32, 48])
def test_a_narrow_fold_is_found(section: Section, angle: float, width_um: float) -> None:
    where = strip(section, angle, width_um)
    found = find_folds(*folded(section, where).arguments())
    assert found[where].mean() > 0.9
    assert found[~ndimage.binary_dilation(where, np.ones((13, 13)))].mean() < 0.002


def test_a_short_dense_place_is_no_fold(section: Section) -> None:
    rows, columns = np.ogrid[: section.tissue.shape[0], : section.tissue.shape[1]]
    where = np.hypot(rows - 190, columns - 240) * PIXEL_UM < 36
    assert not find_folds(*folded(section, where).arguments()).any()


def test_clean_tissue_has_none(section: Section, brown_section: Section) -> None:
    assert not find_folds(*section.arguments()).any()
    assert not find_folds(*brown_section.arguments()).any()


def test_a_strand_of_cells_is_no_fold(section: Section) -> None:
    """As dense as a fold, and of haematoxylin."""
    where = strip(section, 0.4, 120)
    more = section.inked((0.65, 0.70, 0.29), where)
    assert not find_folds(*more.arguments()).any()


def test_the_edge_between_pale_and_dense_tissue_is_no_fold(section: Section) -> None:
    where = np.zeros(section.tissue.shape, bool)
    where[:, 240:] = True
    light = section.image / 243
    denser = section.with_image(243 * np.where(where[..., None], light**2, light))
    assert find_folds(*denser.arguments()).mean() < 0.001


def test_a_slide_that_is_turned_gives_the_same_turned_but_for_its_rims(section: Section) -> None:
    other = folded(section, strip(section, 0.3, 120))
    found = find_folds(*other.arguments())
    assert (find_folds(*other.turned().arguments()) ^ np.rot90(found)).sum() < 0.1 * found.sum()


def test_small_images(section: Section) -> None:
    for shape in ((0, 0), (1, 1), (5, 3)):
        image, tissue = section.image[: shape[0], : shape[1]], section.tissue[: shape[0], : shape[1]]
        assert not find_folds(image, PIXEL_UM, tissue, ~tissue, []).any()


def test_a_dense_rim_that_fades_is_no_fold(section: Section) -> None:
    """As on many sections: twice as dense at the edge, as usual 300 um further in."""
    depth = ndimage.distance_transform_edt(section.tissue) * PIXEL_UM
    light = section.image / 243
    rim = section.with_image(243 * light ** (1 + np.clip(1 - depth / 300, 0, 1)[..., None]))
    assert find_folds(*rim.arguments())[section.tissue].mean() < 0.002


@pytest.mark.parametrize("angle", [0.0, 0.8, 2.5])
def test_a_dense_rim_that_a_fold_runs_into_is_kept(
    section: Section, angle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are one part along lines, and steep enough in the mean."""
    monkeypatch.setattr(folds, "_by_squares", lambda image, pixel_um, judged, glass: np.zeros_like(judged))
    where = strip(section, angle, 120)
    rows, columns = np.ogrid[: section.tissue.shape[0], : section.tissue.shape[1]]
    y, x = rows - section.tissue.shape[0] / 2, columns - section.tissue.shape[1] / 2
    second = x * np.cos(angle) + y * np.sin(angle) > 15
    light = section.image / 243
    power = np.where(where, np.where(second, 1.58, 2.6), 1.0)[..., None]
    both = section.with_image(243 * light**power)
    found = find_folds(*both.arguments())
    assert found[where & ~second].mean() > 0.8
    assert found[where & second].mean() < 0.5
    monkeypatch.setattr(folds, "LEAST_FADING_UM2", np.inf)
    assert find_folds(*both.arguments())[where & second].mean() > 0.75


def test_a_wide_area_is_no_fold(section: Section) -> None:
    where = strip(section, 0.3, 700)
    assert not find_folds(*folded(section, where).arguments()).any()


def test_a_fold_through_two_kinds_of_tissue_is_found(section: Section) -> None:
    """One half with much haematoxylin and as dense as a fold of the other."""
    half = np.zeros(section.tissue.shape, bool)
    half[:, 240:] = True
    two = section.inked((0.52, 0.56, 0.23), half & section.tissue)
    where = strip(section, 0.1, 150)
    found = find_folds(*folded(two, where).arguments())
    assert found[where].mean() > 0.75
    assert found[~ndimage.binary_dilation(where, np.ones((13, 13)))].mean() < 0.005
