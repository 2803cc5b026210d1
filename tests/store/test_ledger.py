"""The ledger: what is done, what became of the rows, and entries that are damaged."""

from pathlib import Path

import pytest

from pipeline.base.errors import StoreError
from pipeline.store.store import Store


@pytest.mark.parametrize("content", [b"{", b"null", b"[]", b"{}", b"\xff", b""])
def test_a_damaged_ledger_entry_is_told(copy: Path, content: bytes) -> None:
    Store(copy).first.ledger.path(1).write_bytes(content)
    with pytest.raises(StoreError, match=r"1.json: damaged ledger entry .* Delete it to redo the shard"):
        Store(copy).first.ledger.pending()
