"""Arrays in HDF5 files of our own, and the feature files that other tools write: one file a slide, a row a patch.

Read are TRIDENT's and Patho-Bench's `{slide}.h5` (`features`, `coords`), CLAM's `h5_files/` and `pt_files/`,
slide2vec's `tile_embeddings/` (`.pt` or `.npz`, with `.meta.json`) and STAMP's `.h5` (`feats`, coordinates in um);
`folders` finds them, `layouts` writes them through here. All are read behind `outside.reading`: whatever is
wrong with a file becomes one error that names it. Left out: embeddings of whole slides, and `.pt` files that need more
than tensors.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import is_there, parse_object, read_json, reading
from pipeline.disk import hdf5_input
from pipeline.disk.files import write_aside
from pipeline.disk.tensor_files import as_array, load_tensors, read_npz

FORMAT_VERSION = 1
FORMAT_ATTRIBUTE = "g2l-arrays"
"""Attribute of our own files: JSON of the format's version and the SHA-256 of each array, so that damage is seen."""
FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".npz")
NO_FEATURES = (".coordinates.npz",)
"""Endings of slide2vec's coordinates, which are no features."""
FEATURE_DATASETS = ("features", "feats")
"""TRIDENT, CLAM, Patho-Bench and slide2vec; STAMP."""


@dataclass(frozen=True, eq=False)
class SlideFeatures:
    """The features of one slide, N patches.

    Attributes:
        features: float32 (N, D), all finite.
        coords: (N, 2) as the tool wrote them, (x, y): int64 in level-0 pixels, or float64 in um (STAMP); `None` where
            the file has none.
        encoder: the encoder's name as the tool wrote it, if it did.
    """

    features: NDArray[np.float32]
    coords: NDArray[np.int64] | NDArray[np.float64] | None
    encoder: str | None


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
    of_arrays: Mapping[str, Mapping[str, Any]],
    of_file: Mapping[str, Any],
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
            dataset.attrs.update(of_arrays.get(name, {}))
        f.attrs.update(of_file)
    with write_aside(path) as out:
        out.write(buffer.getbuffer())


def read_features(path: Path) -> SlideFeatures:
    """The features of a slide from a file of any of the module's layouts; (1, N, D) is taken as (N, D).

    Raises:
        BenchmarkError: the file cannot be read, holds no features, or features that are not (N, D), have no rows, or
            have rows with NaN or infinite values (how many). The message names the file.
    """
    with reading(path, "not a readable feature file", BenchmarkError):
        if path.suffix == ".pt":
            raw, coords, encoder = _read_tensor(path)
        elif path.suffix == ".npz":
            raw, coords, encoder = _read_npz(path)
        else:
            raw, coords, encoder = _read_hdf5(path)
        features = _checked(raw, path)
        if coords is not None:
            coords = coords[0] if coords.ndim == 3 and len(coords) == 1 else coords
            if coords.shape != (len(features), 2):
                raise BenchmarkError(f"{path}: {len(features)} rows of features, but coords of shape {coords.shape}")
            if coords.dtype.kind not in "fiu":
                raise BenchmarkError(f"{path}: coords of type {coords.dtype}, not numbers")
            coords = coords.astype(np.int64 if coords.dtype.kind in "iu" else np.float64)
    return SlideFeatures(features, coords, encoder)


def read_attributes(path: Path) -> dict[str, dict[str, Any]]:
    """Attributes of an HDF5 file ("") and of each dataset in it, by name; arrays stay arrays.

    Raises:
        BenchmarkError: the file cannot be read.
    """
    with reading(path, "not a readable HDF5 file", BenchmarkError), hdf5_input.open_hdf5(path) as f:
        carriers = {"": f} | hdf5_input.datasets(f)
        return {name: hdf5_input.attributes(carrier) for name, carrier in carriers.items()}


def read_coords(path: Path) -> NDArray[Any]:
    """The dataset `coords` of an HDF5 file of coordinates alone (TRIDENT's and CLAM's `patches/`), as it stands there.

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


def _read_hdf5(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, str | None]:
    """Features, coordinates and encoder of an HDF5 file, as they stand there.

    Raises:
        BenchmarkError: it has no dataset of features.
    """
    with hdf5_input.open_hdf5(path) as f:
        found = next(filter(None, (hdf5_input.dataset(f, name) for name in FEATURE_DATASETS)), None)
        if found is None:
            raise BenchmarkError(
                f"{path}: no dataset {' or '.join(FEATURE_DATASETS)}; it holds {', '.join(sorted(f)) or 'nothing'}"
            )
        coords = hdf5_input.dataset(f, "coords")
        of_file, of_features = hdf5_input.attributes(f), hdf5_input.attributes(found)
        named = (of_features.get("encoder"), of_file.get("encoder"), of_file.get("extractor"))
        raw = hdf5_input.read_values(found)
        places = None if coords is None else hdf5_input.read_values(coords)
        return raw, places, next(filter(None, map(_text, named)), None)


def _read_tensor(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, str | None]:
    """Features of CLAM's or slide2vec's bare tensor; coordinates and encoder as slide2vec keeps them beside it.

    Raises:
        BenchmarkError: it holds something else.
    """
    tensor = load_tensors(path)
    if not isinstance(tensor, torch.Tensor):
        raise BenchmarkError(f"{path}: holds a {type(tensor).__name__}, not a tensor (N, D)")
    if not (tensor.is_floating_point() or tensor.dtype in (torch.uint8, torch.int8, torch.int32, torch.int64)):
        raise BenchmarkError(f"{path}: holds {tensor.dtype}, not numbers")
    raw = as_array(tensor)
    return raw, _slide2vec_coords(path, len(raw), None), _slide2vec_encoder(path)


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, str | None]:
    """Features of slide2vec's `.npz`, with its own `tile_index` for the coordinates.

    Raises:
        BenchmarkError: it has no features.
    """
    arrays, names = read_npz(path, ("features", "tile_index"))
    if "features" not in arrays:
        raise BenchmarkError(f"{path}: no array features; it holds {', '.join(names) or 'nothing'}")
    raw = arrays["features"]
    return raw, _slide2vec_coords(path, len(raw), arrays.get("tile_index")), _slide2vec_encoder(path)


def _slide2vec_encoder(path: Path) -> str | None:
    """The encoder of `{slide}.meta.json` beside a feature file, if there is one."""
    meta = path.with_name(f"{path.stem}.meta.json")
    return _text(read_beside(meta).get("encoder_name"))


def read_beside(path: Path) -> dict[str, Any]:
    """The object in a JSON file that may lie beside a feature file; empty without one.

    Raises:
        BenchmarkError: something lies there that is no such file.
    """
    if not is_there(path):
        return {}
    with reading(path, "not a readable description of the features", BenchmarkError):
        return read_json(path)


def _slide2vec_coords(path: Path, num_rows: int, index: NDArray[Any] | None) -> NDArray[Any] | None:
    """(x, y) of `tiles/{slide}.coordinates.npz`, where slide2vec's tree has it and it has as many tiles; else `None`.

    `index` is each row's `tile_index`; without it, rows are in the order of the file.

    Raises:
        BenchmarkError: `index` names tiles that the file does not have, or the file has not one index a tile.
    """
    source = path.parent.parent / "tiles" / f"{path.stem}{NO_FEATURES[0]}"
    if path.parent.name != "tile_embeddings" or not is_there(source):
        return None
    with reading(source, "not a readable file of coordinates", BenchmarkError):
        tiles, _ = read_npz(source, ("x", "y", "tile_index"))
    coords, tile_index = np.stack([tiles["x"], tiles["y"]], axis=1), tiles["tile_index"]
    if index is not None:
        if tile_index.shape != (len(coords),) or len(np.unique(tile_index)) < len(coords):
            raise BenchmarkError(f"{path}: {source} has not one tile_index a tile; of which are the features?")
        unknown = ~np.isin(index, tile_index)
        if unknown.any():
            raise BenchmarkError(f"{path}: {int(unknown.sum())} of {num_rows} rows have a tile_index that {source} has "
                                 f"not (the first: {index[unknown][0]}). Was it tiled anew since?")  # fmt: skip
        order = np.argsort(tile_index)
        places = np.searchsorted(tile_index, index, sorter=order)
        coords = coords[order[places]]
    return coords if len(coords) == num_rows else None


def _checked(raw: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Raw features as float32 (N, D).

    Raises:
        BenchmarkError: see `read_features`.
    """
    if raw.dtype.kind not in "fiu":
        raise BenchmarkError(f"{path}: features of type {raw.dtype}, not numbers")
    if raw.ndim == 3 and len(raw) == 1:
        raw = raw[0]
    if raw.ndim != 2:
        raise BenchmarkError(f"{path}: features of shape {raw.shape}; a row a patch is needed, (N, D)")
    if 0 in raw.shape:
        raise BenchmarkError(f"{path}: features of shape {raw.shape}: no patches")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is counted below
        features = np.ascontiguousarray(raw, dtype=np.float32)
    broken = int((~np.isfinite(features).all(axis=1)).sum())
    if broken:
        raise BenchmarkError(f"{path}: {broken} of {len(features)} rows have NaN or infinite values. Embed it again")
    return features


def _digest(values: NDArray[Any]) -> str:
    """Hex SHA-256 of an array's type, shape and little-endian bytes."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str}{values.shape}".encode())
    digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _text(value: Any) -> str | None:
    """An attribute as text, also from an array of one; `None` where it is empty or something else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    value = hdf5_input.plain(value)
    if not isinstance(value, str):
        return None
    return value.encode(errors="replace").decode().strip() or None  # HDF5's strings may be no UTF-8
