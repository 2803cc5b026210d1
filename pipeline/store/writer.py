"""Write a teacher's shards off the model's thread: pixels as they come, embeddings at the end, the ledger last.

A shard is entered in the ledger only after all its files are synced and renamed, so a run killed at any moment loses
the shards in flight and nothing else.
"""

import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import say
from pipeline.base.errors import G2LError, StoreError
from pipeline.base.units import format_bytes
from pipeline.cohort.plan import Plan
from pipeline.disk.tables import write_records
from pipeline.slides.patch_sample import expected_pixel_bytes
from pipeline.store.format import Status, chunk_rows
from pipeline.store.patches import PatchRead
from pipeline.store.shards import ShardWriter
from pipeline.store.store import StoredTeacher

QUEUED_BATCHES = 4
"""Batches that may wait for the disk, however large."""
QUEUED_ROWS = 1024
"""Rows that may wait for it in smaller batches. Our choice: about 80 MB of patches of 224 px, a second or two of a fast
accelerator, which is about what it takes to sync a shard.
"""
ROWS_A_PLACE = 64
DROPPED_FILE = "dropped.csv"
"""Beside a teacher's arrays: the rows that `--patch-qc` dropped."""
MEASURED_DIGITS = 4
"""Decimals of what was measured, in the ledger. Our choice."""
JOIN_SECONDS = 1.0
"""Between two looks whether the thread has ended."""


def row_batches(teacher: StoredTeacher, shards: Iterable[int], batch_size: int) -> Iterator[range]:
    """Batches of rows; they never straddle shards, so that a shard's bytes do not depend on what was done before it."""
    for shard in shards:
        rows = teacher.ledger.rows(shard)
        for start in range(rows.start, rows.stop, batch_size):
            yield range(start, min(start + batch_size, rows.stop))


def warn_of_disk(teacher: StoredTeacher, plan: Plan, num_rows: int) -> None:
    """Warn if what is to be written, `num_rows` rows, will hardly fit."""
    pixels = str(teacher.settings["pixels"])
    sampled = [row for row in plan.audit if row.patches_taken]
    pixel_bytes = (expected_pixel_bytes(sampled, pixels) or 0.0) / max(sum(row.patches_taken for row in sampled), 1)
    needed = num_rows * (teacher.views.count * teacher.width * np.dtype(teacher.dtype).itemsize + pixel_bytes)
    free = shutil.disk_usage(teacher.folder).free
    if needed > free:
        say(f"warning: about {format_bytes(needed)} will be written; {teacher.folder} has {format_bytes(free)} free")


def write_failures(teacher: StoredTeacher) -> None:
    """Write `failures.csv` beside the teacher's arrays, one line a failed row, and `dropped.csv`, one line a row that
    `--patch-qc` dropped; no file when there is none.
    """
    dropped = [
        {**{name: record[name] for name in ("slide_id", "row", "x", "y")}, "reason": record["status"].lower()}
        | {name: record[name] for name in ("value", "bound")}
        for record in teacher.ledger.dropped()
    ]
    for name, records in ((DROPPED_FILE, dropped), ("failures.csv", teacher.ledger.failures())):
        path = teacher.folder / name
        path.unlink(missing_ok=True)
        if records:
            write_records(path, records)


@dataclass(frozen=True)
class _Rows:
    """Consecutive rows of a shard, ready to be written; embeddings (B, K, D) in the stored type, status uint8 (B,)."""

    shard: int
    embedding: NDArray[Any]
    status: NDArray[np.uint8]
    failures: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    images: list[bytes | None]


class _OpenShard:
    """A shard being filled."""

    def __init__(self, teacher: StoredTeacher, shard: int, started: float) -> None:
        self.teacher, self.shard, self.started = teacher, shard, started
        self.rows = teacher.ledger.rows(shard)
        capacity = teacher.rows_per_shard
        self.embedding: NDArray[Any] = np.full((capacity, teacher.views.count, teacher.width), np.nan, teacher.dtype)
        self.status = np.full(capacity, Status.ABSENT, np.uint8)
        self.failures: list[dict[str, Any]] = []
        self.dropped: list[dict[str, Any]] = []
        self.num_filled = 0
        self.files = ExitStack()
        self.pixels: ShardWriter | None = None
        if teacher.keeps_pixels:
            self.pixels = self.files.enter_context(ShardWriter(teacher.shard_path("pixels", shard), capacity))

    def add(self, rows: _Rows) -> None:
        """The next rows."""
        assert rows.shard == self.shard
        filled = slice(self.num_filled, self.num_filled + len(rows.status))
        self.embedding[filled], self.status[filled] = rows.embedding, rows.status
        self.failures += rows.failures
        self.dropped += rows.dropped
        if self.pixels is not None:
            for image in rows.images:
                self.pixels.append(image)
        self.num_filled = filled.stop

    def commit(self, device: str) -> None:
        """Write what is left, and enter the shard in the ledger."""
        files = {}
        if self.pixels is not None:
            files["pixels"] = self.pixels.commit()
        step = chunk_rows(self.teacher.rows_per_shard)
        views = {"views": self.embedding[:, 1:]} if self.teacher.views.count > 1 else {}
        for name, values in {"embedding": self.embedding[:, 0], **views, "status": self.status}.items():
            num_chunks = self.teacher.chunks_per_shard
            with ShardWriter(self.teacher.shard_path(name, self.shard), num_chunks) as writer:
                little = values.astype(values.dtype.newbyteorder("<"), copy=False)
                for start in range(0, len(values), step):
                    writer.append(little[start : start + step].tobytes())
                files[name] = writer.commit()
        used = self.status[: len(self.rows)]
        entry = {
            "shard": self.shard,
            "rows": [self.rows.start, self.rows.stop],
            "status": {
                status.name: int((used == status).sum())
                for status in Status
                if not status.is_dropped and (used == status).any()
            },
            "files": {
                str(self.teacher.shard_path(name, self.shard).relative_to(self.teacher.folder)): file
                for name, file in files.items()
            },
            "failures": self.failures,
            **({"dropped": self.dropped} if self.dropped else {}),
            "seconds": round(time.monotonic() - self.started, 3),
            "device": device,
        }
        self.teacher.ledger.write(self.shard, entry)


def places_of(num_rows: int) -> int:
    """How many of the places of the queue a batch takes: `QUEUED_BATCHES` of any size fit in."""
    return min(-(-num_rows // ROWS_A_PLACE), QUEUED_ROWS // ROWS_A_PLACE // QUEUED_BATCHES)


class StoreWriter:
    """Takes batches in order and commits shards in a thread of its own; `put` waits while the disk is behind.

    `describe(row)` says where a row is from, for the list of failures; `committed(shard)` is told, in the writer's
    thread, of each shard that is in the ledger. `seen_before(row)` gives the hashes of patches of earlier shards that
    the rows of a shard which begins with that row may repeat, with their rows.

    As a context: leaving it well, or by an error that the run itself raises (such as too many failures), waits until
    every whole shard is committed; leaving it by any other, such as Ctrl-C, discards what is in flight.

    Attributes:
        num_failures: failed rows among those that `put` was given.
        last_failure: the last of them: row, slide, x, y, status, reason.
    """

    def __init__(
        self,
        teacher: StoredTeacher,
        describe: Callable[[int], dict[str, Any]],
        device: str,
        committed: Callable[[int], None] | None = None,
        seen_before: Callable[[int], dict[bytes, int]] | None = None,
    ) -> None:
        self._committed = committed
        self._seen_before = seen_before
        self._teacher = teacher
        self._describe = describe
        self._device = device
        # Both queues are C through and through: Ctrl-C within Python's own `Queue` can lose the other side's wake-up.
        self._queue: queue.SimpleQueue[_Rows | None] = queue.SimpleQueue()
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._free_places(QUEUED_ROWS // ROWS_A_PLACE)
        self._error: BaseException | None = None
        self._work_began = time.monotonic()
        self._discard = threading.Event()
        self._thread = threading.Thread(target=self._run, name="g2l-write", daemon=True)
        self._first_of: dict[bytes, int] = {}
        self.num_failures = 0
        self.last_failure: dict[str, Any] | None = None
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, G2LError):
            self._discard.set()
        while self._thread.is_alive():  # however often an interrupt breaks in here
            self._queue.put(None)
            self._thread.join(JOIN_SECONDS)
        if kind is None:
            self._raise_error()

    def put(self, rows: Sequence[int], embeddings: NDArray[np.float32], reads: Sequence[PatchRead]) -> None:
        """The next rows, in order and of one shard; a shard is committed when all its rows are there.

        Args:
            embeddings: (B, D), of several views (B, K, D), any value where a read failed.

        Raises:
            StoreError: an earlier batch could not be written, for instance because the disk is full.
        """
        self._raise_error()
        ready = self._judge(rows, embeddings, reads)
        self.num_failures += len(ready.failures)
        if ready.failures:
            self.last_failure = ready.failures[-1]
        for _ in range(places_of(len(rows))):
            self._places.get()
        self._queue.put(ready)

    def _free_places(self, count: int) -> None:
        for _ in range(count):
            self._places.put(None)

    def _judge(self, rows: Sequence[int], embeddings: NDArray[np.float32], reads: Sequence[PatchRead]) -> _Rows:
        """Rows as they are stored: an embedding is finite in the stored type, or its row failed."""
        with np.errstate(over="ignore"):  # beyond the stored type is infinity
            stored = embeddings.astype(self._teacher.dtype)
        stored = stored.reshape(len(stored), self._teacher.views.count, self._teacher.width)
        finite = np.isfinite(stored).all(axis=(1, 2))
        shard = rows[0] // self._teacher.rows_per_shard
        reads = self._without_repeats(rows, reads)
        status = np.array([read.status for read in reads], np.uint8)
        status[(status == Status.OK) & ~finite] = Status.NOT_FINITE
        stored[status != Status.OK] = np.nan
        images, failures, dropped = [read.encoded for read in reads], [], []
        for i in np.flatnonzero(status != Status.OK).tolist():
            if (code := Status(status[i])).is_dropped:
                measured = {"value": _rounded(reads[i].value), "bound": _rounded(reads[i].bound)}
                dropped.append({**self._describe(rows[i]), "status": code.name, **measured})
                continue
            reason = reads[i].reason or why_not_finite(embeddings[i], self._teacher.dtype)
            failures.append({**self._describe(rows[i]), "status": code.name, "reason": reason})
        return _Rows(shard, stored, status, failures, dropped, images)

    def _without_repeats(self, rows: Sequence[int], reads: Sequence[PatchRead]) -> Sequence[PatchRead]:
        """The same, but rows with the pixels of an earlier row of their slide are dropped. A shard's rows come in order
        and from one process, and patches of earlier shards are read again, so nothing else decides which row stays.
        """
        if self._teacher.ledger.rows(rows[0] // self._teacher.rows_per_shard).start == rows[0]:
            self._first_of = self._seen_before(rows[0]) if self._seen_before else {}
        judged = []
        for row, read in zip(rows, reads, strict=True):
            first = self._first_of.setdefault(read.digest, row) if read.digest else row
            judged.append(read if first == row else PatchRead(Status.DUPLICATE, value=first))
        return judged

    def _raise_error(self) -> None:
        if isinstance(self._error, OSError):
            total = self._teacher.num_shards
            done = total - len(self._teacher.ledger.pending())
            raise StoreError(
                f"cannot write to {self._teacher.folder}: {self._error.strerror or self._error}. {done} of {total} "
                "shards are done and safe; make room and run the same command again"
            ) from self._error
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        current: _OpenShard | None = None
        try:
            while (item := self._queue.get()) is not None:
                self._free_places(places_of(len(item.status)))
                if self._discard.is_set() or self._error is not None:
                    continue
                try:
                    if current is None:
                        current = _OpenShard(self._teacher, item.shard, self._work_began)
                    current.add(item)
                    if current.num_filled == len(current.rows):
                        current.commit(self._device)
                        current.files.close()
                        self._work_began = time.monotonic()
                        if self._committed is not None:
                            self._committed(item.shard)
                        current = None
                except BaseException as error:  # noqa: BLE001  (handed to the thread that feeds this one)
                    self._error = error
        finally:
            if current is not None:
                current.files.close()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, MEASURED_DIGITS)


def why_not_finite(embedding: NDArray[np.float32], dtype: str) -> str:
    """Why an embedding (D,), or of several views (K, D), is not finite as it is stored."""
    words = f"the teacher's embedding is not finite as {dtype}"
    if not np.isfinite(embedding).all():
        return f"{words}: it has NaN or infinity"
    return f"{words}: its largest value is {np.abs(embedding).max():.4g}. A new store with --dtype float32 holds it"
