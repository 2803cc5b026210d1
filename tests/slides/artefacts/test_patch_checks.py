"""Checks of a patch: planted faults are found by their name, and tissue, however pale or smooth, is kept."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from support.planted import Rgb, blurred, tissue_patches, with_pen

from pipeline.slides.artefacts import patch_checks
from pipeline.slides.artefacts.patch_checks import (
    MOST_BLUR,
    MOST_TISSUE_PAIR_BLUR,
    PatchFault,
    SlideReference,
    build_reference,
    check_patch,
    measure_patch,
    sharpness,
)

MPP = 0.5


@pytest.fixture(scope="module")
def patches() -> list[Rgb]:
    return tissue_patches(128)[:24]


@pytest.fixture(scope="module")
def reference(patches: list[Rgb]) -> SlideReference:
    return build_reference([measure_patch(patch, MPP) for patch in patches])


def reasons(patches: list[Rgb], reference: SlideReference) -> set[str]:
    found = [check_patch(patch, MPP, reference) for patch in patches]
    return {finding.reason if finding else "good" for finding in found}


def test_tissue_is_kept(patches: list[Rgb], reference: SlideReference) -> None:
    assert reasons(patches, reference) == {"good"}


@pytest.mark.parametrize("sigma_px", [1.0, 2.0, 4.0])
def test_blur_is_out_of_focus(patches: list[Rgb], reference: SlideReference, sigma_px: float) -> None:
    assert reasons([blurred(patch, sigma_px) for patch in patches], reference) == {"out_of_focus"}


@pytest.mark.parametrize(
    "ink", [(1.5, 0.9, 0.25), (1.4, 0.5, 0.8), (0.1, 1.2, 1.0), (1.3, 1.3, 1.25)], ids=["blue", "green", "red", "black"]
)
def test_pen_over_tissue(patches: list[Rgb], reference: SlideReference, ink: tuple[float, ...]) -> None:
    found = [check_patch(with_pen(patch, ink), MPP, reference) for patch in patches]
    assert all(finding is not None and finding.reason == "pen" for finding in found)


TINTS = {"yellow": (240, 230, 180), "amber": (230, 200, 140), "green": (215, 235, 215), "blue": (198, 214, 239)}
"""Colours of glass."""


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS)
def test_tissue_on_tinted_glass_is_no_pen(tint: tuple[int, int, int]) -> None:
    """Light passes stain and glass in turn. Most patches have a little glass, as at a section's edge."""
    patches = tissue_patches(128)[:24]
    for patch in patches:
        patch[:16, :32] = np.random.default_rng(0).integers(240, 246, (16, 32, 1))
    tinted = [(patch * (np.array(tint) / 243)).clip(0, 255).astype(np.uint8) for patch in patches]
    reference = build_reference([measure_patch(patch, MPP) for patch in tinted])
    assert reasons(tinted, reference) == {"good"}
    for ink in ((1.5, 0.9, 0.25), (1.4, 0.5, 0.8), (0.1, 1.2, 1.0), (1.3, 1.3, 1.25)):
        assert reasons([with_pen(patch, ink) for patch in tinted], reference) == {"pen"}


def test_an_even_ground_without_glass_is_tissue() -> None:
    """Diffuse DAB or bluish haematoxylin, where no patch has clear glass by which to tell it from tinted glass."""
    for ground in ((224, 198, 182), (199, 208, 229)):
        rng = np.random.default_rng(0)
        even = [rng.normal(ground, 2, (128, 128, 3)).clip(0, 255).astype(np.uint8) for _ in range(12)]
        reference = build_reference([measure_patch(patch, MPP) for patch in even])
        assert any(reference.tint)
        assert "no_tissue" not in reasons(even, reference)


def test_white_glass_is_judged_as_by_earlier_rules(patches: list[Rgb], reference: SlideReference) -> None:
    assert reference == build_reference([measure_patch(patch, MPP, rules=4) for patch in patches], rules=4)
    amber = [(patch * (np.array(TINTS["amber"]) / 243)).astype(np.uint8) for patch in patches]
    measured = [measure_patch(patch, MPP) for patch in amber]
    assert any(build_reference(measured).tint)
    assert not any(build_reference(measured, rules=4).tint)  # a store that was begun by these


def test_dense_tissue_is_kept(patches: list[Rgb], reference: SlideReference) -> None:
    """Twice as dense as the slide's: crowded nuclei, or a fold, which nothing tells apart here."""
    dense = [np.asarray(255 * (patch / 255) ** 1.5).astype(np.uint8) for patch in patches]
    assert reasons(dense, reference) == {"good"}


def test_glass_and_one_colour(reference: SlideReference) -> None:
    flat = np.full((128, 128, 3), (224, 158, 192), np.uint8)
    glass = np.random.default_rng(0).integers(238, 243, (128, 128, 3)).astype(np.uint8)
    assert reasons([flat], reference) == {"one_colour"}
    assert reasons([glass], reference) == {"no_tissue"}


def test_thin_lines_on_glass_are_tissue(reference: SlideReference) -> None:
    """As in fat."""
    fat = np.random.default_rng(0).integers(238, 243, (128, 128, 3)).astype(np.uint8)
    fat[::32] = fat[:, ::32] = (200, 120, 170)
    assert reasons([fat], reference) == {"good"}


@pytest.mark.parametrize(
    "change", [lambda p: np.rot90(p).copy(), lambda p: p[::-1].copy(), lambda p: p[:, ::-1].copy()]
)
def test_turned_patches_are_judged_alike(
    patches: list[Rgb], reference: SlideReference, change: Callable[[Rgb], Rgb]
) -> None:
    for patch in (patches[0], with_pen(patches[1]), blurred(patches[2], 2)):
        found, turned = (check_patch(each, MPP, reference) for each in (patch, change(patch)))
        assert (found and found.reason) == (turned and turned.reason)


def test_sharpness_does_not_depend_on_contrast(patches: list[Rgb]) -> None:
    """Pale stain: half the contrast, half the differences of both kinds."""
    patch = patches[0]
    pale = (patch // 2 + 120).astype(np.uint8)
    whole, half = sharpness(patch), sharpness(pale)
    assert whole is not None
    assert half is not None
    assert abs(whole - half) < MOST_BLUR / 8


def test_too_little_contrast_says_nothing() -> None:
    assert sharpness(np.full((64, 64, 3), 200, np.uint8)) is None


def test_reference_of_nothing_judges_by_usual_values(patches: list[Rgb]) -> None:
    reference = build_reference([])
    assert reference.sharpness is None
    assert check_patch(blurred(patches[0], 4), MPP, reference) is None
    found = check_patch(with_pen(patches[0]), MPP, reference)
    assert isinstance(found, PatchFault)
    assert found.reason == "pen"
    assert found.value > found.bound


def test_reference_does_not_depend_on_the_order(patches: list[Rgb], reference: SlideReference) -> None:
    assert build_reference([measure_patch(patch, MPP) for patch in patches[::-1]]) == reference


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 4.0, 8.0])
@pytest.mark.parametrize("patch_px", [16, 37, 224])
def test_any_size_and_resolution(mpp: float, patch_px: int) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (patch_px, patch_px, 3)).astype(np.uint8)
    reference = build_reference([measure_patch(noise, mpp)])
    found = check_patch(noise, mpp, reference)
    assert found is None or found.reason == "pen"


@pytest.mark.parametrize("sigma_px", [12.0, 20.0])
def test_so_far_out_of_focus_that_nothing_fine_is_left(
    patches: list[Rgb], reference: SlideReference, sigma_px: float
) -> None:
    """One half is denser, so that the patch has relief, but hardly any contrast over four pixels."""
    layers = np.where(np.arange(128)[:, None, None] < 64, 0.5, 1.5)
    blur = [blurred((255 * (patch / 255) ** layers).astype(np.uint8), sigma_px) for patch in patches]
    assert reasons(blur, reference) == {"out_of_focus"}


def test_a_quarter_out_of_focus(patches: list[Rgb], reference: SlideReference) -> None:
    for patch in patches:
        part = patch.copy()
        part[:64, :64] = blurred(patch, 2)[:64, :64]
        assert reasons([part], reference) == {"out_of_focus"}


@pytest.mark.parametrize("turns", range(4))
def test_two_neighbouring_sixteenths_out_of_focus(patches: list[Rgb], reference: SlideReference, turns: int) -> None:
    """Half of two quarters each, which leaves both of them sharp enough."""
    bounds = set()
    for patch in patches:
        part = np.rot90(patch, turns).copy()
        part[28:68, 28:100] = blurred(part, 2)[28:68, 28:100]
        found = check_patch(part, MPP, reference)
        bounds.add(found.bound if found else 0.0)
    assert MOST_TISSUE_PAIR_BLUR in bounds
    assert 0.0 not in bounds


def with_glass(patch: Rgb, columns: int) -> Rgb:
    """The patch with so many columns of bright glass at its right, in focus."""
    part = patch.copy()
    part[:, -columns:] = np.random.default_rng(0).integers(240, 244, (len(part), columns, 3))
    return part


def fine_tissue(columns: int, seed: int) -> Rgb:
    """Fine grains of 140 grey levels, and so many columns of glass, through the same lens: 224 by 224 pixels."""
    level = 140 + 22 * np.random.default_rng(seed).standard_normal((224, 224, 1))
    level[:, 224 - columns :] = 242
    values = gaussian_filter(level, (0.8, 0.8, 0)) * (1, 0.8, 0.95) + (0, 45, 10)
    return np.asarray(values.round().clip(0, 255), np.uint8)


@pytest.mark.parametrize("columns", [96, 112, 160])
def test_glass_does_not_count_for_focus(columns: int) -> None:
    """The step at a section's edge has more of the coarser differences than of the finest, and is higher than any in
    tissue: earlier versions of the rules took such patches for soft.
    """
    whole = [fine_tissue(0, seed) for seed in range(4)]
    edge = fine_tissue(columns, 9)
    now = build_reference([measure_patch(patch, MPP) for patch in whole])
    earlier = build_reference([measure_patch(patch, MPP, rules=2) for patch in whole])
    assert check_patch(edge, MPP, now) is None
    assert check_patch(edge, MPP, earlier, rules=2) is not None
    sharp = sharpness(edge)
    assert now.sharpness is not None
    assert sharp is not None
    assert abs(sharp - now.sharpness) < MOST_BLUR / 8


@pytest.mark.parametrize("columns", [32, 64])
def test_tissue_out_of_focus_beside_glass(patches: list[Rgb], reference: SlideReference, columns: int) -> None:
    soft = [blurred(with_glass(patch, columns), 2) for patch in patches]
    assert reasons(soft, reference) == {"out_of_focus"}


def test_one_sixteenth_out_of_focus(patches: list[Rgb], reference: SlideReference) -> None:
    """Earlier versions of the rules kept it."""
    earlier = build_reference([measure_patch(patch, MPP, rules=2) for patch in patches])
    kept = 0
    for patch in patches:
        part = patch.copy()
        part[60:100, 60:100] = blurred(patch, 2.5)[60:100, 60:100]
        assert reasons([part], reference) == {"out_of_focus"}
        kept += check_patch(part, MPP, earlier, rules=2) is None
    assert kept > len(patches) / 2


def with_slits(patch: Rgb, width: int) -> Rgb:
    """The patch with slanted slits of so many pixels through it, as the lens shows them."""
    rows, columns = np.indices(patch.shape[:2])
    slit = ((rows + 3 * columns) % (3 * 22) < 3 * width)[..., None]
    soft = gaussian_filter(np.where(slit, 242.0, patch), (0.8, 0.8, 0))
    near = gaussian_filter(slit.astype(float), (1.5, 1.5, 0)) > 0.02
    return np.asarray(np.where(near, soft, patch).round(), np.uint8)


def test_slits_do_not_count_for_focus() -> None:
    """A slit that is narrower than a cell has two high steps and no cell of glass: version 3 took what is beside it for
    soft.
    """
    for rules, kept in ((4, True), (3, False)):
        usual = build_reference([measure_patch(fine_tissue(0, seed), MPP, rules=rules) for seed in range(4)])
        for seed in range(5, 9):
            part = fine_tissue(0, seed)
            part[:, 90:134] = with_slits(part, 8)[:, 90:134]
            assert (check_patch(part, MPP, usual, rules=rules) is None) == kept


def test_tissue_out_of_focus_at_slits() -> None:
    usual = build_reference([measure_patch(fine_tissue(0, seed), MPP) for seed in range(4)])
    for seed in range(5, 9):
        assert reasons([blurred(with_slits(fine_tissue(0, seed), 8), 2)], usual) == {"out_of_focus"}


@pytest.mark.parametrize("sigma_px", [12, 16])
@pytest.mark.parametrize("turned", [False, True])
def test_strong_blur_of_a_part_that_is_no_quarter(sigma_px: float, turned: bool) -> None:
    """So little contrast is left that sharpness means nothing. Version 3 judged whole quarters only."""
    grains = np.random.default_rng(3).standard_normal((224, 224, 1))
    level = (
        150 + 22 * grains + 500 * gaussian_filter(np.random.default_rng(4).standard_normal((224, 224, 1)), (9, 9, 0))
    )
    sharp = np.asarray((gaussian_filter(level, (0.8, 0.8, 0)) * (1, 0.8, 0.95)).round().clip(0, 255), np.uint8)
    part = sharp.copy()
    part[:, :90] = blurred(sharp, sigma_px)[:, :90]
    if turned:
        sharp, part = (np.ascontiguousarray(patch.transpose(1, 0, 2)) for patch in (sharp, part))
    for rules, kept in ((4, False), (3, True)):
        usual = build_reference([measure_patch(sharp, MPP, rules=rules)])
        assert check_patch(sharp, MPP, usual, rules=rules) is None
        assert (check_patch(part, MPP, usual, rules=rules) is None) == kept


@pytest.mark.parametrize("relief", [0.0, 2.0])
def test_smooth_ground_in_a_patch_is_kept(relief: float) -> None:
    """As mucus is: of one colour, or nearly."""
    usual = build_reference([measure_patch(fine_tissue(0, seed), MPP) for seed in range(4)])
    for seed in range(5, 9):
        part = fine_tissue(0, seed)
        ramp = np.linspace(-relief, relief, 90)[None, :, None]
        part[:, :90] = (np.array([165, 177, 167]) + ramp).round()
        assert reasons([part], usual) == {"good"}


def test_a_soft_spot_smaller_than_a_sixteenth_is_kept(patches: list[Rgb], reference: SlideReference) -> None:
    for patch in patches:
        part = patch.copy()
        part[40:56, 40:56] = blurred(patch, 2)[40:56, 40:56]
        assert reasons([part], reference) == {"good"}


def test_small_patches_are_judged_as_a_whole(patches: list[Rgb], reference: SlideReference) -> None:
    """Their sixteenths have too few pixels."""
    for patch in patches[:8]:
        part = patch[:60, :60].copy()
        part[15:30, 15:30] = blurred(part, 2)[15:30, 15:30]
        assert reasons([part], reference) == {"good"}


@pytest.mark.parametrize("size", [97, 98, 224])
def test_differences_are_those_of_the_whole_green_channel(size: int) -> None:
    """Rows are taken apart before they are differed, each as one line; that changes no value."""
    patch = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    green = patch[..., 1].astype(int)
    fine, across, down, even = patch_checks._differences(patch)
    laplacian = 4 * green[1:-1, 1:-1] - green[:-2, 1:-1] - green[2:, 1:-1] - green[1:-1, :-2] - green[1:-1, 2:]
    np.testing.assert_array_equal(fine, laplacian[::2])
    np.testing.assert_array_equal(across, (green[:, 4:] - green[:, :-4])[::2])
    np.testing.assert_array_equal(down, (green[4:] - green[:-4])[::2])
    np.testing.assert_array_equal(even, green[::2])
