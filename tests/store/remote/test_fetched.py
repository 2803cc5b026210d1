import shutil
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import StoreError
from pipeline.config.staging import StageFolder
from pipeline.disk.files import bytes_below
from pipeline.disk.objects.bucket import Bucket, ObjectError
from pipeline.store.check import check_shard
from pipeline.store.remote.fetched import FetchedShards, RangedShard
from pipeline.store.remote.opening import open_store
from pipeline.store.store import Store


@pytest.fixture
def there(store: Store, tmp_path: Path) -> Path:
    """A copy of the store, which a test reads by its address."""
    return Path(shutil.copytree(store.folder, tmp_path / "there.zarr"))


@contextmanager
def opened(there: Path, most_bytes: int | None = None, told: list[str] | None = None) -> Iterator[Store]:
    stage = StageFolder(there.parent / "stage", most_bytes)
    with open_store(Path(f"file://{there}"), stage, tell=[].append if told is None else told.append) as remote:
        yield remote


def small_bytes(there: Path) -> int:
    """Bytes that are fetched when the store is opened."""
    with opened(there) as remote:
        return bytes_below(remote.folder)


def require_same_rows(remote: Store, store: Store) -> None:
    for row in range(store.num_rows):
        assert np.array_equal(remote.read_pixels(row), store.read_pixels(row))
        assert np.array_equal(remote.first.read_embedding(row), store.first.read_embedding(row))
    for shard in range(store.first.num_shards):
        assert np.array_equal(remote.first.read_embeddings(shard), store.first.read_embeddings(shard))


def wait_until_decided(remote: Store) -> None:
    """Until each file was fetched, or refused."""
    assert isinstance(remote.files, FetchedShards)
    wait(remote.files._fetching.values())


def test_files_are_fetched_ahead_and_then_read_here(there: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with opened(there, told=told) as remote:
        remote.expect([remote.first])
        wait_until_decided(remote)
        monkeypatch.setattr(Bucket, "read", None)  # nothing is asked for any more
        require_same_rows(remote, store)
    assert len(told) == 1
    assert f"fetching {store.first.ledger.num_bytes() / 1e3:.1f} kB ahead of use" in told[0]


@pytest.mark.parametrize("extra", [0, 3000, 40_000])
def test_without_room_for_all_the_rest_is_read_by_range(there: Path, store: Store, extra: int) -> None:
    told: list[str] = []
    bound = small_bytes(there) + extra
    with opened(there, bound, told) as remote:
        remote.expect([remote.first])
        for rows in np.arange(store.num_rows).reshape(-1, 8).tolist():
            remote.read_ahead(rows)
            for row in rows:
                assert np.array_equal(remote.read_pixels(row), store.read_pixels(row))
        require_same_rows(remote, store)
        assert bytes_below(there.parent / "stage") <= bound + 100  # and the lock
    assert len(told) == 2
    assert "has room for no more" in told[1]


def test_rows_asked_for_ahead_are_asked_for_once(there: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = Bucket.read
    with opened(there) as remote:
        remote.read_pixels(0)  # opens the shard
        monkeypatch.setattr(
            Bucket, "read", lambda self, name, start, length: (asked.append(name), real(self, name, start, length))[1]
        )
        remote.read_ahead(list(range(16)))
        for row in range(16):
            assert np.array_equal(remote.read_pixels(row), store.read_pixels(row))
    assert len(asked) == 16


def test_a_file_that_has_come_replaces_the_one_in_the_bucket(there: Path) -> None:
    with opened(there) as remote:
        path, chunks = remote.first.shard_path("pixels", 0), remote.first.rows_per_shard
        before = remote.files.open(path, chunks)
        assert isinstance(before, RangedShard)
        assert before.is_current
        remote.expect([remote.first])
        wait_until_decided(remote)
        assert not before.is_current
        assert not isinstance(remote.files.open(path, chunks), RangedShard)


def test_a_store_that_was_copied_in_part_is_noticed(there: Path, store: Store) -> None:
    store_files = [store.first.shard_path(array, 2).relative_to(store.folder) for array in ("pixels", "embedding")]
    (there / store_files[0]).unlink()
    (there / store_files[1]).write_bytes(b"1")
    with (
        opened(there) as remote,
        pytest.raises(
            StoreError, match=r"missing or of another size: 2 files .*embedding/c/2/0, .*copied only in part"
        ),
    ):
        remote.expect([remote.first])


@pytest.mark.parametrize("array", ["status", "embedding", "pixels"])
def test_a_damaged_file_is_named(there: Path, store: Store, array: str) -> None:
    path = there / store.first.shard_path(array, 1).relative_to(store.folder)
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with opened(there) as remote:
        remote.expect([remote.first])
        wait_until_decided(remote)
        reads = {
            "status": remote.first.status,
            "embedding": lambda: remote.first.read_embeddings(1),
            "pixels": lambda: remote.read_pixels(16),
        }
        with pytest.raises(StoreError, match=rf"file://.*{array}/c/1.*: damaged \(SHA-256 is not the ledger's\)"):
            reads[array]()
        assert check_shard(remote.first, 1) == [
            f"{path.relative_to(there)}: its bytes have changed (SHA-256 does not match)"
        ]
        assert check_shard(remote.first, 0) == []


def test_a_file_that_shrinks_or_goes_is_named(there: Path, store: Store) -> None:
    path = there / store.first.shard_path("pixels", 1).relative_to(store.folder)
    with opened(there, small_bytes(there)) as remote:
        remote.read_pixels(16)
        data = path.read_bytes()
        path.write_bytes(data[:1])
        with pytest.raises((StoreError, ObjectError), match="pixels/c/1"):
            remote.read_pixels(20)
        path.unlink()
        with pytest.raises(ObjectError, match=r"pixels/c/1/0/0/0: no such object"):
            remote.read_pixels(20)


def test_checks_say_what_they_say_of_a_folder(there: Path, store: Store) -> None:
    first = store.first
    (there / first.shard_path("status", 0).relative_to(store.folder)).unlink()
    path = there / first.shard_path("pixels", 1).relative_to(store.folder)
    path.write_bytes(path.read_bytes()[:-1])
    with opened(there) as remote:
        local = Store(there).first
        for shard in range(first.num_shards):
            assert check_shard(remote.first, shard) == check_shard(local, shard)
        assert len(list((there.parent / "stage").rglob("0"))) < 20  # what was checked has gone


def test_no_room_to_check_a_file_is_named(there: Path) -> None:
    with opened(there, small_bytes(there)) as remote, pytest.raises(ObjectError, match="no room for its"):
        check_shard(remote.first, 0)
