"""Resampling, blur and JPEG: those of torch, torchvision, scipy and libjpeg, but in whole numbers."""

import imagecodecs
import numpy as np
import pytest
import torch
from scipy import ndimage
from support.stores import make_patches
from torchvision.transforms import functional as tv

from pipeline.cohort.views.optics import KERNEL_BITS, blur, compress, gaussian_weights, quantisation, resample

NOISE = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
SMOOTH = make_patches(1, 56)[0]


@pytest.mark.parametrize("patch", [NOISE, SMOOTH], ids=["noise", "smooth"])
@pytest.mark.parametrize("sigma_milli_px", [100, 317, 1000, 2000])
def test_the_blur_is_that_of_torchvision_and_scipy(patch: np.ndarray, sigma_milli_px: int) -> None:
    sigma, found = sigma_milli_px / 1000, blur(patch, sigma_milli_px)
    image = torch.from_numpy(patch.transpose(2, 0, 1).copy()).double()
    expected = tv.gaussian_blur(image, [9, 9], [sigma, sigma]).numpy().transpose(1, 2, 0)
    assert np.abs(found - expected).max() < 0.6  # half a level of rounding, and the 14 bits of the kernel
    by_scipy = ndimage.gaussian_filter(patch.astype(float), (sigma, sigma, 0), mode="mirror", radius=(4, 4, 0))
    assert np.abs(found - by_scipy).max() < 0.6


def test_the_kernel_sums_to_one_for_every_sigma_that_is_drawn() -> None:
    for sigma_milli_px in range(100, 2001, 7):
        middle, *sides = gaussian_weights(sigma_milli_px)
        assert middle + 2 * sum(sides) == 1 << KERNEL_BITS
        assert sides == sorted(sides, reverse=True)
    assert gaussian_weights(100) == (1 << KERNEL_BITS, 0, 0, 0, 0)


@pytest.mark.parametrize("side", [45, 55, 57, 64, 70])
def test_resampling_is_that_of_torch(side: int) -> None:
    window = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    image = torch.from_numpy(window.transpose(2, 0, 1).copy())[None].double()
    expected = torch.nn.functional.interpolate(image, 56, mode="bilinear", align_corners=False)[0]
    assert np.abs(resample(window, 56) - expected.numpy().transpose(1, 2, 0)).max() <= 1
    assert resample(NOISE, 56) is NOISE


@pytest.mark.parametrize("quality", [40, 49, 50, 75, 95])
@pytest.mark.parametrize("side", [56, 53])
def test_compression_is_libjpegs(quality: int, side: int) -> None:
    """libjpeg rounds between the steps: a few levels in single pixels, nothing on average."""
    patch = np.ascontiguousarray(SMOOTH[:side, :side])
    encoded = imagecodecs.jpeg8_encode(patch, level=quality, subsampling="444")
    differences = np.abs(compress(patch, quality) - imagecodecs.jpeg8_decode(encoded).astype(int))
    assert differences.max() <= 8
    assert differences.mean() < 0.5
    lost = np.abs(compress(patch, quality) - patch.astype(int)).mean()
    assert lost > 2 * differences.mean()  # it is JPEG's loss, not none


def test_lower_quality_loses_more_and_the_best_nearly_nothing() -> None:
    lost = [np.abs(compress(NOISE, quality) - NOISE.astype(int)).mean() for quality in (100, 95, 75, 40)]
    assert lost == sorted(lost)
    assert lost[0] < 1
    flat = np.full((56, 56, 3), 128, np.uint8)
    assert np.array_equal(compress(flat, 40), flat)
    assert quantisation(50)[0, 0, :3].tolist() == [16, 11, 10]
