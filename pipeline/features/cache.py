"""Embeddings of an evaluation: computed once for each model and data, and kept as HDF5.

A file's name and attributes are hashes of all that the numbers depend on: the encoder's architecture, weights,
statistics and arithmetic; the pixels and how they are prepared. A file that is damaged or of something else is made
anew.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import Progress, say
from pipeline.base.errors import BenchmarkError
from pipeline.base.loader import BatchLoader
from pipeline.disk.asides import remove_asides_of
from pipeline.disk.files import sha256_json
from pipeline.encoders.build import BuiltEncoder, Encoder
from pipeline.encoders.embed import EncoderForward, embed_batches
from pipeline.features.files import read_arrays, write_arrays

NAME_DIGITS = 16
"""Hex digits of each hash in a file's name; the whole ones are inside and are compared."""


def model_key(built: BuiltEncoder, precision: str) -> dict[str, Any]:
    """What an encoder's embedding of given pixels depends on: architecture, rule, statistics, weights, arithmetic."""
    return built.spec.deciding() | {"weights_sha256": built.weights_sha256, "precision": precision}


def embed_rows(
    module: Encoder,
    read: Callable[[int, NDArray[np.uint8]], object],
    rows: Sequence[int],
    *,
    patch_px: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
    what: str,
    no_room: str = "Give a smaller --batch-size",
) -> NDArray[np.float32]:
    """Embed `rows`, which `read(row, out)` reads into uint8 (P, P, 3); float32 (N, D) in their order.

    Raises:
        ConfigError: the device has too little memory for a batch; `no_room` says what the user can do.
    """
    size = max(1, min(batch_size, len(rows)))
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    loader = BatchLoader(read, patch_px=patch_px, batch_size=size, workers=workers, device=device)
    found: list[NDArray[np.float32]] = []
    with loader, Progress(what, len(rows), "patches") as progress:
        for embedded in embed_batches(
            EncoderForward(module, device, precision),
            loader.batches(parts),
            device,
            width=module.spec.width,
            no_room=no_room,
        ):
            found.append(embedded.embeddings.numpy().copy())  # a copy: pinned memory is not kept
            progress.step(len(embedded.rows))
    return np.concatenate(found)


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
