"""The ledger: what is done, what became of the rows, and entries that are damaged."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import StoreError
from pipeline.store.ledger import Ledger
from pipeline.store.store import Store


@pytest.mark.parametrize("content", [b"{", b"null", b"[]", b"{}", b"\xff", b""])
def test_a_damaged_ledger_entry_is_told(copy: Path, content: bytes) -> None:
    Store(copy).first.ledger.path(1).write_bytes(content)
    with pytest.raises(StoreError, match=r"1.json: damaged ledger entry .* Delete it to redo the shard"):
        Store(copy).first.ledger.pending()


def entry(rows: range, failed: dict[int, str]) -> dict[str, Any]:
    """An entry of a shard without files."""
    counts = Counter(failed.get(row, "OK") for row in rows)
    failures = [{"row": row, "status": status} for row, status in failed.items()]
    return {"rows": [rows.start, rows.stop], "status": dict(counts), "files": {}, "failures": failures}


@given(st.integers(0, 500), st.integers(1, 600))
def test_every_row_is_of_one_shard(num_rows: int, rows_per_shard: int) -> None:
    ledger = Ledger(Path("nowhere"), num_rows, rows_per_shard)
    shards = [ledger.rows(shard) for shard in range(ledger.num_shards)]
    assert [row for rows in shards for row in rows] == list(range(num_rows))
    assert all(len(rows) == rows_per_shard for rows in shards[:-1])
    assert all(len(rows) > 0 for rows in shards)


def test_what_is_entered_is_counted_and_what_is_forgotten_is_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 22, 8)
    assert ledger.pending() == [0, 1, 2]
    assert ledger.read(1) is None
    made = {shard: entry(ledger.rows(shard), failed) for shard, failed in ((1, {9: "EMPTY"}), (2, {21: "NO_SLIDE"}))}
    for shard in (2, 1):
        ledger.write(shard, made[shard])
    assert dict(ledger.entries()) == {0: None} | made
    assert ledger.pending() == [0]
    counts = {name: number for name, number in ledger.status_counts().items() if number}
    assert counts == {"ABSENT": 8, "OK": 12, "EMPTY": 1, "NO_SLIDE": 1}
    assert sum(counts.values()) == ledger.num_rows
    assert [failure["row"] for failure in ledger.failures()] == [9, 21]
    assert (ledger.num_done(), ledger.row_seconds()) == (14, None)
    ledger.write(1, made[1] | {"seconds": 4.0})
    assert ledger.row_seconds() == 4 / 8  # of the rows of entries that say it
    ledger.forget(2)
    assert ledger.pending() == [0, 2]
    assert ledger.status_counts()["ABSENT"] == 8 + 6
    assert [failure["row"] for failure in ledger.failures()] == [9]


def test_a_status_of_another_program_is_damage(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 8, 8)
    ledger.write(0, entry(ledger.rows(0), {1: "MELTED"}))
    with pytest.raises(StoreError, match=r"0\.json: damaged ledger entry .*MELTED"):
        ledger.status_counts()
