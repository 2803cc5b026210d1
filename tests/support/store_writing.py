"""A store of 22 rows, three of which fail, written by the writer itself; and what damages one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.plan import Plan
from pipeline.store.create import create_store, open_to_continue
from pipeline.store.format import Status, StoreSpec
from pipeline.store.patches import PatchRead
from pipeline.store.shards import ShardWriter
from pipeline.store.store import Store
from pipeline.store.writer import StoreWriter

ROWS, WIDTH, PATCH_PX = 22, 6, 16
FAILED = {3: Status.UNREADABLE, 9: Status.NO_SLIDE, 21: Status.EMPTY}


def spec(**settings: Any) -> StoreSpec:
    """How the store is made."""
    values = {"rows_per_shard": 8, "pixels": "jpegxl", "dtype": "float16", "precision": "float32", "batch_size": 4}
    return StoreSpec({"name": "made up", "width": WIDTH, "weights_sha256": "1" * 64}, values | settings)


EMBEDDINGS = np.random.default_rng(3).normal(size=(ROWS, WIDTH)).astype(np.float32)


def describe(row: int) -> dict[str, Any]:
    """Where a row is from."""
    return {"row": row, "slide_id": "a", "x": row, "y": 0}


def write_pending(
    store: Store, encoded: list[bytes], *, batch_size: int = 4, embeddings: NDArray[Any] = EMBEDDINGS
) -> None:
    """Write all pending shards, as stage one does."""
    with StoreWriter(store.first, describe, "a machine") as writer:
        for shard in store.first.ledger.pending():
            rows = store.first.ledger.rows(shard)
            for start in range(rows.start, rows.stop, batch_size):
                batch = range(start, min(start + batch_size, rows.stop))
                reads = [
                    PatchRead(FAILED[row], reason="a reason") if row in FAILED else PatchRead(Status.OK, encoded[row])
                    for row in batch
                ]
                writer.put(batch, embeddings[batch.start : batch.stop], reads)


def continued_store(folder: Path, plan: Plan, made_by: StoreSpec | None = None) -> Store:
    """The store in `folder`, new or continued."""
    made_by = made_by or spec()
    if not (folder / "zarr.json").exists():
        create_store(folder, plan, made_by, {"python": "3"})
    return open_to_continue(folder, plan, made_by)


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_attributes(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what the metadata in `folder` say of the store."""
    edit_json(folder / "zarr.json", lambda value: edit(value["attributes"]["g2l"]))


def flip(path: Path, at: int) -> None:
    """Change one bit of a byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Take away the last eight bytes."""
    path.write_bytes(path.read_bytes()[:-8])


def write_shard(store: Path, name: str, shard: int, chunks: list[bytes | None]) -> None:
    """Write a shard file anew, and let the ledger agree with its bytes."""
    opened = Store(store)
    path = opened.first.shard_path(name, shard)
    with ShardWriter(path, len(chunks)) as writer:
        for chunk in chunks:
            writer.append(chunk)
        entry = writer.commit()
    ledger = opened.first.ledger.path(shard)
    edit_json(ledger, lambda value: value["files"].__setitem__(path.relative_to(store).as_posix(), entry))
