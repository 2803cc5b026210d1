"""Read Zarr v3 arrays that are raw numbers in one chunk, without zarr, whose import takes longer than what is read.

`store.zarr_format` writes them: the plan that a store carries. Anything else is refused, so that what a file claims to
be is never more than what it is. Left out: arrays of embeddings and pixels, which are shards (`store.shards`).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.outside import UnsafeError, read_json, read_part, require_regular, require_room

METADATA = "zarr.json"
"""File of the metadata of a group or an array, in its folder."""


def _require_raw(folder: Path, name: str) -> tuple[dict[str, Any], Path]:
    """See that an array is raw numbers in one chunk, as large as its file; its metadata and the chunk's path. Zarr
    writes no chunk where all numbers are the fill value.

    Raises:
        UnsafeError: it is stored in another way, or is not as large as its file.
        OSError, LookupError, TypeError, ValueError: there is none, or it is damaged.
    """
    metadata = read_json(folder / name / METADATA)
    codecs = [codec["name"] for codec in metadata["codecs"]]
    sides = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    if codecs != ["bytes"] or sides != metadata["shape"] or metadata.get("storage_transformers"):
        raise UnsafeError(f"{name}: codecs {', '.join(codecs)}, chunks of {sides}; raw numbers in one chunk are read")
    size = math.prod(sides) * np.dtype(metadata["data_type"]).itemsize
    require_room(size, name)
    chunk = folder.joinpath(name, "c", *["0"] * len(sides))
    if chunk.exists() and (stored := require_regular(chunk)) != size:
        raise UnsafeError(f"{name} claims {size:,} bytes, its file has {stored:,}")
    return metadata, chunk


class RawArray:
    """An array as `write_array` of `store.zarr_format` wrote it, of which some rows are read at a time; raises as
    `read_array`.

    Attributes:
        folder: where it lies.
        num_rows: how many rows it has.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        metadata, self._chunk = _require_raw(folder, name)
        self.num_rows, *sides = metadata["shape"]
        self._sides, self._fill = tuple(sides), metadata["fill_value"]
        order = metadata["codecs"][0].get("configuration", {}).get("endian", "little")
        self._dtype = np.dtype(metadata["data_type"]).newbyteorder("<" if order == "little" else ">")

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop`, those that there are.

        Raises:
            OSError, UnsafeError: the file cannot be read.
            ValueError: it has become shorter.
        """
        count = max(min(stop, self.num_rows) - start, 0)
        shape = (count, *self._sides)
        if not self._chunk.exists():
            return np.full(shape, self._fill, self._dtype.newbyteorder("="))
        row_bytes = math.prod(self._sides) * self._dtype.itemsize
        data = read_part(self._chunk, start * row_bytes, count * row_bytes)
        if len(data) < count * row_bytes:
            raise ValueError(f"{self._chunk} has become shorter")
        return np.frombuffer(data, self._dtype).reshape(shape).astype(self._dtype.newbyteorder("="), copy=False)


def read_array(folder: Path, name: str) -> NDArray[Any]:
    """A whole array, as `write_array` wrote it; raises as `_require_raw`."""
    array = RawArray(folder, name)
    return array.read(0, array.num_rows)
