"""The store's Zarr v3 metadata and the codec of its pixels. The one module that imports zarr.

Arrays are made with zarr-python, so that any Zarr v3 reader opens them. `embedding` and `status` need no more than zarr
itself; `pixels` needs this package installed, which registers the codec `g2l.image` as an entry point. Their shard
files are written by `shards`, and small arrays are read by `disk.raw_arrays`: zarr is imported, which takes 0.3 s, only
where an array is made or a pixel's codec is asked for.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON
from zarr.registry import register_codec

from pipeline.base.images import ImageFormat, decode_image, encode_image

CODEC_NAME = "g2l.image"


@dataclass(frozen=True)
class ImageCodec(ArrayBytesCodec):
    """Zarr v3 codec: one chunk (1, P, P, 3) uint8 as one image file."""

    is_fixed_size = False
    format: ImageFormat = "jpegxl"

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """From array metadata."""
        configuration: Any = data.get("configuration") or {}
        return cls(**configuration)

    def to_dict(self) -> dict[str, JSON]:
        """To array metadata."""
        return {"name": CODEC_NAME, "configuration": {"format": self.format}}

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        image = decode_image(chunk_data.to_bytes(), self.format, chunk_spec.shape[1])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(image.reshape(chunk_spec.shape))

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        image = np.ascontiguousarray(chunk_data.as_numpy_array()[0])
        return chunk_spec.prototype.buffer.from_bytes(encode_image(image, self.format))

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Not fixed: an image is as large as its content."""
        raise ValueError("the size of an encoded image is not known beforehand")


register_codec(CODEC_NAME, ImageCodec)


def create_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Make a Zarr v3 group at `folder` with these attributes."""
    zarr.create_group(str(folder), attributes=attributes, zarr_format=3)


def create_rows_array(
    folder: Path, name: str, shape: tuple[int, ...], dtype: str, *, shard_rows: int, chunk_rows: int, fill: float
) -> None:
    """Metadata of a sharded array whose first axis is rows; raw little-endian chunks, each with its CRC-32C."""
    zarr.create_array(
        str(folder),
        name=name,
        shape=shape,
        dtype=dtype,
        shards=(shard_rows, *shape[1:]),
        chunks=(chunk_rows, *shape[1:]),
        filters=None,
        serializer=BytesCodec(),
        compressors=[Crc32cCodec()],
        fill_value=fill,
        dimension_names=["row", *(f"axis{i}" for i in range(1, len(shape)))],
    )


def create_images_array(
    folder: Path, name: str, num_rows: int, patch_px: int, *, shard_rows: int, image_format: ImageFormat
) -> None:
    """Metadata of a sharded array of patches, one encoded image and its CRC-32C an inner chunk."""
    zarr.create_array(
        str(folder),
        name=name,
        shape=(num_rows, patch_px, patch_px, 3),
        dtype="uint8",
        shards=(shard_rows, patch_px, patch_px, 3),
        chunks=(1, patch_px, patch_px, 3),
        filters=None,
        serializer=ImageCodec(image_format),
        compressors=[Crc32cCodec()],
        fill_value=0,
        dimension_names=["row", "y", "x", "rgb"],
    )


def write_array(folder: Path, name: str, values: NDArray[Any]) -> None:
    """A small array, written whole."""
    zarr.create_array(str(folder), name=name, data=np.ascontiguousarray(values), chunks=values.shape, compressors=None)


def read_metadata(folder: Path, name: str) -> dict[str, Any]:
    """An array's metadata, in the words of the zarr that is installed; JSON types.

    Raises:
        OSError, LookupError, TypeError, ValueError: none, or not those of an array.
    """
    metadata: dict[str, Any] = json.loads(json.dumps(zarr.open_array(f"{folder}/{name}", mode="r").metadata.to_dict()))
    return metadata
