"""What a store is made of: what is no store of this version is refused, chunks divide shards, names are plain."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_writing import edit_attributes

from pipeline.base.errors import StoreError
from pipeline.store.format import CHUNK_ROWS, chunk_rows, folder_name
from pipeline.store.store import Store


@given(st.integers(1, 5000))
def test_chunks_divide_a_shard(rows_per_shard: int) -> None:
    rows = chunk_rows(rows_per_shard)
    assert rows_per_shard % rows == 0
    assert 1 <= rows <= CHUNK_ROWS
    assert not any(rows_per_shard % more == 0 for more in range(rows + 1, min(CHUNK_ROWS, rows_per_shard) + 1))


def test_a_store_of_another_version_or_format_is_refused(copy: Path) -> None:
    edit_attributes(copy, lambda a: a.update(version=99))
    with pytest.raises(StoreError, match=r"format version 99; this program reads version 1"):
        Store(copy)
    edit_attributes(copy, lambda a: a.update(version=1, format="something-else"))
    with pytest.raises(StoreError, match="something-else"):
        Store(copy)
    edit_attributes(copy, lambda a: a.pop("version"))
    with pytest.raises(StoreError, match="not a store of G2L"):
        Store(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"attributes": {}}', b'{"attributes": []}', b"\xff"])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(StoreError, match="not a store of G2L"):
        Store(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("h-optimus-0", "h-optimus-0"), ("hf-hub:a/b_c.d", "hf-hub-a-b_c.d"), ("../..", "teacher"), ("a\0b", "a-b")],
)
def test_folders_have_plain_names(name: str, folder: str) -> None:
    assert folder_name(name) == folder
