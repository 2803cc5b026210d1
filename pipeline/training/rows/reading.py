"""Read rows for training: their pixels, as the student sees them in an epoch, and their teachers' embeddings.

Everything is a function of (seed, epoch, row), independent of workers and of earlier steps, so that a run can continue
at any step.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Tell
from pipeline.base.draws import RunDraws
from pipeline.base.errors import StoreError
from pipeline.cohort.views.views import Views
from pipeline.slides.staging.objects import refuse_objects
from pipeline.store.changed_slides import only_noted
from pipeline.store.format import Status
from pipeline.store.fresh_views import FreshViews
from pipeline.store.patches import PlannedPatches
from pipeline.store.replay import require_replay
from pipeline.store.store import StoredTeacher
from pipeline.training.augment import Augmentation, augment
from pipeline.training.rows.order import row_keys, row_views

NO_PIXELS = (
    "this store keeps no pixels: its rows are read in random order, which would copy each slide for every batch. Make "
    "it with --pixels, or copy the slides to a folder and say with --slides-root where"
)


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
