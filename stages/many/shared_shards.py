"""Shards of a store that all processes of a launched group do: what the leader and its helpers have in common."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pipeline.base.console import Progress
from pipeline.base.errors import StoreError
from pipeline.base.launched.group import LaunchedGroup, SharedWork
from pipeline.store.store import StoredTeacher

VISIBLE_SECONDS = 120.0
"""How long a file may take to be seen on another machine. Our choice: clients of NFS keep what they know for 60 s."""


class DoShards(Protocol):
    """Reads and commits shards of a store, and counts them, where they are `shared`, with those of other processes."""

    def __call__(self, shards: Iterable[int], /, *, shared: SharedWork | None = None) -> None: ...


def lead(
    group: LaunchedGroup,
    teacher: StoredTeacher,
    pending: Sequence[int],
    do_shards: DoShards,
    message: Mapping[str, Any],
    what: str,
    *,
    stages: bool = False,
) -> None:
    """Call the other processes to the pending shards, do them with these, and show what all do.

    Args:
        teacher: the embeddings to make; a round's own view is what the others tell it by.
        message: what the others need besides the store: JSON types.
        what: word for the line of progress.
        stages: whether slides are staged: neighbouring shards are then done by one process, for they share slides.

    Raises:
        G2LError: as `do_shards`; or this machine does not see what the others have written.
    """
    failed, total = len(teacher.ledger.failures()), teacher.num_rows_here
    call = {**message, "view": teacher.own_view, "pending": list(pending), "failed": failed, "stages": stages}
    if group.member.incarnation > 1:  # else nobody has done anything through this launcher's store
        share_shards(group, teacher, call).take_back()
    group.call(call)
    done = total - teacher.ledger.count_rows(pending)
    with Progress(what, total, "patches", done=done) as progress, group.showing(progress):
        do_claimed(group, teacher, call, do_shards)
    await_ledger(teacher, pending)


def do_claimed(group: LaunchedGroup, teacher: StoredTeacher, call: Mapping[str, Any], do_shards: DoShards) -> None:
    """Do this process's share of the shards that the leader's `call` says are pending; returns when all of them are
    done, whoever does them.

    Raises:
        G2LError: as `do_shards`, or the leader has failed.
    """
    shared = share_shards(group, teacher, call)
    for claimed in shared.rounds():
        do_shards(claimed, shared=shared)


def share_shards(group: LaunchedGroup, teacher: StoredTeacher, call: Mapping[str, Any]) -> SharedWork:
    """The shards that the leader's `call` says are pending, those of a round apart from others of the same number."""
    return group.share(
        call["pending"],
        lambda shard: teacher.ledger.read(shard) is not None,
        call["failed"],
        space=f"view-{call['view']}/" if call["view"] else "",
        in_runs=call["stages"],
    )


class OwnWork:
    """The shards of a process alone; what it does is shown and counted as a `SharedWork`'s is."""

    def __init__(self, progress: Progress, failed: int) -> None:
        self.step, self.note = progress.step, progress.note
        self._failed = failed

    def add_failed(self, count: int) -> int:
        """Count failures; returns those of this and of earlier runs."""
        self._failed += count
        return self._failed


@contextmanager
def counted_work(
    teacher: StoredTeacher, shards: Iterable[int], what: str, shared: SharedWork | None
) -> Iterator[OwnWork | SharedWork]:
    """What counts the rows of `shards`: with those of the other processes, or alone, with a line of progress."""
    if shared is not None:
        yield shared
        return
    assert isinstance(shards, Sequence), "they are counted first, and done afterwards"
    total = teacher.num_rows_here
    done = total - teacher.ledger.count_rows(shards)
    with Progress(what, total, "patches", done=done) as progress:
        yield OwnWork(progress, len(teacher.ledger.failures()))


def await_ledger(teacher: StoredTeacher, shards: Sequence[int]) -> None:
    """Wait until this machine sees the entries that others have written: a file server may show them late.

    Raises:
        StoreError: it does not, for long.
    """
    until = time.monotonic() + VISIBLE_SECONDS
    while missing := [shard for shard in shards if teacher.ledger.read(shard) is None]:
        if time.monotonic() > until:
            raise StoreError(
                f"{teacher.folder}: shard {missing[0]} was written by another process and is not there after "
                f"{VISIBLE_SECONDS:g} s. Do all machines see the same folder?"
            )
        os.listdir(teacher.ledger.folder)  # makes a client of NFS ask its server
        time.sleep(1)
