"""Patches as encoded images: lossless JPEG XL, or JPEG by choice.

Encoding is deterministic: one thread, fixed effort, so that the same patch gives the same bytes on any number of
workers. Both codecs release the interpreter lock.
"""

from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

ImageFormat = Literal["jpegxl", "jpeg"]

JPEGXL_EFFORT = 1
"""libjxl's fastest lossless mode. Our choice: against the next one it encodes 6 times as fast, decodes 1.25 times as
fast and is 7 % larger (benchmarks/codec.py).
"""
JPEG_QUALITY = 95
"""Our choice: about 0.4 of lossless, no chroma subsampling."""


def encode_image(patch: NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    """A patch, uint8 (P, P, 3) RGB, as a standard JPEG XL (lossless) or JPEG file."""
    patch = np.ascontiguousarray(patch)
    if image_format == "jpegxl":
        return bytes(imagecodecs.jpegxl_encode(patch, lossless=True, effort=JPEGXL_EFFORT, numthreads=1))
    return bytes(imagecodecs.jpeg8_encode(patch, level=JPEG_QUALITY, subsampling="444"))


def decode_image(data: bytes, image_format: ImageFormat, patch_px: int) -> NDArray[np.uint8]:
    """The inverse of `encode_image`: uint8 (P, P, 3) RGB.

    A damaged JPEG may decode to something: the store's checksums are what finds damage.

    Raises:
        ValueError: the bytes are no image of that format, or of another size than `patch_px`; the codecs compare their
            header's size with that of the array that they fill, before they decode.
    """
    patch = np.zeros((patch_px, patch_px, 3), np.uint8)
    try:
        if image_format == "jpegxl":
            imagecodecs.jpegxl_decode(data, numthreads=1, out=patch)
        else:
            imagecodecs.jpeg8_decode(data, out=patch)
    except Exception as error:  # noqa: BLE001  (imagecodecs has an error of its own for each codec, and others)
        raise ValueError(f"not a readable {image_format} image ({error})") from None
    return patch
