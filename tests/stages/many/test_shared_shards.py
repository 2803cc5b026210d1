"""What leader and helpers have in common: the ledger is complete when all say so, or the user is told."""

from pathlib import Path

import pytest
from support.launched import MemoryStore

from pipeline.base.errors import StoreError
from pipeline.base.launched.group import LaunchedGroup
from pipeline.store.store import Store
from stages.many import shared_shards
from stages.many.shared_shards import await_ledger, do_claimed


def test_a_shard_that_was_said_to_be_written_is_looked_for(good_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Store(good_store).first
    await_ledger(teacher, list(teacher.shards))
    monkeypatch.setattr(shared_shards, "VISIBLE_SECONDS", 0.0)
    monkeypatch.setattr(teacher.ledger, "read", lambda shard: None if shard == 1 else {})
    with pytest.raises(StoreError, match=r"shard 1 was written by another process and is not there after 0 s"):
        await_ledger(teacher, list(teacher.shards))


def test_shards_are_done_until_none_is_left(good_store: Path) -> None:
    group, seen = LaunchedGroup(MemoryStore(), 0, 2), []

    def do(claimed, *, shared=None) -> None:  # type: ignore[no-untyped-def]
        for shard in claimed:
            seen.append(shard)
            shared.done(shard)

    do_claimed(group, Store(good_store).first, {"pending": [2, 0, 1], "failed": 0, "view": 0, "stages": False}, do)
    assert seen == [2, 0, 1]
