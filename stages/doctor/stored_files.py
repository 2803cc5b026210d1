"""Look at what a store should hold besides its metadata: its plan, and the shard files that its ledgers list.

A copy that was stopped half way has the ledgers and not the files, and training would end where the first one is
missing. Sizes are compared, and no shard is read. Left out: what the files hold, which `g2l verify` compares; stores in
a bucket.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.base.console import counted
from pipeline.base.errors import G2LError
from pipeline.store.shards import LocalShards
from pipeline.store.store import Store, StoredTeacher
from stages.doctor.findings import Finding, trouble

COPY_AGAIN = (
    "copy the store once more, and `g2l verify` it; where there is no other copy, `g2l verify` says which shards to "
    "delete, which `g2l extract-teacher` then makes again"
)

COPY_PLAN = "copy its folder `plan`, or the whole store, from where it was made; without it the store cannot be read"


def look_at_files(store: Store) -> Iterator[Finding]:
    """What is missing of a store: its plan, or files of finished shards; nothing where all is there.

    Raises:
        StoreError: an entry of a ledger is damaged.
    """
    try:
        _ = store.plan
    except G2LError as error:
        yield trouble("plan", str(error), COPY_PLAN)
    if not isinstance(store.files, LocalShards):
        return
    for teacher in store.teachers.values():
        wrong = [words for made in teacher.with_rounds for words in _wrong_files(made)]
        if wrong:
            files = counted(len(wrong), "file")
            words = f"{files} of {teacher.name}'s finished shards missing or cut: {wrong[0]}"
            yield trouble("files", words, COPY_AGAIN)


def _wrong_files(teacher: StoredTeacher) -> Iterator[str]:
    """The files of finished shards that are not there with all their bytes, in words."""
    finished = ((shard, entry["files"]) for shard, entry in teacher.ledger.entries() if entry is not None)
    for shard, listed in finished:
        for path in teacher.shard_files(shard):
            size = _size(path)
            if size != listed.get(path.relative_to(teacher.folder).as_posix(), {}).get("bytes"):
                yield f"{path} {'is missing' if size is None else f'has {size:,} bytes'}"


def _size(path: Path) -> int | None:
    """Bytes of a file; `None` if it is not there."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
