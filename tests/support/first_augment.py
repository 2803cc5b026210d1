"""Augmentation as in version 0.1.0, word for word: what tests and benchmarks compare with."""

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.views.views import dihedral
from pipeline.training.augment import JITTER, LUMA


def as_first_written(patch: NDArray[np.uint8], key: int, augmentation: str) -> NDArray[np.uint8]:
    """The code of version 0.1.0, word for word: runs begun with it must go on with its pixels."""
    if augmentation == "none":
        return patch
    turned = dihedral(patch, key & 7)
    return turned if augmentation == "flips" else jitter_as_first_written(turned, key)


def jitter_as_first_written(patch: NDArray[np.uint8], key: int) -> NDArray[np.uint8]:
    brightness, contrast, saturation = (
        1 + JITTER * (((key >> shift) & 0xFFFF) / 32767.5 - 1) for shift in (16, 32, 48)
    )
    image = patch.astype(np.float32) * np.float32(brightness)
    mean = image.mean()
    image = (image - mean) * np.float32(contrast) + mean
    grey = (image @ LUMA)[..., None]
    image = (image - grey) * np.float32(saturation) + grey
    clipped: NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return clipped
