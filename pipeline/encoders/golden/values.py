"""Values of the test patch: an encoder's embedding of it, as one machine or tool computed it, in a file.

A file of `g2l models NAME --record` (JSON; docs/formats.md) says what was embedded and how. Of another tool, `.npy` is
read: the embedding alone, of the patch that `--patch-out` writes.
"""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.base.errors import EncoderError
from pipeline.base.outside import read_bytes, read_json, reading
from pipeline.disk.files import write_json
from pipeline.encoders.golden.drawn_patch import PATCH_NAME

FORMAT = "g2l-values-1"
LARGEST_VALUES_BYTES = 4 << 20
"""Size of a file of values above which it is not read. Our choice: 3,072 numbers of JSON take 80 kB."""
DIGITS = 9
"""Significant digits that hold a float32 exactly."""


@dataclass(frozen=True, eq=False)
class GoldenValues:
    """An embedding of the test patch, and what is known of how it was made.

    Attributes:
        values: float32 (D,).
        precision: the arithmetic that made them: "float32", "bfloat16" or "float16".
        about: what the file says besides: encoder, weights, patch, versions; empty for another tool's.
    """

    values: NDArray[np.float32]
    precision: str
    about: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As JSON types."""
        numbers = [float(f"{value:.{DIGITS}g}") for value in self.values.tolist()]
        return {"format": FORMAT, **self.about, "precision": self.precision, "values": numbers}


def write_golden(path: Path, golden: GoldenValues) -> None:
    """Write values as JSON, complete or absent."""
    write_json(path, golden.record())


def read_golden(path: Path) -> GoldenValues:
    """Read values: JSON, or `.npy` of one embedding.

    Raises:
        EncoderError: missing, damaged, of another test patch, or not one finite embedding.
    """
    if path.suffix == ".npy":
        with reading(path, "not an embedding that NumPy wrote", EncoderError):
            array = _npy_array(read_bytes(path, LARGEST_VALUES_BYTES))
        return GoldenValues(_one_embedding(array, path), "float16" if array.dtype.itemsize == 2 else "float32")
    with reading(path, "not a file of values", EncoderError, "`g2l models NAME --record --values FILE` makes one"):
        content = read_json(path, LARGEST_VALUES_BYTES)
    return _from_record(content, path)


def _from_record(content: dict[str, Any], path: Path) -> GoldenValues:
    """Values from the content of a JSON file."""
    patch, precision, values = content.get("patch"), content.get("precision", "float32"), content.get("values")
    if content.get("format") != FORMAT:
        raise EncoderError(f"{path}: format is {content.get('format')!r}, not {FORMAT!r}")
    if not isinstance(patch, dict) or patch.get("name") != PATCH_NAME:
        raise EncoderError(f"{path}: the values are not of the test patch {PATCH_NAME} (patch is {patch!r})")
    if precision not in ("float32", "bfloat16", "float16"):
        raise EncoderError(f"{path}: precision is {precision!r}, not float32, bfloat16 or float16")
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise EncoderError(f"{path}: values is not a list of numbers")
    about = {key: value for key, value in content.items() if key not in ("format", "precision", "values")}
    return GoldenValues(_one_embedding(np.array(values, np.float64), path), precision, about)


def _npy_array(data: bytes) -> NDArray[Any]:
    """The array of an `.npy` file's bytes, by its own header, which claims no more than there is.

    Raises:
        ValueError: it is none, or not one of floating point.
    """
    file = io.BytesIO(data)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = readers[npy.read_magic(file)](file)
    if dtype.kind != "f" or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{dtype} of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)


def _one_embedding(array: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """float32 (D,) of (D,) or (1, D).

    Raises:
        EncoderError: another shape, or not finite, or all zero.
    """
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1 or not array.size:
        raise EncoderError(f"{path}: holds {array.shape}, not the embedding of one patch, (D,) or (1, D)")
    values = array.astype(np.float32)
    if not np.isfinite(values).all() or not values.any():
        raise EncoderError(f"{path}: the values are all zero, or hold NaN or infinity")
    return values
