"""Rows for training: their order, pixels, augmentation and teacher embeddings.

Everything is a function of (seed, epoch, row), independent of workers and of earlier steps, so that a run can continue
at any step.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Tell
from pipeline.base.draws import RunDraws
from pipeline.base.errors import CheckpointError, ConfigError, StoreError
from pipeline.base.outside import read_json, reading
from pipeline.cohort.views.views import Views
from pipeline.disk.files import sha256_json, write_json
from pipeline.sampling import TRAIN, VAL, RowNumbers, patch_keys
from pipeline.slides.staging.objects import refuse_objects
from pipeline.store.changed_slides import only_noted
from pipeline.store.format import Status
from pipeline.store.fresh_views import FreshViews
from pipeline.store.patches import PlannedPatches
from pipeline.store.replay import require_replay
from pipeline.store.store import StoredTeacher
from pipeline.store.teachers import made_with
from pipeline.training.augment import Augmentation, augment
from pipeline.training.subset import RowSubset

MIN_SCORED = 2
"""Fewest held-out rows to score a student on: with one, retrieval and correlations mean nothing."""
MIN_TRAINED = 2
"""Fewest rows to train on: one has no variance."""
NO_PIXELS = (
    "this store keeps no pixels: its rows are read in random order, which would copy each slide for every batch. Make "
    "it with --pixels, or copy the slides to a folder and say with --slides-root where"
)
ROWS_AT_ONCE = 1 << 16
"""Rows whose keys are held at once. Our choice: 3 MB."""


@dataclass(frozen=True)
class RowChoice:
    """Rows of a run: `train`, (N,); `val`, the held-out rows to score, (M,); and the batch size.

    `fit` are the training rows that each validation fits a linear map on, (L,); `notes` are for the user.
    """

    train: RowNumbers
    val: RowNumbers
    batch_size: int
    fit: RowNumbers = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: tuple[str, ...] = ()


def row_numbers(wanted: NDArray[np.bool_]) -> RowNumbers:
    """Numbers of the rows that are `wanted` (N,), ascending."""
    numbers: RowNumbers = np.empty(np.count_nonzero(wanted), np.int32 if len(wanted) <= 2**31 else np.int64)
    done = 0
    for start in range(0, len(wanted), ROWS_AT_ONCE):
        some = start + np.flatnonzero(wanted[start : start + ROWS_AT_ONCE])
        numbers[done : done + len(some)] = some
        done += len(some)
    return numbers


def row_keys(rows: RowNumbers, seed: int, epoch: int, purpose: str) -> NDArray[np.uint64]:
    """A 64-bit key for each row, from (seed, epoch, row, purpose) alone; uint64 (N,)."""
    return patch_keys(purpose, np.stack([rows, np.full_like(rows, epoch)], axis=1, dtype=np.int64), seed)


def epoch_order(rows: RowNumbers, seed: int, epoch: int, purpose: str = "order") -> RowNumbers:
    """Shuffle the rows for an epoch: sorted by key, so the order is the same on every machine.

    `rows` are ascending. They are sorted a share at a time, for all keys and their order take 40 bytes a row.
    """
    order = np.empty_like(rows)
    share = np.empty(len(rows), np.uint8)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        keys = row_keys(rows[start : start + ROWS_AT_ONCE], seed, epoch, purpose)
        share[start : start + ROWS_AT_ONCE] = keys >> np.uint64(56)
    step, done = max(1, 256 * ROWS_AT_ONCE // max(len(rows), 1)), 0
    for lowest in range(0, 256, step):
        chosen = rows[(share >= lowest) & (share < lowest + step)]
        keys = row_keys(chosen, seed, epoch, purpose)
        order[done : done + len(chosen)] = chosen[np.argsort(keys, kind="stable")]
        done += len(chosen)
    return order


def batches_of(order: RowNumbers, batch_size: int, first: int = 0) -> Iterator[list[int]]:
    """Full batches of an epoch, from batch `first` on; a remainder is dropped, for another epoch to use."""
    for number in range(first, len(order) // batch_size):
        yield order[number * batch_size : (number + 1) * batch_size].tolist()


def choose_rows(
    teachers: Sequence[StoredTeacher],
    *,
    batch_size: int,
    val_rows: int,
    seed: int,
    world: int = 1,
    subset: RowSubset = RowSubset(),
) -> RowChoice:
    """Choose the rows that `world` processes train on together, and a sample of the held-out rows.

    Only rows that have an embedding of all `teachers`, which are of one store, are used. A validation
    scores at most `val_rows` rows, and fits its linear map on at most as many. A batch has `batch_size` rows, or all if
    there are fewer. `subset` restricts the rows to train on; held-out rows are the same for every subset.

    Raises:
        ConfigError: too few rows to train on, or a batch that does not divide among the processes.
    """
    train, val = (rows_of_all(teachers, split) for split in (TRAIN, VAL))
    _require_enough(train, teachers)
    num_rows, train = len(train), subset.restrict(train, teachers[0].plan)
    _require_enough_left(len(train), num_rows, subset)
    notes = []
    if batch_size > len(train):
        batch_size = len(train)
        notes.append(f"note: batches of {batch_size}: there are no more rows to train on")
    if batch_size % world:
        raise ConfigError(
            f"a batch of {batch_size} does not divide among {world} processes; choose another --batch-size"
        )
    if len(val) < MIN_SCORED:
        notes.append(f"warning: {_why_not_scored(val, teachers)}, so the student will not be scored")
        val = val[:0]
    return RowChoice(
        train,
        _sample(val, val_rows, seed, "validation"),
        batch_size,
        _sample(train, val_rows, seed, "linear map"),
        tuple(notes),
    )


def rows_of_all(teachers: Sequence[StoredTeacher], split: int) -> RowNumbers:
    """Rows of a split that have an embedding of all `teachers`, which are of one store; ascending."""
    embedded = reduce(np.logical_and, (each.status() == Status.OK for each in teachers))
    return row_numbers(embedded & (teachers[0].plan.split() == split))


def _require_enough(train: RowNumbers, teachers: Sequence[StoredTeacher]) -> None:
    """Check that the store has rows to train on.

    Raises:
        ConfigError: fewer than two.
    """
    if len(train) >= MIN_TRAINED:
        return
    num_dropped = max(_num_dropped(teacher, TRAIN) for teacher in teachers)
    dropped = f" ({num_dropped} were dropped by --patch-qc)" if num_dropped else ""
    failures = _failures(teachers, TRAIN)
    advice = (
        f"{failures}: fix the cause, then run it with --retry-failures"
        if failures
        else "Plan with more slides, or with a smaller --val-fraction"
    )
    raise ConfigError(
        f"{teachers[0].place}: {len(train)} rows to train on{dropped}, at least {MIN_TRAINED} are needed. {advice}"
    )


def _require_enough_left(num_left: int, num_rows: int, subset: RowSubset) -> None:
    """Check that a subset of the rows to train on is enough.

    Raises:
        ConfigError: it has fewer than two.
    """
    if num_left < MIN_TRAINED:
        options = {"--train-slides": subset.num_slides, "--train-patches-per-slide": subset.num_patches}
        raise ConfigError(
            f"{' and '.join(f'{name} {value}' for name, value in options.items() if value is not None)}: {num_left} "
            f"of {num_rows} rows to train on, at least {MIN_TRAINED} are needed. Give larger numbers"
        )


def _num_dropped(teacher: StoredTeacher, split: int) -> int:
    """How many rows of a split `--patch-qc` dropped."""
    rows = [record["row"] for record in teacher.ledger.dropped()]
    return int((teacher.plan.split()[rows] == split).sum()) if rows else 0


def _failures(teachers: Sequence[StoredTeacher], split: int, *, of_how_many: bool = False) -> str:
    """How many rows of a split failed, and with which teacher if there are several; "" if none did."""
    words = []
    for teacher in teachers:
        planned = teacher.plan.count(split) - _num_dropped(teacher, split)
        if num_failed := planned - len(teacher.ok_rows(split)):
            number = f"{num_failed} of {planned}" if of_how_many else f"{num_failed}"
            of_whom = f" of {teacher.name}" if len(teachers) > 1 else ""
            words.append(f"{number} planned rows failed in {made_with(teacher)}{of_whom}")
    return ", ".join(words)


def _why_not_scored(val: RowNumbers, teachers: Sequence[StoredTeacher]) -> str:
    """Why fewer than `MIN_SCORED` rows are held out."""
    why = "no rows are held out" if not len(val) else f"one row is held out, and {MIN_SCORED} are needed to score"
    failures = _failures(teachers, VAL, of_how_many=True)
    return f"{why} ({failures})" if failures else why


def _sample(rows: RowNumbers, most: int, seed: int, purpose: str) -> RowNumbers:
    """Sample at most `most` of the rows, by hash; ascending."""
    first: RowNumbers = rows[:0]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        first = np.concatenate([first, rows[start : start + ROWS_AT_ONCE]])
        first = first[np.argsort(row_keys(first, seed, 0, purpose), kind="stable")[:most]]
    return np.sort(first)


def row_views(rows: RowNumbers, views: Views, draws: RunDraws, epoch: int, *, plain: bool = True) -> NDArray[np.int64]:
    """The view of each row to show in an epoch, int64 (N,); view 0, the patch itself, is among them if `plain` is set.

    Of K views to show, each is shown once in epochs 0 to K-1, once in the K epochs after these, and so on: in an order
    that is drawn by hash for each row and each K epochs.
    """
    first = 0 if plain else 1
    count = views.count - first
    if not draws.views_in_turn:
        return first + (row_keys(rows, draws.seed, epoch, draws.which_view) % np.uint64(count)).astype(np.int64)
    around, place = divmod(epoch, count)
    keys = [row_keys(rows, draws.seed, around * count + view, draws.which_view) for view in range(count)]
    return first + np.argsort(np.stack(keys, axis=1), axis=1, kind="stable")[:, place].astype(np.int64)


class StoredRows:
    """Pixels and teacher embeddings of a store's rows; reads pixels from the slides if the store has none. Safe to use
    from many threads.

    `teachers` are of one store, and `views` are those that all of them have embedded; `plain_view` says whether the
    patch itself is among those that are shown in training. With `fresh` an epoch shows one view of all rows. Notes on
    slides that are read go to `tell`.
    """

    def __init__(
        self,
        teachers: Sequence[StoredTeacher],
        *,
        slides_root: Path | None = None,
        views: Views | None = None,
        plain_view: bool = True,
        fresh: FreshViews | None = None,
        tell: Tell,
    ) -> None:
        self.plain_view, self.fresh = plain_view, fresh
        self.views = views or replace(teachers[0].views, count=1)
        self._teachers, self._store = teachers, teachers[0].store
        self.patch_px, self._tile_px = self._store.patch_px, self._store.tile_px
        if self.views.count > 1:
            for made in (made for teacher in teachers for made in teacher.with_rounds):
                require_replay(made)
        self._slides = None
        if not self._store.has_pixels:  # what stage one has read, of repaired slides too
            plan = self._store.plan
            refuse_objects((plan.slide_path(slide, slides_root) for slide in plan.slides), NO_PIXELS)
            accepts = only_noted(self._store)
            self._slides = PlannedPatches(self._store.plan, None, slides_root, tell=tell, accepts_changed=accepts)

    def cases(self, rows: Sequence[int]) -> NDArray[np.str_]:
        """The case of each of the rows."""
        return self._store.plan.cases_of(rows)

    def read(self, row: int, out: NDArray[np.uint8], view: int = 0) -> NDArray[np.float32]:
        """Fill `out`, uint8 (P, P, 3), with a view of the patch; returns all teachers' embeddings of it, concatenated:
        float32 (T,).

        Raises:
            StoreError: pixels or embedding are damaged, or the slide can no longer be read.
        """
        return self.read_as_stored(row, out, view).astype(np.float32)

    def read_as_stored(self, row: int, out: NDArray[np.uint8], view: int = 0) -> NDArray[Any]:
        """As `read`, but the embeddings are of the stored type; of several teachers, of one that holds all."""
        if self._slides is None and view == 0 and self._tile_px == self.patch_px:
            self._store.read_pixels(row, out)
        else:
            out[:] = self.views.apply(self._read_tile(row), row, view)
        if len(self._teachers) == 1:
            return self._teachers[0].read_stored_embedding(row, view)
        return np.concatenate([teacher.read_stored_embedding(row, view) for teacher in self._teachers])

    def read_ahead(self, rows: Sequence[int]) -> None:
        """Say that these rows will be read next, so that a store in a bucket is asked for them early."""
        if self._slides is None:
            self._store.read_ahead(rows)

    def _read_tile(self, row: int) -> NDArray[np.uint8]:
        """The tile of a row, uint8 (T, T, 3); raises as `read`."""
        if self._slides is None:
            return self._store.read_pixels(row)
        tile = np.empty((self._tile_px, self._tile_px, 3), np.uint8)
        result = self._slides.read(row, tile)
        if result.status is not Status.OK:
            raise StoreError(
                f"row {row} could be read for the teacher, but not now: {result.reason}. The store "
                "has no pixels: give the folder of the slides with --slides-root"
            )
        return tile

    def reader(self, draws: RunDraws, epoch: int, augmentation: Augmentation) -> "AugmentedRows":
        """Reader of the rows as the student sees them in an epoch.

        Raises:
            StoreError: an epoch's fresh view is not there, or not whole.
        """
        if self.fresh:
            self.fresh.begin(epoch)
        return AugmentedRows(self, draws, epoch, augmentation)


class AugmentedRows:
    """`StoredRows` with the views and augmentation of one epoch."""

    def __init__(self, rows: StoredRows, draws: RunDraws, epoch: int, augmentation: Augmentation) -> None:
        self._rows, self._draws, self._epoch, self._augmentation = rows, draws, epoch, augmentation

    def read(self, row: int, out: NDArray[np.uint8]) -> NDArray[Any]:
        """Read the epoch's view of the row as `StoredRows.read_as_stored` does, then augment it.

        The step makes float32 of a batch of embeddings at once, on its device: NumPy takes as long for one of float16
        as for all else that is read of it (decision 0094).
        """
        return self.read_some([row], out[None])[0]

    def read_some(self, numbers: Sequence[int], out: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """`read` of several rows at once, into uint8 (B, P, P, 3)."""
        chosen, rows, size = np.array(numbers), self._rows, len(numbers)
        if rows.fresh is not None:
            views = [rows.fresh.view(self._epoch)] * size
        elif rows.views.count == 1:
            views = [0] * size
        else:
            views = row_views(chosen, rows.views, self._draws, self._epoch, plain=rows.plain_view).tolist()
        if self._augmentation == "none":
            return [rows.read_as_stored(row, patch, view) for row, patch, view in zip(numbers, out, views, strict=True)]
        keys = row_keys(chosen, self._draws.seed, self._epoch, "augment").tolist()
        in_floats, embeddings = self._draws.jitters_in_floats, []
        for row, patch, view, key in zip(numbers, out, views, keys, strict=True):
            embeddings.append(rows.read_as_stored(row, patch, view))
            augment(patch, key, self._augmentation, in_floats=in_floats)
        return embeddings


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
    for start in range(0, len(rows), ROWS_AT_ONCE):
        digest.update(rows[start : start + ROWS_AT_ONCE].astype("<i8").tobytes())
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
