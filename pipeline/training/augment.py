"""What the student sees by augmentation and its teacher did not: flips, quarter turns and mild changes of colour.

All of it is in whole numbers, so that any machine makes the same pixels. Where OpenCV is installed (an extra), it makes
them, to the bit those that NumPy makes here, in a third of the time: decision 0100. Runs up to version 4 change
colours in float32, by NumPy only.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from math import floor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import first_line
from pipeline.base.images import empty_patch
from pipeline.cohort.views.views import dihedral

Augmentation = Literal["none", "flips", "flips+jitter"]

JITTER = 0.1
"""Largest relative change of brightness, contrast and saturation. Our choice: mild, as the teacher saw the patch
without it.
"""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness, ITU-R BT.601."""
WHOLE_LUMA = (77, 150, 29)
"""The same in units of 1 / 256."""
JITTER_BITS = 9
"""Fraction bits of factors in `jitter_whole`. Our choice: the most with which all sums fit into 16 bits."""
GREY = 128
"""What grey levels are counted from in `jitter_whole`, so that they take 8 bits with their sign."""
ROWS_IN_16_BITS = 256
"""Most rows of grey levels whose sums fit into 16 bits."""
PROBED_PX = 37
"""Side of the patch that OpenCV is tried on. Our choice: no multiple of the numbers that a processor takes at once."""


def augment(patch: NDArray[np.uint8], key: int, augmentation: Augmentation, *, in_floats: bool = False) -> None:
    """Augment a patch (P, P, 3) for the student, in place: what was just decoded lies in the processor's cache.

    `in_floats`: change colours as runs up to version 4 do (`RunDraws.jitters_in_floats`).
    """
    opencv = None if in_floats or not patch.flags.c_contiguous else opencv_here()
    which = 0 if augmentation == "none" else key & 7
    if augmentation != "flips+jitter":
        turn(patch, which, opencv)
    elif in_floats:
        jitter_in_floats(dihedral(patch, which), key, patch)
    elif opencv is None:
        jitter_whole(dihedral(patch, which), key, patch)
    else:
        turn(patch, which, opencv)
        jitter_by_opencv(patch, key, patch, opencv)


def turn(patch: NDArray[np.uint8], which: int, opencv: Any = None) -> None:
    """`dihedral` of (P, P, 3) in place, by the module `opencv` if given."""
    if which == 0:
        return
    if opencv is None:
        copy_pixels(dihedral(patch, which), turned := np.empty(patch.shape, np.uint8))
        np.copyto(patch, turned)
        return
    turned = opencv.transpose(patch, dst=spare_patch(patch)) if which & 4 else patch  # in place: three times as long
    if which & 3:
        opencv.flip(turned, {1: 0, 2: 1, 3: -1}[which & 3], dst=patch)
    else:
        np.copyto(patch, turned)


class SparePatch(threading.local):
    """Memory of a thread for one patch, the same each time: in the processor's cache, where new memory is not."""

    patch: NDArray[np.uint8] | None = None


_spare = SparePatch()


def spare_patch(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Memory for another patch of this shape, uint8 (P, P, 3), until this thread asks again."""
    if _spare.patch is None or _spare.patch.shape != patch.shape:
        _spare.patch = empty_patch(len(patch))
    return _spare.patch


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


@dataclass(frozen=True)
class DrawnJitter:
    """The part of a `WholeJitter` that depends on the key alone.

    Attributes:
        of_level, of_luma: as there.
        constant, of_mean: grey levels that are added to each channel are constant + of_mean M.
        half_rest: half of what Y has too little by, being rounded down.
    """

    of_level: int
    of_luma: int
    constant: float
    of_mean: float
    half_rest: float

    @classmethod
    def drawn(cls, key: int) -> "DrawnJitter":
        """The change of `drawn_factors`."""
        brightness, contrast, saturation = drawn_factors(key)
        one, gain = 1 << JITTER_BITS, brightness * contrast
        of_level = round(one * (saturation * gain - 1))  # of x - Y and of Y: what is added to x
        rest = gain - 1 - of_level / one
        return cls(of_level, round(one * rest), GREY * (gain - 1), brightness * (1 - contrast), rest / 2)


@dataclass(frozen=True)
class WholeJitter:
    """A change of brightness, contrast and saturation as one linear map, in units of 1 / 512 (`JITTER_BITS`).

    With x the grey level of a channel, Y that of the pixel, M the mean of the patch and factors b, c and s, a channel
    becomes s b c x + (1 - s) b c Y + b (1 - c) M. Here a channel becomes x + base plus the whole part of
    (of_level (x - 128) + of_luma (Y - 128) + rounding) / 512, with Y = (77 R + 150 G + 29 B) / 256, rounded down.

    Attributes:
        of_level: factor of the channel.
        of_luma: factor of the pixel's grey level.
        rounding: what is added before division, 512 at most but for a half of what Y is rounded down by.
        base: whole grey levels that are added.
    """

    of_level: int
    of_luma: int
    rounding: int
    base: int

    @classmethod
    def drawn(cls, key: int, mean: float) -> "WholeJitter":
        """The change of `drawn_factors`, for a patch of this mean grey level."""
        by = DrawnJitter.drawn(key)
        constant = by.constant + by.of_mean * mean
        base = floor(constant)
        rounding = round((1 << JITTER_BITS) * (constant - base + 0.5 + by.half_rest))
        return cls(by.of_level, by.of_luma, rounding, base)


def jitter_whole(patch: NDArray[np.uint8], key: int, out: NDArray[np.uint8]) -> None:
    """Change brightness, contrast and saturation of (P, P, 3) by `WholeJitter`, into `out` (P, P, 3), which may be the
    patch's own memory.

    In whole numbers of 16 bits. They are within one grey level of those of `jitter_in_floats`. All steps are passes
    over consecutive numbers, which NumPy does several at a time.
    """
    image = np.empty(patch.size, np.int16)
    levels = image.reshape(patch.shape)
    copy_pixels(patch, levels)
    by = WholeJitter.drawn(key, mean_level(levels))
    np.subtract(image, np.int16(GREY), out=image)

    weights, first = of_channels(image.size)
    change, luma = image * weights, np.empty_like(image)
    np.add(change[:-2], change[1:-1], out=luma[:-2])
    luma[:-2] += change[2:]
    luma >>= 8
    luma *= np.int16(by.of_luma)
    luma += np.int16(by.rounding)
    luma &= first  # the first number of each pixel; the next two get it by the sums below
    np.multiply(image, np.int16(by.of_level), out=change)
    change += luma
    change[1:] += luma[:-1]
    change[2:] += luma[:-2]
    change >>= JITTER_BITS
    change += image
    level = GREY + by.base
    change.clip(np.int16(-level), np.int16(255 - level), out=change)
    np.copyto(out, change.reshape(patch.shape), casting="unsafe")  # modulo 256, as the next line counts
    np.add(out, np.uint8(level), out=out)


NEVER_HALF = 1 / 1024
"""Added to what OpenCV rounds, so that no sum of 512ths lies half way between two whole numbers, where its ways to
round differ. 1024ths are the finest that its map of channels counts in."""
LUMA_ROUNDED_DOWN = np.array([[*(weight / 256 for weight in WHOLE_LUMA), NEVER_HALF - 0.5]] * 3, np.float32)
"""Map of channels to Y of `WholeJitter`, three times; it is rounded to the nearest."""


def jitter_by_opencv(patch: NDArray[np.uint8], key: int, out: NDArray[np.uint8], opencv: Any) -> None:
    """What `jitter_whole` does, to the bit: every number here has few enough digits to be exact in float32, in
    whatever order they are added.
    """
    by = WholeJitter.drawn(key, sum(opencv.sumElems(patch)[:3]) / patch.size)
    luma, one = opencv.transform(patch, LUMA_ROUNDED_DOWN, dst=spare_patch(patch)), 1 << JITTER_BITS
    constant = by.base + (by.rounding - GREY * (by.of_level + by.of_luma)) / one
    opencv.addWeighted(patch, 1 + by.of_level / one, luma, by.of_luma / one, constant - 0.5 + NEVER_HALF, dst=out)


@lru_cache(maxsize=1)
def opencv_here() -> Any:
    """The module of OpenCV if it is installed, and makes of a probe what NumPy makes; else `None`."""
    return look_for_opencv()[0]


def look_for_opencv() -> tuple[Any, str | None]:
    """`opencv_here`, looked for anew; and why it is `None`, or `None` where no module of its name is installed."""
    try:
        import cv2  # optional: an extra
    except Exception as error:  # noqa: BLE001  (not installed, or broken: a package may raise anything while it loads)
        absent = isinstance(error, ModuleNotFoundError) and error.name == "cv2"
        return None, None if absent else f"does not load: {first_line(error)}"
    place = getattr(cv2, "__file__", None) or ", ".join(getattr(cv2, "__path__", ()))
    try:
        same = makes_the_same(cv2)
    except Exception as error:  # noqa: BLE001  (another module of that name, or a version without what is asked of it)
        return None, f"at {place} is no OpenCV, or too old a one: {first_line(error)}"
    return (cv2, None) if same else (None, f"at {place} gives other pixels than NumPy")


def makes_the_same(opencv: Any) -> bool:
    """Whether all turns and the strongest changes of colour are, to the bit, those without OpenCV; takes a few ms."""
    numbers = np.arange(PROBED_PX * PROBED_PX * 3, dtype=np.uint32) * np.uint32(2654435761)  # Knuth's hash of a number
    patch = (numbers >> 24).astype(np.uint8).reshape(PROBED_PX, PROBED_PX, 3)
    for which in range(8):
        expected, made = patch.copy(), patch.copy()
        turn(expected, which)
        turn(made, which, opencv)
        if not np.array_equal(made, expected):
            return False
        jitter_whole(expected, key := _strongest(which), expected)
        jitter_by_opencv(made, key, made, opencv)
        if not np.array_equal(made, expected):
            return False
    return True


def _strongest(which: int) -> int:
    """A key of `drawn_factors`, each factor the smallest or, by the bits of `which`, the largest."""
    return sum(0xFFFF << 16 * (bit + 1) for bit in range(3) if which >> bit & 1)


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
    """The changes of `jitter_whole` in float32, as runs up to version 4 have them; `out` as there.

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
