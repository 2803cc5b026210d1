"""Embeddings of an evaluation: computed once for each model and data, and kept as HDF5.

A file's name and attributes are hashes of all that the numbers depend on: the encoder's architecture, weights,
statistics and arithmetic; the pixels and how they are prepared. A file that is damaged or of something else is made
anew.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import say
from pipeline.base.errors import BenchmarkError
from pipeline.disk.asides import remove_asides_of
from pipeline.disk.files import sha256_json
from pipeline.features.files import read_arrays, write_arrays

NAME_DIGITS = 16
"""Hex digits of each hash in a file's name; the whole ones are inside and are compared."""


def cached(
    folder: Path, model: dict[str, Any], data: dict[str, Any], compute: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The embeddings of a model and data from `folder`, or computed and kept there; float32 (N, D)."""
    model_hash, data_hash = sha256_json(model), sha256_json(data)
    path = folder / f"{model_hash[:NAME_DIGITS]}-{data_hash[:NAME_DIGITS]}.h5"
    if path.exists():
        try:
            arrays, attributes = read_arrays(path)
        except BenchmarkError as error:
            say(f"note: {error}; made anew")
        else:
            if (attributes.get("model_hash"), attributes.get("data_hash")) == (model_hash, data_hash):
                kept: NDArray[np.float32] = arrays["features"]
                return kept
            say(f"note: {path} holds other embeddings; made anew")
    features = compute()
    folder.mkdir(parents=True, exist_ok=True)
    remove_asides_of(path, locked=False)  # others may share the folder
    attributes = {"model_hash": model_hash, "data_hash": data_hash, "model": json.dumps(model, sort_keys=True)}
    write_arrays(path, {"features": features}, attributes)
    return features


def require_finite(label: str, embeddings: NDArray[np.float32], what: str) -> None:
    """Refuse embeddings that hold what is no number.

    Raises:
        BenchmarkError: some do; says how many and the first.
    """
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise BenchmarkError(
            f"{label}: {len(bad):,} of {len(embeddings):,} embeddings of {what} hold NaN or infinity, the first is "
            f"number {bad[0] + 1}. Try --precision float32, or other weights"
        )
