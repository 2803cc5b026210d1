"""Encode, decode and reduce patches: lossless JPEG XL, or JPEG by choice; Lanczos by torch.

Encoding is deterministic (one thread, fixed effort): the same patch gives the same bytes for any number of workers.
Both codecs release the interpreter lock.
"""

import re
from importlib import metadata
from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, raise_if_limit

ImageFormat = Literal["jpegxl", "jpeg"]

JPEGXL_EFFORT = 1
"""libjxl's fastest lossless mode. Our choice: compared with the next mode it encodes 6 times as fast, decodes 1.25
times as fast and gives 7 % larger files (benchmarks/codec.py).
"""
JPEG_QUALITY = 95
"""Our choice: about 0.4 times the lossless size, without chroma subsampling."""

BOUNDARY, BESIDE_BOUNDARY = 64, 8
"""Memory for patches begins 8 bytes after a multiple of 64. libjpeg-turbo writes a row that begins at a multiple of 32
past the processor's cache, which makes decoding take 1.19 times as long (decision 0083).
"""

TORCH_WITH_LANCZOS = (2, 12)
"""First version of torch whose `interpolate` has the filter (pytorch/pytorch, pull request 177320)."""


def reduce_by_torch(regions: NDArray[np.uint8], side: float, patch_px: int) -> NDArray[np.uint8]:
    """Reduce the square of `side` pixels at the top left corner of each of several regions to `patch_px`: uint8
    (N, H, W, 3) -> (N, P, P, 3). Each comes out as it does alone; torch computes the filter's weights once for all of
    them, which takes as long as half of the rest.

    Lanczos, support 3, as Pillow's `resize` with a box from (0, 0), within one grey level at a whole `side`, and two at
    a fractional one; see docs/decisions/0051.

    Args:
        regions: writable and contiguous.
        side: at least `patch_px`, at most a region's; may be fractional.

    Raises:
        NotImplementedError: this torch has no Lanczos filter for bytes.
    """
    import torch  # here, so that commands that read no patches start without it

    size = None if side % 1 else (patch_px, patch_px)
    scale = (patch_px / side, patch_px / side) if size is None else None
    canonical = torch.from_numpy(regions).view(-1).view(regions.shape)  # NumPy gives an axis of one any stride
    planes = canonical.permute(0, 3, 1, 2)  # so that torch knows that channels come last
    reduced = torch.nn.functional.interpolate(planes, size=size, scale_factor=scale, mode="lanczos", antialias=True)
    patches = reduced.permute(0, 2, 3, 1).numpy()
    assert patches.shape == (len(regions), patch_px, patch_px, 3), patches.shape
    return patches


def require_lanczos(whose: str, otherwise: str = "plan") -> None:
    """See that the torch that is installed can reduce patches, without loading it.

    Args:
        whose: what asks for it, to begin an error with.
        otherwise: what can be done with --resampling lanczos-pillow in its place.

    Raises:
        ConfigError: it cannot.
    """
    version = metadata.version("torch")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < TORCH_WITH_LANCZOS:
        raise ConfigError(
            f"{whose}: torch {version} cannot reduce patches by Lanczos; torch {TORCH_WITH_LANCZOS[0]}."
            f"{TORCH_WITH_LANCZOS[1]} can. Get a newer torch, or {otherwise} with --resampling lanczos-pillow"
        )


def encode_image(patch: NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    """Encode a patch, uint8 (P, P, 3) RGB, as a standard JPEG XL (lossless) or JPEG file."""
    patch = np.ascontiguousarray(patch)
    if image_format == "jpegxl":
        return bytes(imagecodecs.jpegxl_encode(patch, lossless=True, effort=JPEGXL_EFFORT, numthreads=1))
    return bytes(imagecodecs.jpeg8_encode(patch, level=JPEG_QUALITY, subsampling="444"))


def empty_patch(patch_px: int) -> NDArray[np.uint8]:
    """Memory for a patch, uint8 (P, P, 3), in which JPEG is decoded fast."""
    memory = np.empty(patch_px * patch_px * 3 + 2 * BOUNDARY, np.uint8)
    start = -memory.ctypes.data % BOUNDARY + BESIDE_BOUNDARY
    return memory[start : start + patch_px * patch_px * 3].reshape(patch_px, patch_px, 3)


def decode_image(
    data: bytes, image_format: ImageFormat, patch_px: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Decode the bytes of `encode_image`: uint8 (P, P, 3) RGB; into `out` if given, contiguous and of that shape.

    A damaged JPEG may still decode; only the store's checksums reveal the damage.

    Raises:
        ValueError: the bytes are not an image of that format, or its size is not `patch_px`. The codecs compare the
            header's size with the array's before they decode.
        LimitError: this process has no memory left.
    """
    patch = empty_patch(patch_px) if out is None else out
    patch.fill(0)  # a codec leaves alone what a damaged image lacks
    try:
        if image_format == "jpegxl":
            imagecodecs.jpegxl_decode(data, numthreads=1, out=patch)
        else:
            imagecodecs.jpeg8_decode(data, out=patch)
    except Exception as error:  # noqa: BLE001  (imagecodecs has an error class for each codec, and raises others too)
        raise_if_limit(error)
        raise ValueError(f"not a readable {image_format} image ({error})") from None
    return patch
