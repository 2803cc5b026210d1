"""Writes a store's shards off the model's thread: pixels as they come, embeddings at the end, the ledger last.

A shard is entered in the ledger only after all its files are synced and renamed, so a run killed at any moment loses
the shards in flight and nothing else.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.files import write_json
from pipeline.patches import PatchRead
from pipeline.shards import ShardWriter
from pipeline.store import Status, Store, chunk_rows

QUEUED_BATCHES = 4


class _OpenShard:
    """A shard being filled."""

    def __init__(self, store: Store, shard: int, describe: Callable[[int], dict[str, Any]]) -> None:
        self.store, self.shard, self.describe = store, shard, describe
        self.rows = store.shard_rows(shard)
        capacity = store.rows_per_shard
        self.embedding: NDArray[Any] = np.full((capacity, store.width), np.nan, store.dtype)
        self.status = np.full(capacity, Status.ABSENT, np.uint8)
        self.failures: list[dict[str, Any]] = []
        self.num_filled = 0
        self.started = time.monotonic()
        self.files = ExitStack()
        self.pixels: ShardWriter | None = None
        if store.has_pixels:
            self.pixels = self.files.enter_context(ShardWriter(store.shard_path("pixels", shard), capacity))

    def add(self, embeddings: NDArray[np.float32], reads: Sequence[PatchRead]) -> None:
        """The next rows: embeddings (B, D), any value where a read failed."""
        start = self.num_filled
        with np.errstate(over="ignore"):  # beyond the stored type is infinity, found below
            stored = embeddings.astype(self.store.dtype)
        finite = np.isfinite(stored).all(axis=1)
        for i, read in enumerate(reads):
            status, reason = read.status, read.reason
            if status is Status.OK and not finite[i]:
                status, reason = Status.NOT_FINITE, f"the teacher's embedding is not finite as {self.store.dtype}"
            self.status[start + i] = status
            if status is Status.OK:
                self.embedding[start + i] = stored[i]
            else:
                where = self.describe(self.rows.start + start + i)
                self.failures.append({**where, "status": status.name, "reason": reason})
            if self.pixels is not None:
                self.pixels.append(read.encoded)
        self.num_filled += len(reads)

    def commit(self, device: str) -> None:
        """Write what is left, and enter the shard in the ledger."""
        files = {}
        if self.pixels is not None:
            files["pixels"] = self.pixels.commit()
        step = chunk_rows(self.store.rows_per_shard)
        for name, values in (("embedding", self.embedding), ("status", self.status)):
            num_chunks = self.store.chunks_per_shard
            with ShardWriter(self.store.shard_path(name, self.shard), num_chunks) as writer:
                little = values.astype(values.dtype.newbyteorder("<"), copy=False)
                for start in range(0, len(values), step):
                    writer.append(little[start : start + step].tobytes())
                files[name] = writer.commit()
        used = self.status[: len(self.rows)]
        ledger = {
            "shard": self.shard,
            "rows": [self.rows.start, self.rows.stop],
            "status": {status.name: int((used == status).sum()) for status in Status if (used == status).any()},
            "files": {
                str(self.store.shard_path(name, self.shard).relative_to(self.store.folder)): entry
                for name, entry in files.items()
            },
            "failures": self.failures,
            "seconds": round(time.monotonic() - self.started, 3),
            "device": device,
        }
        write_json(self.store.ledger_path(self.shard), ledger)


class StoreWriter:
    """Takes batches in order and commits shards in a thread of its own; `put` waits while the disk is behind.

    `describe(row)` says where a row is from, for the list of failures. As a context: leaving it well waits for the last
    commit; leaving it by an error discards what is in flight.
    """

    def __init__(self, store: Store, describe: Callable[[int], dict[str, Any]], device: str) -> None:
        self._store = store
        self._describe = describe
        self._device = device
        self._queue: queue.Queue[tuple[int, NDArray[np.float32], Sequence[PatchRead]] | None] = queue.Queue(
            QUEUED_BATCHES
        )
        self._error: BaseException | None = None
        self._discard = threading.Event()
        self._thread = threading.Thread(target=self._run, name="g2l-write", daemon=True)
        self.num_failures = 0
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard.set()
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise_error()

    def put(self, shard: int, embeddings: NDArray[np.float32], reads: Sequence[PatchRead]) -> None:
        """The next rows of `shard`, in order; a shard is committed when all its rows are there.

        Raises:
            StoreError: an earlier batch could not be written, for instance because the disk is full.
        """
        self._raise_error()
        self._queue.put((shard, embeddings, reads))

    def _raise_error(self) -> None:
        if isinstance(self._error, OSError):
            total = self._store.num_shards
            done = total - len(self._store.pending_shards())
            raise StoreError(
                f"cannot write to {self._store.folder}: {self._error.strerror}. {done} of {total} shards are done and "
                "safe; make room and run the same command again"
            ) from self._error
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        current: _OpenShard | None = None
        try:
            while (item := self._queue.get()) is not None:
                if self._discard.is_set() or self._error is not None:
                    continue
                shard, embeddings, reads = item
                try:
                    if current is None:
                        current = _OpenShard(self._store, shard, self._describe)
                    assert current.shard == shard
                    current.add(embeddings, reads)
                    if current.num_filled == len(current.rows):
                        current.commit(self._device)
                        self.num_failures += len(current.failures)
                        current.files.close()
                        current = None
                except Exception as error:  # noqa: BLE001  (handed to the thread that feeds this one)
                    self._error = error
        finally:
            if current is not None:
                current.files.close()
