"""Statistics of a teacher's embeddings over rows, and those that a run keeps in a file of its own."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import CheckpointError, StoreError
from pipeline.base.outside import read_json, reading
from pipeline.disk.files import sha256_json, write_json
from pipeline.sampling import TRAIN, RowNumbers
from pipeline.store.format import Status
from pipeline.store.store import StoredTeacher
from pipeline.training.rows.order import KEYS_AT_ONCE

Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and unbiased variance of a teacher's embeddings, float64 (T,) each."""


class KeptStatistics:
    """Statistics of teachers over a run's training rows, in a file of the run: a run that continues does not read all
    embeddings again. Each has the hash of what it is of, and one of its own digits; where either differs, or the file
    is damaged, they are computed again.

    Without a `path` nothing is kept; only where `writes` is set the file is written.
    """

    def __init__(self, path: Path | None, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self._kept: dict[str, Any] = {}
        if path is not None and path.exists():
            with suppress(CheckpointError), reading(path, "damaged", CheckpointError):
                self._kept = read_json(path)

    def of(self, teacher: StoredTeacher, rows: RowNumbers, num_views: int, first_view: int) -> Statistics:
        """`teacher_statistics` over training rows, kept or computed.

        Raises:
            StoreError: they have to be computed, and a shard is damaged.
        """
        identity = sha256_json(
            {"embeddings": teacher.content_hash(), "rows": _rows_digest(rows), "views": [first_view, num_views]}
        )
        kept = self._read(teacher, identity)
        if kept is None:
            kept = teacher_statistics(teacher, TRAIN, rows, num_views, first_view)
            self._write(teacher, identity, kept)
        return kept

    def _read(self, teacher: StoredTeacher, identity: str) -> Statistics | None:
        """What is kept of a teacher, if it is of the same rows and sound."""
        with suppress(CheckpointError), reading(self._path or "", "damaged", CheckpointError):
            kept = self._kept[teacher.name]
            mean, variance = (np.array(kept[name], np.float64) for name in ("mean", "variance"))
            if (kept["of"], kept["digits"]) == (identity, _digits(mean, variance)):
                return mean, variance
        return None

    def _write(self, teacher: StoredTeacher, identity: str, values: Statistics) -> None:
        """Keep a teacher's."""
        if self._path is None or not self._writes:
            return
        mean, variance = (part.tolist() for part in values)
        record = {"of": identity, "digits": _digits(*values), "mean": mean, "variance": variance}
        self._kept = {**self._kept, teacher.name: record} if isinstance(self._kept, dict) else {teacher.name: record}
        write_json(self._path, self._kept)


def _rows_digest(rows: RowNumbers) -> str:
    """Hex SHA-256 of row numbers."""
    digest = hashlib.sha256()
    for start in range(0, len(rows), KEYS_AT_ONCE):
        digest.update(rows[start : start + KEYS_AT_ONCE].astype("<i8").tobytes())
    return digest.hexdigest()


def _digits(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> str:
    """Hex SHA-256 of statistics."""
    return hashlib.sha256(np.stack([mean, variance]).astype("<f8").tobytes()).hexdigest()


def teacher_statistics(
    teacher: StoredTeacher, split: int, rows: RowNumbers | None = None, num_views: int = 1, first_view: int = 0
) -> Statistics:
    """Mean and unbiased variance of the teacher's embeddings over all rows of a split, float64 (T,) each.

    Restricted to `rows` if given; over the first `num_views` views of each row, from `first_view` on. Rows of shards
    that are not done are left out, as in `StoredTeacher.ok_rows`.

    Reads every embedding once, which compares every checksum. Shards are combined by the parallel algorithm of Chan,
    Golub and LeVeque (1983), one at a time; `evaluate.probes.attention_mil.Moments.merge` takes all parts at once,
    whose last digits differ.

    Raises:
        StoreError: a shard is damaged, or the split has fewer than two rows.
    """
    wanted = teacher.plan.split() == split
    if rows is not None:
        among = np.zeros(teacher.num_rows, bool)
        among[rows] = True
        wanted &= among
    count, mean, square = 0, np.zeros(teacher.width), np.zeros(teacher.width)
    for shard, entry in teacher.ledger.entries():
        if entry is None:
            continue
        span = teacher.ledger.rows(shard)
        chosen = (teacher.read_status(shard) == Status.OK) & wanted[span.start : span.stop]
        embeddings = (
            teacher.read_views(shard)[:, first_view:num_views] if num_views > 1 else teacher.read_embeddings(shard)
        )
        values = embeddings[chosen].reshape(-1, teacher.width).astype(np.float64)
        if not len(values):
            continue
        shard_mean = values.mean(axis=0)
        shift = shard_mean - mean
        total = count + len(values)
        square += ((values - shard_mean) ** 2).sum(axis=0) + shift**2 * (count * len(values) / total)
        mean += shift * (len(values) / total)
        count = total
    if count < 2:
        raise StoreError(f"{teacher.place}: fewer than two rows to train on")
    return mean, square / (count - 1)
