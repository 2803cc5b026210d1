"""Files that hold features: HDF5, PyTorch tensors and JSON, read behind one boundary and written complete or absent.

Nothing here belongs to one tool: the modules of `features/tools` put these parts together. Also the arrays that G2L
keeps for itself, with hashes that show damage. Left out: `.pt` files that need more than tensors.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import is_there, parse_object, read_json, reading
from pipeline.disk import hdf5_input
from pipeline.disk.files import write_aside
from pipeline.disk.tensor_files import as_array, load_tensors

FORMAT_VERSION = 1
FORMAT_ATTRIBUTE = "g2l-arrays"
"""Attribute of our own files: JSON of the format's version and the SHA-256 of each array, so that damage is seen."""
HDF5_SUFFIXES = (".h5", ".hdf5")


class Hdf5Features(NamedTuple):
    """A dataset of features and what goes with it, as they stand in an HDF5 file."""

    values: NDArray[Any]
    coords: NDArray[Any] | None
    attributes: dict[str, Any]
    file_attributes: dict[str, Any]


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]], attributes: dict[str, str | int | float]) -> None:
    """Write arrays of numbers and attributes as one HDF5 file, complete or absent. The same content gives the same
    bytes.

    Raises:
        BenchmarkError: it cannot be written; what was at `path` is still there.
    """
    digests = {}
    buffer = io.BytesIO()  # HDF5 reads back what it writes, and its own errors hide the cause (a full disk)
    with h5py.File(buffer, "w", libver="v110", track_order=False) as f:
        for name, values in sorted(arrays.items()):
            assert values.dtype.kind in "biuf", f"{name}: arrays of numbers only, not {values.dtype}"
            f.create_dataset(name, data=values, track_times=False)
            digests[name] = _digest(values)
        for key, value in sorted(attributes.items()):
            f.attrs[key] = value
        f.attrs[FORMAT_ATTRIBUTE] = json.dumps({"version": FORMAT_VERSION, "sha256": digests}, sort_keys=True)
    try:
        with write_aside(path) as out:
            out.write(buffer.getbuffer())
    except OSError as error:
        raise BenchmarkError(f"cannot write {path}: {error.strerror}. Choose another folder") from error


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What `write_arrays` wrote: arrays by name, and attributes.

    Raises:
        BenchmarkError: no such file, another kind of file, or content that is not as it was written.
    """
    with reading(path, "not a readable file of arrays", BenchmarkError, "Delete it"), hdf5_input.open_hdf5(path) as f:
        attributes = hdf5_input.attributes(f)
        if FORMAT_ATTRIBUTE not in attributes:
            raise BenchmarkError(f"{path}: an HDF5 file, but not one that G2L wrote")
        written = parse_object(attributes.pop(FORMAT_ATTRIBUTE))
        if written["version"] != FORMAT_VERSION:
            raise BenchmarkError(f"{path}: format version {written['version']}, not {FORMAT_VERSION}. Delete it")
        arrays = {name: hdf5_input.read_values(_dataset(f, name)) for name in written["sha256"]}
        changed = [name for name, digest in written["sha256"].items() if _digest(arrays[name]) != digest]
    if changed:
        raise BenchmarkError(f"{path}: damaged: {', '.join(changed)} is not as it was written. Delete it")
    return arrays, attributes


def write_features(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    array_attributes: Mapping[str, Mapping[str, Any]],
    file_attributes: Mapping[str, Any],
    *,
    row_chunks: bool = False,
) -> None:
    """Write arrays with attributes of their own, and attributes of the file, as other tools read them; complete or
    absent. The same content gives the same bytes. `row_chunks` stores each row by itself and lets the file grow.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="v110", track_order=False) as f:
        for name, values in arrays.items():
            rows = {"chunks": (1, *values.shape[1:]), "maxshape": (None, *values.shape[1:])} if row_chunks else {}
            dataset = f.create_dataset(name, data=values, track_times=False, **rows)
            dataset.attrs.update(array_attributes.get(name, {}))
        f.attrs.update(file_attributes)
    with write_aside(path) as out:
        out.write(buffer.getbuffer())


def read_attributes(path: Path) -> dict[str, dict[str, Any]]:
    """Attributes of an HDF5 file ("") and of each dataset in it, by name; arrays stay arrays.

    Raises:
        BenchmarkError: the file cannot be read.
    """
    with reading(path, "not a readable HDF5 file", BenchmarkError), hdf5_input.open_hdf5(path) as f:
        carriers = {"": f} | hdf5_input.datasets(f)
        return {name: hdf5_input.attributes(carrier) for name, carrier in carriers.items()}


def read_coords(path: Path) -> NDArray[Any]:
    """The dataset `coords` of an HDF5 file of coordinates alone, as it stands there.

    Raises:
        BenchmarkError: the file cannot be read, or has none.
    """
    with reading(path, "no coordinates that can be read", BenchmarkError), hdf5_input.open_hdf5(path) as f:
        return hdf5_input.read_values(_dataset(f, "coords"))


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that must be there.

    Raises:
        KeyError: it is not.
    """
    found = hdf5_input.dataset(file, name)
    if found is None:
        raise KeyError(name)
    return found


def read_dataset_attributes(path: Path, name: str) -> dict[str, dict[str, Any] | None]:
    """Attributes of an HDF5 file ("") and of one dataset in it, `None` if it is not there; for use within `reading`.

    Raises:
        Exception: any, of a file that cannot be read.
    """
    with hdf5_input.open_hdf5(path) as f:
        values = hdf5_input.dataset(f, name) if name else None
        return {name: None if values is None else hdf5_input.attributes(values), "": hdf5_input.attributes(f)}


def read_hdf5_features(path: Path, name: str) -> Hdf5Features | None:
    """The dataset `name` of an HDF5 file, and its `coords`; `None` if it is not there. For use within `reading`.

    Raises:
        Exception: any, of a file that cannot be read.
    """
    with hdf5_input.open_hdf5(path) as f:
        values = hdf5_input.dataset(f, name)
        if values is None:
            return None
        coords = hdf5_input.dataset(f, "coords")
        return Hdf5Features(
            hdf5_input.read_values(values),
            None if coords is None else hdf5_input.read_values(coords),
            hdf5_input.attributes(values),
            hdf5_input.attributes(f),
        )


def dataset_names(path: Path) -> list[str]:
    """What lies right in an HDF5 file, sorted; empty for a file of another format. For use within `reading`.

    Raises:
        Exception: any, of a file that cannot be read.
    """
    if path.suffix not in HDF5_SUFFIXES:
        return []
    with hdf5_input.open_hdf5(path) as f:
        return sorted(f)


def read_tensor(path: Path) -> NDArray[np.float32]:
    """The numbers of a file that holds one bare tensor, as float32; for use within `reading`.

    Raises:
        BenchmarkError: it holds something else.
        Exception: any other, of a file that cannot be read.
    """
    tensor = load_tensors(path)
    if not isinstance(tensor, torch.Tensor):
        raise BenchmarkError(f"{path}: holds a {type(tensor).__name__}, not a tensor (N, D)")
    if not (tensor.is_floating_point() or tensor.dtype in (torch.uint8, torch.int8, torch.int32, torch.int64)):
        raise BenchmarkError(f"{path}: holds {tensor.dtype}, not numbers")
    return as_array(tensor)


def tensor_bytes(features: NDArray[np.float32] | NDArray[np.float16]) -> bytes:
    """A bare tensor as torch saves it."""
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(features)), buffer)
    return buffer.getvalue()


def read_beside(path: Path) -> dict[str, Any]:
    """The object in a JSON file that may lie beside a feature file; empty without one.

    Raises:
        BenchmarkError: something lies there that is no such file.
    """
    if not is_there(path):
        return {}
    with reading(path, "not a readable description of the features", BenchmarkError):
        return read_json(path)


def _digest(values: NDArray[Any]) -> str:
    """Hex SHA-256 of an array's type, shape and little-endian bytes."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str}{values.shape}".encode())
    digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def as_text(value: Any) -> str | None:
    """An attribute as text, also from an array of one; `None` where it is empty or something else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    value = hdf5_input.python_value(value)
    if not isinstance(value, str):
        return None
    return value.encode(errors="replace").decode().strip() or None  # HDF5's strings may be no UTF-8
