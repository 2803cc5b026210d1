"""Look at what a store should hold besides its metadata: its plan, and the shard files that its ledgers list.

A copy that was stopped half way has the ledgers and not the files, and training would end where the first one is
missing. Sizes are compared, and no shard is read. Left out: what the files hold, which `g2l verify` compares; stores in
a bucket.
"""

from collections.abc import Iterator

from pipeline.base.console import counted
from pipeline.base.errors import G2LError
from pipeline.store.shards import LocalShards
from pipeline.store.store import Store
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
        wrong = [each for made in teacher.with_rounds for each in made.wrong_files()]
        if wrong:
            files, (path, num_bytes) = counted(len(wrong), "file"), wrong[0]
            how = "is missing" if num_bytes is None else f"has {num_bytes:,} bytes"
            words = f"{files} of {teacher.name}'s finished shards missing or cut: {path} {how}"
            yield trouble("files", words, COPY_AGAIN)
