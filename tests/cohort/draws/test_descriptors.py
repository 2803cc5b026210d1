"""Descriptors tell colours and textures apart, do not depend on a turn, and are exact."""

import numpy as np
import pytest

from pipeline.cohort.draws.descriptors import DENSITY, NUM_FACTS, STEPS, describe_patch


def test_a_plain_patch_has_its_density_and_no_texture() -> None:
    facts = describe_patch(np.full((224, 224, 3), (200, 100, 150), np.uint8)) / STEPS
    np.testing.assert_array_equal(facts[:3], DENSITY[[200, 100, 150]])
    np.testing.assert_array_equal(facts[4:9], 0)
    np.testing.assert_array_equal(facts[-4:], 0)


@pytest.mark.parametrize("side", [16, 64, 224])
def test_a_turned_patch_is_described_alike(side: int) -> None:
    patch = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    facts = describe_patch(patch)
    assert facts.shape == (NUM_FACTS,)
    assert facts.dtype == np.uint16
    np.testing.assert_array_equal(facts, describe_patch(np.rot90(patch)))
    np.testing.assert_array_equal(facts, describe_patch(patch[:, ::-1]))


def test_texture_is_that_of_plain_loops() -> None:
    patch = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    image = DENSITY[patch].sum(axis=2)
    blocks = [[image[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for x in range(4)] for y in range(4)]
    down = [abs(blocks[y + 1][x] - blocks[y][x]) for y in range(3) for x in range(4)]
    along = [abs(blocks[y][x + 1] - blocks[y][x]) for y in range(4) for x in range(3)]
    assert describe_patch(patch)[-2] == round(np.mean(down + along) * STEPS)


def test_black_and_white_fit_into_16_bits() -> None:
    board = np.zeros((64, 64, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    facts = describe_patch(board)
    assert facts.max() < 65535
    assert facts[-4] > facts[-3]
