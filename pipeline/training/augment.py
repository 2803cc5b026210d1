"""What the student sees by augmentation and its teacher did not: flips, quarter turns and mild changes of colour."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.views import dihedral

Augmentation = Literal["none", "flips", "flips+jitter"]

JITTER = 0.1
"""Largest relative change of brightness, contrast and saturation. Our choice: mild, as the teacher saw the patch
without it.
"""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness, ITU-R BT.601."""


def leaves_alone(key: int, augmentation: Augmentation) -> bool:
    """Whether `augment` would copy the patch as it is."""
    return augmentation == "none" or (augmentation == "flips" and not key & 7)


def augment(patch: NDArray[np.uint8], key: int, augmentation: Augmentation, out: NDArray[np.uint8]) -> None:
    """Augment a patch (P, P, 3) for the student, into `out` (P, P, 3), other memory than the patch's."""
    turned = patch if augmentation == "none" else dihedral(patch, key & 7)
    if augmentation == "flips+jitter":
        jitter(turned, key, out)
    else:
        copy_pixels(turned, out)


def copy_pixels(pixels: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy (P, P, 3) into `out` (P, P, 3), truncating to its type.

    A channel at a time where neighbours in a row are none in memory: NumPy copies single numbers up to 4 times as fast
    as the three of a pixel, in loops of three (benchmarks/loading_speed.py).
    """
    strides = zip(pixels.strides[:2], out.strides[:2], strict=True)
    if (3 * pixels.itemsize, 3 * out.itemsize) in strides:  # along one axis the next pixel is the next in both
        np.copyto(out, pixels, casting="unsafe")
        return
    for channel in range(3):
        np.copyto(out[..., channel], pixels[..., channel], casting="unsafe")


def jitter(patch: NDArray[np.uint8], key: int, out: NDArray[np.uint8]) -> None:
    """Change brightness, contrast and saturation of (P, P, 3) by up to `JITTER` each, drawn from bytes of the key; into
    `out` (P, P, 3).

    Runs that go on must see the same pixels to the bit. So the operations, their order and the order of numbers in
    memory, which the mean is summed in, are those of version 0.1.0. They are done in place, and grey is repeated for
    each channel, for loops over the three numbers of a pixel take several times as long.
    """
    brightness, contrast, saturation = (
        np.float32(1 + JITTER * (((key >> shift) & 0xFFFF) / 32767.5 - 1)) for shift in (16, 32, 48)
    )
    image, grey = np.empty_like(patch, np.float32), np.empty_like(patch, np.float32)
    copy_pixels(patch, image)
    image *= brightness
    mean = image.mean()
    image -= mean
    image *= contrast
    image += mean
    luma = image @ LUMA
    for channel in range(3):
        grey[..., channel] = luma
    image -= grey
    image *= saturation
    image += grey
    np.clip(np.rint(image, out=image), 0, 255, out=image)
    copy_pixels(image, out)


def beyond_the_teacher(augment: str, num_views: int) -> str:
    """Describe what the student sees and its teacher did not; "" if nothing.

    Augmentation comes on top of the views: the augmented patch is compared with the embedding of its view.
    """
    if augment == "none":
        return ""
    changes = {"flips": "flips and quarter turns", "flips+jitter": "flips, quarter turns and colour changes"}[augment]
    seen = "the patch as it is" if num_views == 1 else f"{num_views} views of each patch without them"
    return (
        f"the student sees {changes} that the teacher did not: it saw {seen}. Training assumes that the teacher's "
        "embeddings would not change"
    )
