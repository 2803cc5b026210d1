"""Embeddings in a few numbers: distances of directions are kept, signs are the same everywhere, NaN is named."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.base.errors import EncoderError
from pipeline.encoders.projected import MIDDLE, NUM_PROJECTED, STEPS, ProjectedEncoder, as_facts, random_signs


class Flat(nn.Module):
    """Embeds a patch as its bytes."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.flatten(1).float()


def test_signs_are_the_same_everywhere() -> None:
    signs = random_signs(96)
    assert signs.shape == (96, NUM_PROJECTED)
    assert set(np.unique(signs)) == {-1, 1}
    digest = hashlib.sha256(np.ascontiguousarray(signs, "<f4").data).hexdigest()
    assert digest == "07adef196edd0891b374c507e3e47f964a3a2cd4ffbfb4ba74876ecdecf87483"
    assert abs(signs.mean()) < 0.05


def test_distances_of_directions_are_kept_and_brightness_does_not_count() -> None:
    patches = torch.randint(0, 128, (40, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    module = ProjectedEncoder(Flat(), 192)
    found = module(patches).numpy()
    np.testing.assert_allclose(module(patches * 2).numpy(), found, atol=1e-5)
    rows = patches.flatten(1).double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found, rows @ random_signs(192), atol=1e-4)
    pairs = np.triu_indices(len(rows), 1)
    true = ((rows[pairs[0]] - rows[pairs[1]]) ** 2).sum(1)
    ratio = ((found[pairs[0]] - found[pairs[1]]) ** 2).sum(1) / NUM_PROJECTED / true
    assert abs(ratio.mean() - 1) < 0.1
    assert ratio.std() < 0.25


def test_numbers_are_steps_about_the_middle_and_are_cut_at_16_bits() -> None:
    facts = as_facts(np.array([[0, 1, -1, 20, -20]], np.float32), "x")
    assert facts.dtype == np.uint16
    assert facts.tolist() == [[MIDDLE, MIDDLE + STEPS, MIDDLE - STEPS, 65535, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(EncoderError, match="tiny gives NaN or infinity"):
        as_facts(np.array([[0, bad]], np.float32), "tiny")
