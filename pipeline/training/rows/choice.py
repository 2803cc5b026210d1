"""The rows of a run: those it trains on, a sample of the held-out ones, and why there are too few."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from pipeline.base.console import counted
from pipeline.base.errors import ConfigError
from pipeline.sampling import TRAIN, VAL, RowNumbers
from pipeline.store.format import Status
from pipeline.store.store import StoredTeacher
from pipeline.store.teachers import made_with
from pipeline.training.rows.order import KEYS_AT_ONCE, row_keys, row_numbers
from pipeline.training.rows.subset import RowSubset

MIN_SCORED = 2
"""Fewest held-out rows to score a student on: with one, retrieval and correlations mean nothing."""
MIN_TRAINED = 2
"""Fewest rows to train on: one has no variance."""


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
        f"{teachers[0].place}: {counted(len(train), 'row')} to train on{dropped}, at least {MIN_TRAINED} are "
        f"needed. {advice}"
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
    for start in range(0, len(rows), KEYS_AT_ONCE):
        first = np.concatenate([first, rows[start : start + KEYS_AT_ONCE]])
        first = first[np.argsort(row_keys(first, seed, 0, purpose), kind="stable")[:most]]
    return np.sort(first)
