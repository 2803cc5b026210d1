"""Resample, blur and compress a patch, in integers, so that it is the same on any machine. Pure.

Sums of products of whole numbers below 2**53 are exact in float64, in whatever order a library adds them: `blur` and
`compress` use that. Left out: JPEG with fewer colour samples (4:2:0), and the entropy coding, which loses nothing.
"""

from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RADIUS_PX = 4
"""Of the blur, whose kernel is then 9 x 9: G2L (arXiv 2510.11176)."""
KERNEL_BITS = 14
SHARE_BITS = 11
"""Fraction bits of the share of a neighbour in resampling: products of two of them and a grey level fit into 32."""
DCT_BITS = 12
BLOCK_PX = 8

LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
CHROMINANCE = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 "
    "99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"
)
"""Quantisation at quality 50, row by row: ITU-T T.81, annex K.1."""


def resample(window: NDArray[np.uint8], patch_px: int) -> NDArray[np.uint8]:
    """Resample (S, S, 3) to (P, P, 3), bilinear with the centres of the corner pixels apart from the edges, as
    `torch.nn.functional.interpolate` without `align_corners`; no filter against aliasing, for sides that differ little.
    """
    side = len(window)
    if side == patch_px:
        return window
    position = (2 * np.arange(patch_px, dtype=np.int64) + 1) * side - patch_px  # in units of 1 / (2 P)
    position = np.maximum(position, 0)
    low = position // (2 * patch_px)
    high = np.minimum(low + 1, side - 1)
    share = (((position % (2 * patch_px)) << SHARE_BITS) // (2 * patch_px)).astype(np.int32)
    rest = np.int32(1 << SHARE_BITS) - share
    pixels = window.astype(np.int32)
    rows = pixels[low] * rest[:, None, None] + pixels[high] * share[:, None, None]
    both = rows[:, low] * rest[:, None] + rows[:, high] * share[:, None]
    resampled: NDArray[np.uint8] = ((both + (1 << 2 * SHARE_BITS - 1)) >> 2 * SHARE_BITS).astype(np.uint8)
    return resampled


@lru_cache(maxsize=4096)
def gaussian_weights(sigma_milli_px: int) -> tuple[int, ...]:
    """Weights of the blur at distance 0 to `RADIUS_PX`, in units of 1 / 2**14; over the kernel they sum to 1.

    Computed in decimals, whose exponential is rounded correctly: that of floats may differ between machines.
    """
    context = Context(prec=30)
    two_variances = 2 * Decimal(sigma_milli_px) ** 2 / 1_000_000
    density = [context.exp(-Decimal(distance**2) / two_variances) for distance in range(RADIUS_PX + 1)]
    total = density[0] + 2 * sum(density[1:], Decimal(0))
    sides = [int((value / total * (1 << KERNEL_BITS)).to_integral_value()) for value in density[1:]]
    return ((1 << KERNEL_BITS) - 2 * sum(sides), *sides)


def blur(patch: NDArray[np.uint8], sigma_milli_px: int) -> NDArray[np.uint8]:
    """Blur (P, P, 3) by a Gaussian of 9 x 9; beyond the edges the patch is reflected, as torchvision does."""
    from scipy import ndimage  # 0.15 s, which only views need: plans and `inspect` read this module's names

    middle, *sides = gaussian_weights(sigma_milli_px)
    weights = [*reversed(sides), middle, *sides]
    rows = ndimage.correlate1d(patch, weights, axis=0, output=np.int32, mode="mirror")
    both: NDArray[np.int64] = ndimage.correlate1d(rows, weights, axis=1, output=np.int64, mode="mirror")
    blurred: NDArray[np.uint8] = ((both + (1 << 2 * KERNEL_BITS - 1)) >> 2 * KERNEL_BITS).astype(np.uint8)
    return blurred


def _dct_matrix() -> NDArray[np.float64]:
    """The discrete cosine transform of 8 values, in units of 1 / 2**12: whole numbers."""
    frequency, place = np.mgrid[:BLOCK_PX, :BLOCK_PX]
    scale = np.where(frequency == 0, np.sqrt(1 / 8), 0.5)
    return np.asarray(np.rint((1 << DCT_BITS) * scale * np.cos((2 * place + 1) * frequency * np.pi / 16)))


DCT = _dct_matrix()


@lru_cache(maxsize=100)
def quantisation(quality: int) -> NDArray[np.float64]:
    """Steps of the coefficients of Y, Cb and Cr at a quality of 1 to 100, as libjpeg scales them: (3, 8, 8)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = [np.array(list(map(int, text.split()))) for text in (LUMINANCE, CHROMINANCE, CHROMINANCE)]
    steps = [((table * scale + 50) // 100).clip(1, 255) for table in tables]
    return np.stack(steps).reshape(3, BLOCK_PX, BLOCK_PX).astype(np.float64)


def compress(patch: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """What is left of (P, P, 3) after JPEG at a quality of 1 to 100, with all colour samples (4:4:4)."""
    side, one = len(patch), float(1 << 2 * DCT_BITS)
    padding = -side % BLOCK_PX
    planes = np.pad(_to_ycc(patch) - 128, ((0, 0), (0, padding), (0, padding)), mode="edge").astype(np.float64)
    num_blocks = planes.shape[1] // BLOCK_PX
    steps = np.tile(quantisation(quality), (1, num_blocks, num_blocks))
    kept = np.rint(_by_blocks(_by_blocks(planes, DCT), DCT) / (steps * one)) * steps
    levels = np.rint(_by_blocks(_by_blocks(kept, DCT.T), DCT.T) / one).clip(-128, 127) + 128
    return _to_rgb(levels[:, :side, :side].astype(np.int32))


def _by_blocks(planes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Transpose the planes (3, S, S), and multiply `matrix` with each column of each 8 x 8 block: twice is both
    directions.
    """
    columns = np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(3, -1, BLOCK_PX, planes.shape[1])
    products = np.empty_like(columns)
    for place, weights in enumerate(matrix):  # not by BLAS, whose threads stand in the way of those that read
        products[:, :, place] = weights[0] * columns[:, :, 0]
        for weight, column in zip(weights[1:], columns.transpose(2, 0, 1, 3)[1:], strict=True):
            products[:, :, place] += weight * column
    return products.reshape(planes.shape)


def _to_ycc(patch: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Y, Cb and Cr of (P, P, 3), as JFIF has them: int32 (3, P, P) in 0..255."""
    red, green, blue = patch.transpose(2, 0, 1).astype(np.int32)
    half, middle = 1 << 15, (128 << 16) + (1 << 15) - 1
    luma: Any = (19595 * red + 38470 * green + 7471 * blue + half) >> 16
    chroma_blue = (32768 * blue - 11059 * red - 21709 * green + middle) >> 16
    chroma_red = (32768 * red - 27439 * green - 5329 * blue + middle) >> 16
    return np.stack([luma, chroma_blue, chroma_red])


def _to_rgb(planes: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The inverse of `_to_ycc`: uint8 (P, P, 3)."""
    luma, chroma_blue, chroma_red = planes[0], planes[1] - 128, planes[2] - 128
    half = 1 << 15
    red = luma + ((91881 * chroma_red + half) >> 16)
    green = luma + ((-22554 * chroma_blue - 46802 * chroma_red + half) >> 16)
    blue = luma + ((116130 * chroma_blue + half) >> 16)
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)
