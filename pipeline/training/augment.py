"""What the student sees by augmentation and its teacher did not: flips, quarter turns and mild changes of colour."""

from functools import lru_cache
from math import floor
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
WHOLE_LUMA = (77, 150, 29)
"""The same in units of 1 / 256."""
FACTOR_BITS = 9
"""Fraction bits of factors in `jitter_whole`. Our choice: the most with which all sums fit into 16 bits."""
GREY = 128
"""What grey levels are counted from in `jitter_whole`, so that they take 8 bits with their sign."""
ROWS_IN_16_BITS = 256
"""Most rows of grey levels whose sums fit into 16 bits."""


def leaves_alone(key: int, augmentation: Augmentation) -> bool:
    """Whether `augment` would copy the patch as it is."""
    return augmentation == "none" or (augmentation == "flips" and not key & 7)


def augment(
    patch: NDArray[np.uint8], key: int, augmentation: Augmentation, out: NDArray[np.uint8], *, in_floats: bool = False
) -> None:
    """Augment a patch (P, P, 3) for the student, into `out` (P, P, 3), other memory than the patch's.

    `in_floats`: change colours as runs up to version 4 do (`RunDraws.jitters_in_floats`).
    """
    turned = patch if augmentation == "none" else dihedral(patch, key & 7)
    if augmentation == "flips+jitter":
        (jitter_in_floats if in_floats else jitter_whole)(turned, key, out)
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


def drawn_factors(key: int) -> tuple[float, float, float]:
    """Factors of brightness, contrast and saturation within `JITTER` of 1, from bytes of the key."""
    brightness, contrast, saturation = (1 + JITTER * (((key >> bit) & 0xFFFF) / 32767.5 - 1) for bit in (16, 32, 48))
    return brightness, contrast, saturation


def jitter_whole(patch: NDArray[np.uint8], key: int, out: NDArray[np.uint8]) -> None:
    """Change brightness, contrast and saturation of (P, P, 3) by `drawn_factors`, into `out` (P, P, 3).

    In whole numbers of 16 bits, so that any machine makes the same pixels. They are within one grey level of those of
    `jitter_in_floats`. All three changes are one linear map: with x the grey level of a channel, Y that of the pixel, M
    the mean of the patch and factors b, c and s, a channel becomes s b c x + (1 - s) b c Y + b (1 - c) M. All steps are
    passes over consecutive numbers, which NumPy does several at a time.
    """
    brightness, contrast, saturation = drawn_factors(key)
    one, gain = 1 << FACTOR_BITS, brightness * contrast
    of_level = round(one * (saturation * gain - 1))  # of x - Y and of Y: what is added to x
    rest = gain - 1 - of_level / one
    of_luma = round(one * rest)
    image = np.empty(patch.size, np.int16)
    levels = image.reshape(patch.shape)
    copy_pixels(patch, levels)
    constant = GREY * (gain - 1) + brightness * (1 - contrast) * mean_level(levels)
    base = floor(constant)
    rounding = round(one * (constant - base + 0.5 + rest / 2))  # the luma below is rounded down: by a half on average
    np.subtract(image, np.int16(GREY), out=image)

    weights, first = of_channels(image.size)
    change, luma = image * weights, np.empty_like(image)
    np.add(change[:-2], change[1:-1], out=luma[:-2])
    luma[:-2] += change[2:]
    luma >>= 8
    luma *= np.int16(of_luma)
    luma += np.int16(rounding)
    luma &= first  # the first number of each pixel; the next two get it by the sums below
    np.multiply(image, np.int16(of_level), out=change)
    change += luma
    change[1:] += luma[:-1]
    change[2:] += luma[:-2]
    change >>= FACTOR_BITS
    change += image
    level = GREY + base
    change.clip(np.int16(-level), np.int16(255 - level), out=change)
    np.copyto(out, change.reshape(patch.shape), casting="unsafe")  # modulo 256, as the next line counts
    np.add(out, np.uint8(level), out=out)


def mean_level(levels: NDArray[np.int16]) -> float:
    """Mean of grey levels 0 to 255 (P, P, 3), exact: sums of few rows fit into 16 bits, in which they are fast."""
    rows = levels.reshape(len(levels), -1)
    parts = (rows[start : start + ROWS_IN_16_BITS] for start in range(0, len(rows), ROWS_IN_16_BITS))
    return sum(int(part.sum(axis=0, dtype=np.uint16).sum(dtype=np.int64)) for part in parts) / levels.size


@lru_cache(maxsize=4)
def of_channels(num_levels: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """For each grey level of a patch the weight of its channel, and a mask of the first channel; int16 (N,) each."""
    weights, first = (np.tile(np.array(each, np.int16), num_levels // 3) for each in (WHOLE_LUMA, (-1, 0, 0)))
    weights.flags.writeable = first.flags.writeable = False
    return weights, first


def jitter_in_floats(patch: NDArray[np.uint8], key: int, out: NDArray[np.uint8]) -> None:
    """The changes of `jitter_whole` in float32, as runs up to version 4 have them.

    Runs that go on must see the same pixels to the bit. So the operations, their order and the order of numbers in
    memory, which the mean is summed in, are those of version 0.1.0. They are done in place, and grey is repeated for
    each channel, for loops over the three numbers of a pixel take several times as long.
    """
    brightness, contrast, saturation = map(np.float32, drawn_factors(key))
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
