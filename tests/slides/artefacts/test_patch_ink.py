"""Ink over the densest tissue is found by its distance from the slide's colours; mixtures of the stains are not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.slides.artefacts.patch_ink import (
    USUAL_INK,
    WIDE_BLOCKS,
    InkReference,
    build_ink_reference,
    ink_share,
    wide_means,
)

STAINS = np.array([[0.75, 1.0, 0.66], [0.28, 1.0, 0.64]])
"""Haematoxylin and eosin as a camera with broad bands sees them: the extremes of the demo's slide."""
RED, BLUE, GREEN, BLACK = (0.1, 1.2, 1.0), (1.5, 0.9, 0.25), (1.4, 0.5, 0.8), (1.3, 1.3, 1.25)
BLOCKS = 28

Values = NDArray[np.float32]


def tissue(share: float, amount: float, seed: int) -> Values:
    """Densities of blocks, with so much haematoxylin of the stain in the mean, and the grain of nuclei."""
    rng = np.random.default_rng(seed)
    areas = rng.normal(0, 0.2, (BLOCKS // 4, BLOCKS // 4)).repeat(4, axis=0).repeat(4, axis=1)
    haematoxylin = np.clip(share + areas + rng.normal(0, 0.2, (BLOCKS, BLOCKS)), 0, 1)[..., None]
    stain = haematoxylin * STAINS[0] + (1 - haematoxylin) * STAINS[1]
    values = stain * amount * rng.uniform(0.8, 1.2, (BLOCKS, BLOCKS, 1)) + rng.normal(0, 0.01, (BLOCKS, BLOCKS, 3))
    return np.asarray(np.maximum(values, 0.02), np.float32)


def inked(values: Values, ink: tuple[float, ...], strength: float = 0.6) -> Values:
    """A stroke of 32 um down the middle."""
    result = values.copy()
    result[:, 10:18] += np.float32(strength) * np.array(ink, np.float32)
    return result


@pytest.fixture(scope="module")
def slide() -> list[Values]:
    rng = np.random.default_rng(1)
    return [tissue(rng.uniform(0.1, 0.9), rng.uniform(0.4, 1.6), seed) for seed in range(32)]


@pytest.fixture(scope="module")
def reference(slide: list[Values]) -> InkReference:
    return build_ink_reference(slide)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("amount", [0.4, 1.0, 2.0])
def test_mixtures_of_the_stains_are_no_ink(reference: InkReference, share: float, amount: float) -> None:
    assert ink_share(tissue(share, amount, 100), reference) <= 0.03


@pytest.mark.parametrize("ink", [RED, BLUE, GREEN, BLACK], ids=["red", "blue", "green", "black"])
@pytest.mark.parametrize(("share", "amount"), [(0.1, 1.6), (0.5, 1.6), (0.8, 1.6), (0.5, 0.5)])
def test_ink_over_tissue(reference: InkReference, ink: tuple[float, ...], share: float, amount: float) -> None:
    strength = 1.0 if ink == BLACK else 0.6  # faint black is dense tissue's colour
    assert ink_share(inked(tissue(share, amount, 100), ink, strength), reference) > 0.03


DENSE_BONE, RED_CELLS = (0.25, 1.0, 0.71), (0.21, 0.9, 0.74)
"""Eosin with a little more blue than the slide's, as the development sections have it."""


def of_stain(colour: tuple[float, ...], amount: float, share: float) -> Values:
    """Eosin without nuclei, of which a share of the blocks has another colour."""
    values = tissue(0.0, 1.0, 100)
    chosen = np.random.default_rng(3).random((BLOCKS, BLOCKS)) < share
    values[chosen] = np.float32(amount) * np.array(colour, np.float32)
    return values


@pytest.mark.parametrize(
    "patch", [of_stain(DENSE_BONE, 1.3, 1.0), of_stain(RED_CELLS, 1.0, 0.2)], ids=["bone", "red cells"]
)
def test_dense_eosin_and_red_cells_are_no_red_ink(reference: InkReference, patch: Values) -> None:
    assert ink_share(patch, reference) <= 0.03
    assert ink_share(patch, reference, spares_eosin=False) > 0.03  # stores that were begun by these
    assert ink_share(inked(patch, RED), reference) > 0.03


@pytest.mark.parametrize("hidden", [RED, BLUE, BLACK], ids=["red", "blue", "black"])
def test_a_quarter_of_the_reference_may_be_under_ink(slide: list[Values], hidden: tuple[float, ...]) -> None:
    covered = [each + np.array(hidden, np.float32) if number < 8 else each for number, each in enumerate(slide)]
    reference = build_ink_reference(covered)
    for ink in (RED, BLUE, GREEN):
        assert ink_share(inked(tissue(0.5, 1.0, 100), ink, 1.0), reference) > 0.03
    assert ink_share(tissue(0.5, 1.0, 100), reference) <= 0.03


def test_order_and_turns_do_not_matter(slide: list[Values], reference: InkReference) -> None:
    assert build_ink_reference(slide[::-1]) == reference
    turned = build_ink_reference([np.rot90(each) for each in slide])
    np.testing.assert_allclose(turned.line, reference.line, rtol=1e-4)
    stroke = inked(slide[0], BLUE)
    assert ink_share(np.rot90(stroke), reference) == pytest.approx(ink_share(stroke, reference))


def test_wide_means_are_means_of_squares(slide: list[Values]) -> None:
    means = wide_means(slide[0])
    assert means.shape == (12, 12, 3)
    for row, column in ((0, 0), (3, 7), (11, 11)):
        square = slide[0][2 * row : 2 * row + WIDE_BLOCKS, 2 * column : 2 * column + WIDE_BLOCKS]
        np.testing.assert_allclose(means[row, column], square.mean(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (6, 6), (7, 30)])
def test_any_size(shape: tuple[int, int], reference: InkReference, slide: list[Values]) -> None:
    assert ink_share(slide[0][: shape[0], : shape[1]], reference) <= 0.03


def test_glass_alone_leaves_usual_colours() -> None:
    assert build_ink_reference([]) == USUAL_INK
    assert build_ink_reference([np.full((BLOCKS, BLOCKS, 3), 0.02, np.float32)] * 32) == USUAL_INK


def test_tissue_in_scraps_has_no_line_but_its_median(slide: list[Values]) -> None:
    """Blocks of tissue so far apart that no wide area has a colour."""
    scraps = []
    for each in slide:
        values = np.full_like(each, 0.02)
        values[::6, ::6] = each[::6, ::6]
        scraps.append(values)
    reference = build_ink_reference(scraps)
    assert reference.line == ((-0.8,), (reference.blue_ratio,))
