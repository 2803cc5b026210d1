"""Rows for training: their order, pixels, augmentation and teacher embeddings.

Everything is a function of (seed, epoch, row), independent of workers and of earlier steps, so that a run can continue
at any step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Tell
from pipeline.base.draws import RunDraws
from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.views import Views, dihedral
from pipeline.sampling import TRAIN, VAL, patch_keys
from pipeline.store.changed_slides import only_noted
from pipeline.store.format import Status
from pipeline.store.fresh_views import FreshViews
from pipeline.store.patches import PlannedPatches
from pipeline.store.replay import require_replay
from pipeline.store.store import StoredTeacher
from pipeline.store.teachers import made_with
from pipeline.training.subset import RowSubset

Augmentation = Literal["none", "flips", "flips+jitter"]

MIN_SCORED = 2
"""Fewest held-out rows to score a student on: with one, retrieval and correlations mean nothing."""
JITTER = 0.1
"""Largest relative change of brightness, contrast and saturation. Our choice: mild, as the teacher saw the patch
without it.
"""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness, ITU-R BT.601."""


@dataclass(frozen=True)
class RowChoice:
    """Rows of a run: `train`, int64 (N,); `val`, the held-out rows to score, int64 (M,); and the batch size.

    `fit` are the training rows that each validation fits a linear map on, int64 (L,); `notes` are for the user.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    batch_size: int
    fit: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: tuple[str, ...] = ()


def row_keys(rows: NDArray[np.int64], seed: int, epoch: int, purpose: str) -> NDArray[np.uint64]:
    """A 64-bit key for each row, from (seed, epoch, row, purpose) alone; uint64 (N,)."""
    return patch_keys(purpose, np.stack([rows, np.full_like(rows, epoch)], axis=1), seed)


def epoch_order(rows: NDArray[np.int64], seed: int, epoch: int, purpose: str = "order") -> NDArray[np.int64]:
    """Shuffle the rows for an epoch: sorted by key, so the order is the same on every machine."""
    return rows[np.argsort(row_keys(rows, seed, epoch, purpose), kind="stable")]


def batches_of(order: NDArray[np.int64], batch_size: int, first: int = 0) -> Iterator[list[int]]:
    """Full batches of an epoch, from batch `first` on; a remainder is dropped, for another epoch to use."""
    for number in range(first, len(order) // batch_size):
        yield order[number * batch_size : (number + 1) * batch_size].tolist()


def jitter(patch: NDArray[np.uint8], key: int) -> NDArray[np.uint8]:
    """Change brightness, contrast and saturation of (P, P, 3) by up to `JITTER` each, drawn from bytes of the key."""
    brightness, contrast, saturation = (
        1 + JITTER * (((key >> shift) & 0xFFFF) / 32767.5 - 1) for shift in (16, 32, 48)
    )
    image = patch.astype(np.float32) * np.float32(brightness)
    mean = image.mean()
    image = (image - mean) * np.float32(contrast) + mean
    grey = (image @ LUMA)[..., None]
    image = (image - grey) * np.float32(saturation) + grey
    clipped: NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return clipped


def augment(patch: NDArray[np.uint8], key: int, augmentation: Augmentation) -> NDArray[np.uint8]:
    """Augment a patch (P, P, 3) for the student."""
    if augmentation == "none":
        return patch
    turned = dihedral(patch, key & 7)
    return turned if augmentation == "flips" else jitter(turned, key)


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
    train, val = (reduce(np.intersect1d, [each.ok_rows(split) for each in teachers]) for split in (TRAIN, VAL))
    train = subset.restrict(train, teachers[0].plan)
    _require_enough(train, teachers)
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


def _require_enough(train: NDArray[np.int64], teachers: Sequence[StoredTeacher]) -> None:
    """Check that there are rows to train on.

    Raises:
        ConfigError: fewer than two.
    """
    if len(train) >= 2:
        return
    teacher = teachers[0]
    num_failed = teacher.plan.count(TRAIN) - len(train)
    advice = (
        f"{num_failed} planned rows failed in {made_with(teacher)}: fix the cause, then run it with --retry-failures"
        if num_failed
        else "Plan with more slides, or with a smaller --val-fraction"
    )
    raise ConfigError(f"{teacher.folder}: {len(train)} rows to train on, at least 2 are needed. {advice}")


def _why_not_scored(val: NDArray[np.int64], teachers: Sequence[StoredTeacher]) -> str:
    """Why fewer than `MIN_SCORED` rows are held out."""
    why = "no rows are held out" if not len(val) else f"one row is held out, and {MIN_SCORED} are needed to score"
    teacher = teachers[0]
    if failed := teacher.plan.count(VAL) - len(val):
        why += f" ({failed} of {failed + len(val)} planned rows failed in {made_with(teacher)})"
    return why


def _sample(rows: NDArray[np.int64], most: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Sample at most `most` of the rows, by hash; ascending."""
    keys = row_keys(rows, seed, 0, purpose)
    return np.sort(rows[np.argsort(keys, kind="stable")[:most]])


def row_views(
    rows: NDArray[np.int64], views: Views, draws: RunDraws, epoch: int, *, plain: bool = True
) -> NDArray[np.int64]:
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
            for made in (made for teacher in teachers for made in (teacher, *teacher.rounds)):
                require_replay(made)
        self._slides = None
        if not self._store.has_pixels:  # what stage one has read, of repaired slides too
            accepts = only_noted(self._store)
            self._slides = PlannedPatches(self._store.plan, None, slides_root, tell=tell, accepts_changed=accepts)

    def cases(self, rows: Sequence[int]) -> NDArray[np.str_]:
        """The case of each of the rows."""
        return self._store.plan.case_of_row()[np.asarray(rows, np.int64)]

    def read(self, row: int, out: NDArray[np.uint8], view: int = 0) -> NDArray[np.float32]:
        """Fill `out`, uint8 (P, P, 3), with a view of the patch; returns all teachers' embeddings of it, concatenated:
        float32 (T,).

        Raises:
            StoreError: pixels or embedding are damaged, or the slide can no longer be read.
        """
        if self._slides is None:
            tile = self._store.read_pixels(row)
        else:
            tile = np.empty((self._tile_px, self._tile_px, 3), np.uint8)
            result = self._slides.read(row, tile)
            if result.status is not Status.OK:
                raise StoreError(
                    f"row {row} could be read for the teacher, but not now: {result.reason}. The store "
                    "has no pixels: give the folder of the slides with --slides-root"
                )
        out[:] = self.views.apply(tile, row, view)
        return np.concatenate([teacher.read_embedding(row, view) for teacher in self._teachers])

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

    def read(self, row: int, out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Read the epoch's view of the row as `StoredRows.read` does, then augment it."""
        number, rows = np.array([row]), self._rows
        if rows.fresh is None:
            view = int(row_views(number, rows.views, self._draws, self._epoch, plain=rows.plain_view)[0])
        else:
            view = rows.fresh.view(self._epoch)
        embedding = rows.read(row, out, view)
        if self._augmentation != "none":
            key = int(row_keys(number, self._draws.seed, self._epoch, "augment")[0])
            out[:] = augment(out.copy(), key, self._augmentation)
        return embedding


def teacher_statistics(
    teacher: StoredTeacher, split: int, rows: NDArray[np.int64] | None = None, num_views: int = 1, first_view: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and unbiased variance of the teacher's embeddings over all rows of a split, float64 (T,) each.

    Restricted to `rows` if given; over the first `num_views` views of each row, from `first_view` on.

    Reads every embedding once, which compares every checksum. Shards are combined by the parallel algorithm of Chan,
    Golub and LeVeque (1983), one at a time; `evaluate.probes.attention_mil.Moments.merge` takes all parts at once,
    whose last digits differ.

    Raises:
        StoreError: a shard is damaged, or the split has fewer than two rows.
    """
    wanted = teacher.plan.split() == split
    if rows is not None:
        wanted &= np.isin(np.arange(teacher.num_rows), rows)
    count, mean, square = 0, np.zeros(teacher.width), np.zeros(teacher.width)
    for shard in range(teacher.num_shards):
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
        raise StoreError(f"{teacher.folder}: fewer than two rows to train on")
    return mean, square / (count - 1)
