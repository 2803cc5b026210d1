"""Statistics of a teacher's embeddings over rows, and those that a run keeps in a file of its own."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Tell
from pipeline.base.errors import CheckpointError, StoreError
from pipeline.base.outside import read_json, reading
from pipeline.disk.files import sha256_json, write_json
from pipeline.projector import EPSILON
from pipeline.sampling import TRAIN, RowNumbers
from pipeline.store.format import Status
from pipeline.store.store import StoredTeacher
from pipeline.training.rows.order import KEYS_AT_ONCE

Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and unbiased variance of a teacher's embeddings, float64 (T,) each."""

LARGEST = 1e30
"""Largest mean and variance that is trained on. Our choice: sums over a batch are in float32, which ends at 3e38."""
FLAT_SHARE = 0.1
"""Share of flat dimensions from which on they are told. Our choice: a few dead ones are usual and do no harm."""


class KeptStatistics:
    """Statistics of teachers over a run's training rows, in a file of the run: a run that continues does not read all
    embeddings again. Each has the hash of what it is of, and one of its own digits; where either differs, or the file
    is damaged, they are computed again.

    Without a `path` nothing is kept; only where `writes` is set the file is written. Warnings go to `tell`.
    """

    def __init__(self, path: Path | None, *, writes: bool = True, tell: Tell | None = None) -> None:
        self._path, self._writes, self._tell = path, writes, tell
        self._kept: dict[str, Any] = {}
        if path is not None and path.exists():
            with suppress(CheckpointError), reading(path, "damaged", CheckpointError):
                self._kept = read_json(path)

    def of(self, teacher: StoredTeacher, rows: RowNumbers, num_views: int, first_view: int) -> Statistics:
        """`teacher_statistics` over training rows, kept or computed.

        Raises:
            StoreError: they have to be computed, and a shard is damaged; or values are too large to train on.
        """
        identity = sha256_json(
            {"embeddings": teacher.content_hash(), "rows": _rows_digest(rows), "views": [first_view, num_views]}
        )
        kept = self._read(teacher, identity)
        if kept is None:
            kept = teacher_statistics(teacher, TRAIN, rows, num_views, first_view)
            self._write(teacher, identity, kept)
        if not all(np.abs(part).max() <= LARGEST for part in kept):  # not: NaN
            raise StoreError(
                f"{teacher.place}: the embeddings of {teacher.name} are too large to train on: their mean or variance "
                f"is above {LARGEST:g} in a dimension. Make or import them in another scale"
            )
        if self._tell and (warning := flat_warning(teacher.name, kept[1])):
            self._tell(warning)
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


def flat_warning(teacher: str, variance: NDArray[np.float64]) -> str:
    """That much of a teacher's embedding hardly varies over the training rows, by its variance (T,); "" if little does.

    Standardising adds `EPSILON` to a variance. A dimension of less than that is not brought to variance 1, as the
    student's projection is, but to less than 1/2, so that the two cannot agree.
    """
    num_flat, width = int((variance < EPSILON).sum()), len(variance)
    if num_flat < FLAT_SHARE * width:
        return ""
    return (
        f"warning: {num_flat:,} of {width:,} dimensions of {teacher} hardly vary over the training rows: their "
        f"variance is below {EPSILON:g}, which the loss adds to it, so that the student learns little of them. If the "
        "embeddings were scaled down, make or import them as the encoder gives them"
    )


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
