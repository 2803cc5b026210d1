"""Changes of colour: torchvision's and colorsys's, to a grey level."""

import colorsys

import numpy as np
import pytest
import torch
from support.stores import make_patches
from torchvision.transforms import functional as tv

from pipeline.cohort.views.colours import FACTOR_ONE, HUE_TURN, change_colours

PATCH = np.concatenate([make_patches(1, 48)[0], np.random.default_rng(0).integers(0, 256, (16, 48, 3), np.uint8)])[16:]
"""Smooth colours, and noise of all colours."""
FACTORS = (0.5, 0.85, 0.95, 1.0, 1.1, 1.15, 1.7)


def by_torchvision(patch: np.ndarray, name: str, amount: float) -> np.ndarray:
    """A step on floats in 0..1, in grey levels."""
    image = torch.from_numpy(patch.transpose(2, 0, 1).astype(np.float64)) / 255
    changed: torch.Tensor = getattr(tv, f"adjust_{name}")(image, amount)
    return changed.numpy().transpose(1, 2, 0) * 255


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", FACTORS)
def test_a_step_is_that_of_torchvision(name: str, factor: float) -> None:
    changed = change_colours(PATCH, [(name, round(factor * FACTOR_ONE))])  # type: ignore[list-item]
    assert changed.dtype == np.uint8
    assert np.abs(changed - by_torchvision(PATCH, name, factor)).max() <= 1
    on_bytes = getattr(tv, f"adjust_{name}")(torch.from_numpy(PATCH.transpose(2, 0, 1).copy()), factor)
    assert np.abs(changed - on_bytes.numpy().transpose(1, 2, 0).astype(int)).max() <= 1


@pytest.mark.parametrize("turn", [-0.5, -0.05, -0.013, 0.0, 0.021, 0.05, 0.1, 0.5])
def test_a_turn_of_the_hue_is_that_of_torchvision_and_colorsys(turn: float) -> None:
    changed = change_colours(PATCH, [("hue", round(turn * HUE_TURN))])
    assert np.abs(changed - by_torchvision(PATCH, "hue", turn)).max() <= 1
    for pixel, found in zip(PATCH[::5].reshape(-1, 3), changed[::5].reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)) * 255
        assert np.abs(found - expected).max() <= 1


def test_steps_follow_each_other_as_on_floats() -> None:
    """Four steps in a row are as near to floats as one, in any order."""
    steps = [("brightness", 1.15), ("hue", -0.05), ("contrast", 0.85), ("saturation", 1.1)]
    for order in (steps, steps[::-1], steps[2:] + steps[:2]):
        expected = PATCH
        for name, amount in order:
            expected = by_torchvision(expected, name, amount)
        ours = [(name, round(amount * (HUE_TURN if name == "hue" else FACTOR_ONE))) for name, amount in order]
        assert np.abs(change_colours(PATCH, ours) - expected).max() <= 1  # type: ignore[arg-type]


def test_no_change_is_none_and_grey_has_no_hue() -> None:
    nothing = [("brightness", FACTOR_ONE), ("contrast", FACTOR_ONE), ("saturation", FACTOR_ONE), ("hue", 0)]
    assert np.array_equal(change_colours(PATCH, nothing), PATCH)  # type: ignore[arg-type]
    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(change_colours(grey, [("hue", HUE_TURN // 3), ("saturation", FACTOR_ONE // 2)]), grey)
    assert np.array_equal(change_colours(PATCH, [("hue", HUE_TURN)]), PATCH)
