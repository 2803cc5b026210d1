"""Views of a patch: seeded flips, quarter turns and mild stain changes, the same for teacher and student. Pure.

View 0 is the patch itself. A view depends only on (seed, row, view) and the pixels, and is computed in integers, so
that the student sees to the bit what the teacher embedded, on any machine. Left out: crops, scaling and blur, which
would change the patch's content.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.sampling import patch_keys

STAIN_CHANGE = 0.05
"""Largest relative change of haematoxylin, eosin and residual. As the multiplicative part of HED-light:
Tellez et al., "Quantifying the effects of data augmentation and stain color normalization in convolutional neural
networks for computational pathology", Medical Image Analysis, 2019.
"""
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities (R, G, B) of haematoxylin, eosin and residual, one row each: Ruifrok and Johnston, 2001."""

FINENESS = 12
"""Fraction bits of optical densities and mixing coefficients. Our choice: a density of 1 / 4096 is far below a grey
level.
"""
ONE = 1 << FINENESS
DENSITY = np.rint(-ONE * np.log((np.arange(256) + 1) / 256)).astype(np.int32)
"""Optical density of each grey level, in units of 1 / `ONE`; white has 0."""
GREY_OF_DENSITY = np.clip(np.rint(256 * np.exp(-np.arange(DENSITY[0] + 1) / ONE) - 1), 0, 255).astype(np.uint8)
"""The inverse: grey level of each optical density up to that of black."""


@dataclass(frozen=True)
class Views:
    """The number of views of a patch, including the patch itself, and their seed."""

    count: int = 1
    seed: int = 0

    def apply(self, patch: NDArray[np.uint8], row: int, view: int) -> NDArray[np.uint8]:
        """View number `view` of a row's patch, uint8 (P, P, 3)."""
        if view == 0:
            return patch
        key = int(patch_keys("view", np.array([[row, view]]), self.seed)[0])
        return change_stain(dihedral(patch, key & 7), key)


def dihedral(patch: NDArray[np.uint8], which: int) -> NDArray[np.uint8]:
    """Apply one of the eight flips and quarter turns to a square (P, P, C): bit 2 transposes, bits 0 and 1 flip rows
    and columns.
    """
    if which & 4:
        patch = patch.transpose(1, 0, 2)
    if which & 1:
        patch = patch[::-1]
    if which & 2:
        patch = patch[:, ::-1]
    return patch


def change_stain(patch: NDArray[np.uint8], key: int) -> NDArray[np.uint8]:
    """Scale each stain in (P, P, 3) by up to `STAIN_CHANGE`, chosen by the key's bits; white stays white."""
    changes = np.array([STAIN_CHANGE * (((key >> shift) & 0xFFFF) / 32767.5 - 1) for shift in (16, 32, 48)])
    unmix = np.linalg.inv(STAINS)
    mix = np.rint(ONE * (np.eye(3) + (unmix * changes) @ STAINS)).astype(np.int32)
    mixed = (DENSITY[patch] @ mix + ONE // 2) >> FINENESS
    changed: NDArray[np.uint8] = GREY_OF_DENSITY[mixed.clip(0, len(GREY_OF_DENSITY) - 1)]
    return changed
