"""Patches as image files: lossless where it is promised, the same bytes from any thread, errors for damage."""

import contextlib
import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from support.failing import failing
from support.limits import little_memory_left
from support.pixels import noise
from support.places import ROOT
from support.slides import make_pixels

from pipeline.base import images
from pipeline.base.errors import ConfigError, LimitError
from pipeline.base.images import (
    BESIDE_BOUNDARY,
    BOUNDARY,
    ImageFormat,
    decode_image,
    empty_patch,
    encode_image,
    reduce_by_torch,
    require_lanczos,
)

FORMATS: tuple[ImageFormat, ...] = ("jpegxl", "jpeg")
PATCHES = st.integers(1, 40).flatmap(lambda side: hnp.arrays(np.uint8, (side, side, 3)))


@settings(max_examples=60, deadline=None)
@given(PATCHES)
def test_jpegxl_gives_back_every_pixel(patch: NDArray[np.uint8]) -> None:
    decoded = decode_image(encode_image(patch, "jpegxl"), "jpegxl", len(patch))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, patch)


def test_jpeg_is_close_without_chroma_subsampling() -> None:
    patch = make_pixels("tissue", 224, 224, seed=3)
    data = encode_image(patch, "jpeg")
    decoded = decode_image(data, "jpeg", 224)
    assert decoded.shape == patch.shape
    assert np.abs(decoded.astype(int) - patch).mean() < 2
    with Image.open(io.BytesIO(data)) as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - decoded).max() <= 2  # a standard file: RGB order


@pytest.mark.slow
@pytest.mark.parametrize("image_format", FORMATS)
def test_the_bytes_do_not_depend_on_threads_or_memory_layout(image_format: ImageFormat) -> None:
    patches = [make_pixels("tissue", 96, 96, seed=seed) for seed in range(12)]
    alone = [encode_image(patch, image_format) for patch in patches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(lambda patch: encode_image(patch, image_format), patches)) == alone
    strided = np.zeros((192, 192, 3), np.uint8)[::2, ::2]
    strided[:] = patches[0]
    assert encode_image(strided, image_format) == alone[0]


@pytest.mark.parametrize("image_format", FORMATS)
def test_no_image_is_a_value_error(image_format: ImageFormat) -> None:
    other: ImageFormat = "jpeg" if image_format == "jpegxl" else "jpegxl"
    for data in (b"", b"\xff", b"\xff\x0a", b"no image at all" * 9, encode_image(noise(32, 32, 3), other)):
        with pytest.raises(ValueError, match=f"not a readable {image_format} image"):
            decode_image(data, image_format, 32)


def test_a_jpegxl_cut_anywhere_is_a_value_error() -> None:
    data = encode_image(noise(16, 16, 3), "jpegxl")
    for length in range(len(data)):
        with pytest.raises(ValueError, match="not a readable jpegxl image"):
            decode_image(data[:length], "jpegxl", 16)


@pytest.mark.parametrize("image_format", FORMATS)
def test_flipped_bits_raise_nothing_but_a_value_error(image_format: ImageFormat) -> None:
    data, rng = encode_image(noise(32, 32, 3), image_format), np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            assert decode_image(bytes(damaged), image_format, 32).dtype == np.uint8
        except ValueError:
            refused += 1
    assert refused > 0  # anything but a ValueError has failed the test by now


# Reducing


@pytest.mark.parametrize("side", [448, 447, 443.2, 450.37, 224, 224.4, 300.5, 896.7])
@pytest.mark.parametrize("kind", ["tissue", "noise"])
def test_torch_reduces_as_pillow_to_a_grey_level_or_two(side: float, kind: str) -> None:
    px = int(np.ceil(side))
    region = make_pixels("tissue", px, px, mpp=0.25).copy() if kind == "tissue" else noise(px, px, 3)
    (ours,) = reduce_by_torch(region[None], side, 224)
    box = (0, 0, side, side)
    theirs = np.asarray(Image.fromarray(region).resize((224, 224), Image.Resampling.LANCZOS, box=box))
    assert (ours.shape, ours.dtype, ours.flags.c_contiguous) == ((224, 224, 3), np.uint8, True)
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= (2 if side % 1 else 1)
    assert (difference > 0).mean() < 0.03
    assert (difference > 1).mean() < 1e-4


@pytest.mark.parametrize("side", [448, 449.3])
def test_each_of_several_regions_comes_out_as_it_does_alone(side: float) -> None:
    regions = noise(9, 450, 450, 3)
    together = reduce_by_torch(regions, side, 224)
    assert (together.shape, together.flags.c_contiguous) == ((9, 224, 224, 3), True)
    for region, patch in zip(regions, together, strict=True):
        np.testing.assert_array_equal(reduce_by_torch(region[None].copy(), side, 224)[0], patch)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 64), st.floats(1, 4))
def test_any_side_gives_the_patch(patch_px: int, times: float) -> None:
    side = patch_px * times
    region = np.full((int(np.ceil(side)), int(np.ceil(side)), 3), (10, 200, 90), np.uint8)
    assert (reduce_by_torch(region[None], side, patch_px) == (10, 200, 90)).all()


PROGRAM = """
import sys
import numpy as np
from pipeline.base.images import reduce_by_torch
region = np.random.default_rng(0).integers(0, 256, (450, 450, 3), np.uint8)
sys.stdout.buffer.write(b"".join(reduce_by_torch(region[None], side, 224).tobytes() for side in (448, 449.3)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_older_processors_give_the_same_bytes(capability: str) -> None:
    """By torch's own switch; where the processor lacks it, torch takes what there is."""
    results = []
    for extra in ({}, {"ATEN_CPU_CAPABILITY": capability}):
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | extra
        results.append(
            subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, env=environment).stdout
        )
    assert len(results[0]) == 2 * 224 * 224 * 3
    assert results[0] == results[1]


def test_a_torch_without_the_filter_is_told_before_anything_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    require_lanczos("x")
    for version, enough in (("2.12.0a0+git", True), ("3.0.1+cu130", True), ("2.11.1+cpu", False), ("2.6.0", False)):
        monkeypatch.setattr(metadata, "version", {"torch": version}.__getitem__)
        with contextlib.nullcontext() if enough else pytest.raises(ConfigError, match=r"x: torch 2.* torch 2\.12 "):
            require_lanczos("x")


@pytest.mark.parametrize("image_format", FORMATS)
def test_decoding_into_memory_that_was_used_gives_the_same(image_format: ImageFormat) -> None:
    data = encode_image(make_pixels("tissue", 32, 32, seed=3), image_format)
    batch = np.full((3, 32, 32, 3), 77, np.uint8)
    found = decode_image(data, image_format, 32, batch[1])
    assert np.shares_memory(found, batch)
    np.testing.assert_array_equal(batch[1], decode_image(data, image_format, 32))
    assert (batch[[0, 2]] == 77).all()
    with pytest.raises(ValueError, match=f"not a readable {image_format} image"):
        decode_image(data, image_format, 16, batch[1, :16, :16].copy())


@pytest.mark.parametrize("patch_px", [1, 7, 224])
def test_memory_for_a_patch_begins_where_jpeg_is_decoded_fast(patch_px: int) -> None:
    for _ in range(5):
        patch = empty_patch(patch_px)
        assert patch.shape == (patch_px, patch_px, 3)
        assert patch.flags.c_contiguous
        assert patch.ctypes.data % BOUNDARY == BESIDE_BOUNDARY


def test_without_memory_no_image_is_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.imagecodecs, "jpegxl_decode", failing(MemoryError()))
    with little_memory_left(), pytest.raises(LimitError, match=r"ulimit -v"):
        decode_image(b"x", "jpegxl", 8)
    with pytest.raises(ValueError, match="not a readable jpegxl image"):
        decode_image(b"x", "jpegxl", 8)
