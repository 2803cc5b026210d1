"""The store's Zarr metadata and codec: what is made is what zarr reads, and only raw numbers in one chunk are taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from support.pixels import noise
from support.store_writing import edit_json
from zarr.registry import get_codec_class

from pipeline.base.images import ImageFormat
from pipeline.base.outside import UnsafeError
from pipeline.store.zarr_format import (
    CODEC_NAME,
    ImageCodec,
    RawArray,
    create_group,
    create_images_array,
    create_rows_array,
    read_array,
    read_metadata,
    write_array,
)

SMALL = [
    np.arange(6, dtype=np.int64).reshape(3, 2),
    np.array([0, 1, 1, 0], np.uint8),
    np.zeros((4, 2), np.int32),  # zarr writes no chunk of zeros
    np.arange(12, dtype=np.int64).reshape(2, 6).T,  # not as C lays it out
]


@pytest.mark.parametrize("values", SMALL, ids=lambda values: f"{values.dtype} {values.shape}")
def test_a_small_array_comes_back(tmp_path: Path, values: NDArray[Any]) -> None:
    create_group(tmp_path / "g", {"g2l": {"a": 1}})
    write_array(tmp_path / "g", "x", values)
    group = zarr.open_group(str(tmp_path / "g"), mode="r")
    assert group.attrs["g2l"] == {"a": 1}
    for found in (read_array(tmp_path / "g", "x"), np.asarray(group["x"][:])):
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("how", "words"), [({"chunks": (3, 2)}, "chunks of"), ({"chunks": (6, 2), "compressors": "auto"}, "codecs bytes, ")]
)
def test_an_array_that_is_stored_in_another_way_is_refused(tmp_path: Path, how: dict[str, Any], words: str) -> None:
    zarr.create_array(str(tmp_path), name="x", data=np.ones((6, 2)), **({"compressors": None} | how))
    with pytest.raises(UnsafeError, match=rf"x: .*{words}.*; raw numbers in one chunk are read"):
        read_array(tmp_path, "x")


def resize(value: dict[str, Any], rows: int) -> None:
    value["shape"][0] = value["chunk_grid"]["configuration"]["chunk_shape"][0] = rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: resize(value, 7), "x claims 56 bytes, its file has 48"),
        (lambda value: resize(value, 2**60), "x"),
        (lambda value: value.update(data_type="int64", storage_transformers=[{"name": "x"}]), "raw numbers"),
    ],
)
def test_an_array_is_as_large_as_its_file(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    write_array(tmp_path, "x", np.arange(6, dtype=np.int64))
    edit_json(tmp_path / "x" / "zarr.json", change)
    with pytest.raises(UnsafeError, match=words):
        read_array(tmp_path, "x")


def test_no_array_is_an_error_of_the_kinds_that_callers_expect(tmp_path: Path) -> None:
    for read in (read_array, read_metadata):
        with pytest.raises((OSError, LookupError, TypeError, ValueError)):
            read(tmp_path, "x")


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


@pytest.mark.parametrize("values", [np.arange(12).reshape(6, 2), np.zeros((6, 2), np.int64), np.arange(6, dtype="u1")])
def test_some_rows_are_those_of_the_whole(tmp_path: Path, values: NDArray[np.int64]) -> None:
    create_group(tmp_path / "g", {})
    write_array(tmp_path / "g", "x", values)
    rows = RawArray(tmp_path / "g", "x")
    for start, stop in ((0, 6), (2, 5), (3, 3), (4, 9), (7, 9), (5, 2)):
        found = rows.read(start, stop)
        np.testing.assert_array_equal(found, values[start:stop])
        assert found.dtype == values.dtype
