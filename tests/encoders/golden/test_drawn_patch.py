"""The test patch is the same to the bit everywhere and always, and tells wrong pipelines apart."""

import numpy as np
import pytest

from pipeline.encoders.golden.drawn_patch import PATCH_NAME, draw_test_patch, sha256_of_pixels

PATCH = draw_test_patch(224)


def test_it_is_the_picture_of_its_name_to_the_bit() -> None:
    """Whoever changes it gives it another name: recorded values are of this one."""
    assert PATCH_NAME == "g2l-1"
    assert sha256_of_pixels(PATCH) == "7f0a5fe1ca4b1bd5b89115f1a6bc3d5758b4d0453c13f7e982f39569997f3a8d"
    assert PATCH.dtype == np.uint8


@pytest.mark.parametrize("px", [1, 28, 64, 160, 223])
def test_a_smaller_one_is_the_top_left_corner(px: int) -> None:
    assert np.array_equal(draw_test_patch(px), PATCH[:px, :px])
    assert np.array_equal(draw_test_patch(256)[:224, :224], PATCH)


def test_no_turn_or_exchange_of_it_is_alike() -> None:
    turns = [np.rot90(PATCH, k) for k in range(4)]
    pictures = [*turns, *(turn[:, ::-1] for turn in turns), PATCH[..., ::-1], PATCH[..., [1, 0, 2]]]
    far = [np.abs(a.astype(int) - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(far) > 10


def test_it_has_the_colours_of_a_section_and_structure_at_every_scale() -> None:
    mean = PATCH.mean((0, 1)) / 255
    assert np.allclose(mean, (0.81, 0.56, 0.69), atol=0.01)
    grey = PATCH.astype(float).mean(-1)
    for block in (1, 2, 4, 8, 16, 32):
        means = grey.reshape(224 // block, block, 224 // block, block).mean((1, 3))
        assert np.abs(np.diff(means, axis=0)).mean() > 2, block
        assert np.abs(np.diff(means, axis=1)).mean() > 2, block
