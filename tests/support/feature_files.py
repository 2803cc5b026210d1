"""Small feature files as tools write them, of made-up numbers; those of a store are in `support.features`."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

FEATURES = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)
COORDS = np.arange(10).reshape(5, 2) * 512


def write_trident_file(path: Path, features: NDArray[Any] = FEATURES, encoder: str = "uni_v1") -> None:
    """As TRIDENT does: features in chunks of one row, attributes on the datasets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        dataset = f.create_dataset("features", data=features, chunks=(1, features.shape[1]), maxshape=(None, None))
        dataset.attrs.update({"name": path.stem, "savetodir": "out", "encoder": encoder})
        coords = f.create_dataset("coords", data=COORDS.astype(np.int64))
        coords.attrs.update({"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40})


def write_plain_file(
    path: Path,
    coords: NDArray[Any] | None = COORDS,
    of_coords: Mapping[str, object] = MappingProxyType({}),
    file_attributes: Mapping[str, object] = MappingProxyType({}),
) -> Path:
    """Features and their coordinates, with just these attributes of the coordinates and of the file."""
    with h5py.File(path, "w") as f:
        f["features"] = FEATURES
        f.attrs.update(file_attributes)
        if coords is not None:
            f["coords"] = coords
            f["coords"].attrs.update(of_coords)
    return path


def write_stamp_file(path: Path, extractor: str = "uni2", code_hash: str = "0a0a0a0a", feat_type: str = "tile") -> Path:
    """As STAMP does, three tiles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        f["feats"], f["coords"] = np.ones((3, 4), np.float16), np.zeros((3, 2), np.float32)
        f.attrs.update(
            {
                "stamp_version": "2.3.0",
                "extractor": extractor,
                "unit": "um",
                "tile_size_um": 112.0,
                "tile_size_px": 224,
                "code_hash": code_hash,
                "feat_type": feat_type,
            }
        )
    return path
