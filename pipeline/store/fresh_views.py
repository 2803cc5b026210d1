"""Fresh views: an epoch shows one view of every row, and no other epoch shows it.

The views may be made in rounds while a run trains: an epoch needs its own view only, so a run ends with an error when
it comes to one that is not there yet, and continues once it is. What has been shown may not change: the run's folder
keeps the hash of each round, and the student's `student.json` has them too.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.base.console import counted
from pipeline.base.errors import StoreError
from pipeline.base.outside import is_there, read_json, reading
from pipeline.disk.files import write_json
from pipeline.sampling import RowNumbers
from pipeline.store.format import Status
from pipeline.store.replay import require_replay
from pipeline.store.store import StoredTeacher
from pipeline.store.teachers import ChosenTeachers


def read_shown(record: Path) -> list[list[str]]:
    """For each epoch that has begun the content hashes of the rounds that it shows, a hash a teacher; nothing where
    there is no record.

    Raises:
        StoreError: it is damaged.
    """
    if not is_there(record):
        return []
    with reading(record, "damaged record of the views that were shown", StoreError, "Start another run"):
        return [[str(content) for content in contents] for contents in read_json(record)["shown"]]


@dataclass(frozen=True)
class MissingViews:
    """Views that a run would show and that are not made: what there is, and what makes the others, in words."""

    are_there: str
    remedy: str


def missing_views(teachers: ChosenTeachers, epochs: int, *, plain: bool) -> MissingViews | None:
    """What a run of so many epochs lacks of fresh views; `plain` is whether it shows the patch itself. Reads no row."""
    first = 0 if plain else 1
    count, needed = teachers.views_at_hand.count, first + epochs
    if count >= needed:
        return None
    return MissingViews(
        f"there are fresh views for {max(count - first, 0)} of {counted(epochs, 'epoch')}",
        f"`g2l extract-teacher` with --views {needed} --views-per-epoch fresh has made the others",
    )


class FreshViews:
    """Which view each epoch shows, that it is whole, and that it stays what it was.

    Args:
        rows: the training rows, (N,).
        plain: whether the patch itself is the first view; else it is not shown.
        record: file of what has been shown, which may be there; `None`: nothing was, and none is kept.
        writes: whether this process writes it.

    Raises:
        StoreError: the record is damaged.
    """

    def __init__(
        self,
        teachers: ChosenTeachers,
        rows: RowNumbers,
        *,
        plain: bool,
        record: Path | None = None,
        writes: bool = False,
    ) -> None:
        self._teachers, self._rows = teachers, rows
        self._first = 0 if plain else 1
        self._record, self._writes = record, writes
        self._shown = dict(enumerate(read_shown(record))) if record else {}

    def view(self, epoch: int) -> int:
        """The view that an epoch shows, epochs counted from 0."""
        return self._first + epoch

    def missing_note(self, epochs: int) -> str:
        """That views of a run of so many epochs are still to be made; "" if none are."""
        if not (missing := missing_views(self._teachers, epochs, plain=self._first == 0)):
            return ""
        return f"note: {missing.are_there}. The run will stop there until {missing.remedy}"

    def begin(self, epoch: int) -> None:
        """See that the view of an epoch is whole, and that no view of an epoch before it has been made again. Reads all
        its embeddings, which compares every checksum.

        Raises:
            StoreError: it is not there yet, a row of it failed, or one was made again.
        """
        self.require_unchanged()
        for made in self._rounds(epoch):
            require_replay(made)
            made.store.expect([made])
            for shard in range(made.num_shards):
                span = made.ledger.rows(shard)
                made.read_embeddings(shard)
                failed = span.start + np.flatnonzero(made.read_status(shard) != Status.OK)
                if wrong := np.intersect1d(failed, self._rows).tolist():
                    raise StoreError(
                        f"{made.place}: view {made.own_view} of row {wrong[0]} failed ({made.place}/failures.csv "
                        "lists all), and the run trains on that row. --retry-failures of extract-teacher tries it again"
                    )
        if epoch not in self._shown:
            self._shown[epoch] = self._contents(epoch)
            if self._record and self._writes:
                write_json(self._record, {"shown": list(self._shown.values())})

    def require_unchanged(self) -> None:
        """See that no view that was shown has been made again.

        Raises:
            StoreError: one was, or is not there any more.
        """
        for epoch, contents in self._shown.items():
            if contents != self._contents(epoch):
                places = ", ".join(made.place for made in self._rounds(epoch))
                raise StoreError(
                    f"{places}: view {self.view(epoch)} was made again since this run showed it in epoch {epoch + 1}. "
                    "Start another run"
                )

    def of_first(self, teacher: StoredTeacher) -> tuple[StoredTeacher, int]:
        """Where the first view to show lies: embeddings, and its number in them."""
        view = self._first
        return (teacher, view) if view < teacher.views.count else (self._round(teacher, view), 0)

    def _contents(self, epoch: int) -> list[str]:
        """Hashes of the rounds that an epoch shows; views that were made at once count in the store's hash."""
        return [made.content_hash() for made in self._rounds(epoch)]

    def _rounds(self, epoch: int) -> list[StoredTeacher]:
        """The rounds that an epoch shows, those of all teachers that did not make its view at once.

        Raises:
            StoreError: one is not there, or not finished.
        """
        view = self.view(epoch)
        return [self._round(each, view) for each in self._teachers.stored if view >= each.views.count]

    def _round(self, teacher: StoredTeacher, view: int) -> StoredTeacher:
        """A teacher's round of a view.

        Raises:
            StoreError: it is not there, or not finished.
        """
        made = teacher.round(view)
        if made is None or made.ledger.pending():
            place = teacher.store.files.name(teacher.round_folder(view))
            raise StoreError(
                f"{place}: view {view}, for epoch {view - self._first + 1}, is not there yet. "
                f"`g2l extract-teacher` with --teacher {teacher.name} --views {view + 1} (or more) --views-per-epoch "
                "fresh makes it; then the same command continues this run"
            )
        return made
