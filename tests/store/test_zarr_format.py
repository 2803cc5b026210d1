"""The store's Zarr metadata and codec: what is made is what zarr reads."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from support.pixels import noise
from zarr.registry import get_codec_class

from pipeline.base.images import ImageFormat
from pipeline.store.zarr_format import CODEC_NAME, ImageCodec, create_images_array, create_rows_array, read_metadata


def test_no_array_is_an_error_of_the_kinds_that_callers_expect(tmp_path: Path) -> None:
    with pytest.raises((OSError, LookupError, TypeError, ValueError)):
        read_metadata(tmp_path, "x")


def test_rows_lie_in_shards_and_chunks_with_checksums(tmp_path: Path) -> None:
    create_rows_array(tmp_path, "e", (22, 3), "float16", shard_rows=8, chunk_rows=4, fill=float("nan"))
    array = zarr.open_array(str(tmp_path / "e"), mode="r")
    assert (array.shape, array.shards, array.chunks, array.dtype) == ((22, 3), (8, 3), (4, 3), np.float16)
    assert np.isnan(array[:]).all()  # what is not there yet is the fill value
    metadata = read_metadata(tmp_path, "e")
    (sharding,) = metadata["codecs"]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "crc32c"]
    assert metadata["dimension_names"] == ["row", "axis1"]


@pytest.mark.parametrize("image_format", ["jpegxl", "jpeg"])
def test_the_codec_is_known_to_zarr_and_to_its_own_metadata(tmp_path: Path, image_format: ImageFormat) -> None:
    codec = ImageCodec(image_format)
    assert get_codec_class(CODEC_NAME) is ImageCodec
    assert ImageCodec.from_dict(codec.to_dict()) == codec
    create_images_array(tmp_path, "p", 5, 16, shard_rows=4, image_format=image_format)
    (sharding,) = read_metadata(tmp_path, "p")["codecs"]
    image, checksum = sharding["configuration"]["codecs"]
    assert image == codec.to_dict()
    assert checksum["name"] == "crc32c"
    with pytest.raises(ValueError, match="not known beforehand"):
        codec.compute_encoded_size(768, None)  # type: ignore[arg-type]


def test_patches_that_zarr_writes_are_lossless_and_absent_ones_black(tmp_path: Path) -> None:
    create_images_array(tmp_path, "p", 5, 16, shard_rows=4, image_format="jpegxl")
    patch = noise(16, 16, 3)
    zarr.open_array(str(tmp_path / "p"), mode="r+")[2] = patch
    found = np.asarray(zarr.open_array(str(tmp_path / "p"), mode="r")[:])
    np.testing.assert_array_equal(found[2], patch)
    assert not found[[0, 1, 3, 4]].any()
