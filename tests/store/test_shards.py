"""Shard files against zarr-python in both directions, and damage at every byte."""

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.pixels import noise

from pipeline.base.errors import StoreError
from pipeline.base.images import ImageFormat, encode_image
from pipeline.store import zarr_format
from pipeline.store.shards import (
    MISSING,
    ShardCache,
    ShardFile,
    ShardWriter,
    make_folders,
    pack_index,
    with_crc,
    without_crc,
)

ROWS = 20
SHARD_ROWS, CHUNK_ROWS = 8, 4


def write_shard(path: Path, chunks: Sequence[bytes | None], num_chunks: int) -> dict[str, str | int]:
    with ShardWriter(path, num_chunks) as writer:
        for chunk in chunks:
            writer.append(chunk)
        return writer.commit()


def random_rows(dtype: str, width: int | None) -> NDArray[Any]:
    rng, shape = np.random.default_rng(0), (ROWS,) if width is None else (ROWS, width)
    return rng.integers(1, 200, shape).astype(dtype) if dtype == "uint8" else rng.normal(size=shape).astype(dtype)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return noise(ROWS, 6, 6, 3, seed=1)


def make_array(folder: Path, dtype: str, width: int | None, fill: float = 0) -> Path:
    zarr_format.create_group(folder, {})
    shape = (ROWS,) if width is None else (ROWS, width)
    zarr_format.create_rows_array(folder, "a", shape, dtype, shard_rows=SHARD_ROWS, chunk_rows=CHUNK_ROWS, fill=fill)
    return folder / "a"


def shard_path(array: Path, shard: int, axes: int) -> Path:
    return array.joinpath("c", str(shard), *["0"] * axes)


@pytest.mark.parametrize(("dtype", "width"), [("float16", 5), ("float32", 1), ("uint8", None)])
def test_zarr_reads_what_we_write(tmp_path: Path, dtype: str, width: int | None) -> None:
    values, array = random_rows(dtype, width), make_array(tmp_path / "g", dtype, width)
    whole = np.zeros((24, *values.shape[1:]), dtype)
    whole[:ROWS] = values
    for shard in range(3):
        rows = whole[shard * SHARD_ROWS : (shard + 1) * SHARD_ROWS]
        chunks = [rows[i : i + CHUNK_ROWS].tobytes() for i in range(0, SHARD_ROWS, CHUNK_ROWS)]
        write_shard(shard_path(array, shard, values.ndim - 1), chunks, 2)
    np.testing.assert_array_equal(np.asarray(zarr.open_array(str(array), mode="r")[:]), values)


@pytest.mark.parametrize(("dtype", "width"), [("float16", 5), ("float32", 1), ("uint8", None)])
def test_we_read_what_zarr_writes(tmp_path: Path, dtype: str, width: int | None) -> None:
    values, array = random_rows(dtype, width), make_array(tmp_path / "g", dtype, width)
    zarr.open_array(str(array), mode="r+")[:] = values
    for shard in range(2):
        file = ShardFile(shard_path(array, shard, values.ndim - 1), 2)
        expected = values[shard * SHARD_ROWS : (shard + 1) * SHARD_ROWS]
        np.testing.assert_array_equal(file.read_rows(dtype, width), expected)
        row_bytes = expected[0].nbytes
        assert file.read_slice(1, 2 * row_bytes, row_bytes) == expected[CHUNK_ROWS + 2].tobytes()


def test_a_missing_chunk_is_the_fill_value(tmp_path: Path) -> None:
    array = make_array(tmp_path / "g", "float32", 2, fill=float("nan"))
    rows = np.ones((CHUNK_ROWS, 2), np.float32)
    write_shard(shard_path(array, 0, 1), [None, rows.tobytes()], 2)
    read = np.asarray(zarr.open_array(str(array), mode="r")[:])
    assert np.isnan(read[:CHUNK_ROWS]).all()
    assert (read[CHUNK_ROWS : 2 * CHUNK_ROWS] == 1).all()
    file = ShardFile(shard_path(array, 0, 1), 2)
    assert file.read_chunk(0) is None
    with pytest.raises(StoreError, match="a row is missing"):
        file.read_slice(0, 0, 8)
    with pytest.raises(StoreError, match="a chunk of rows is missing"):
        file.read_rows("float32", 2)


@pytest.mark.parametrize("image_format", ["jpegxl", "jpeg"])
def test_images_go_both_ways(tmp_path: Path, images: NDArray[np.uint8], image_format: ImageFormat) -> None:
    for name in ("ours", "zarrs"):
        zarr_format.create_group(tmp_path / name, {})
        zarr_format.create_images_array(
            tmp_path / name, "pixels", ROWS, 6, shard_rows=SHARD_ROWS, image_format=image_format
        )
    ours, zarrs = tmp_path / "ours" / "pixels", tmp_path / "zarrs" / "pixels"
    encoded: list[bytes | None] = [encode_image(image, image_format) for image in images]
    encoded[3] = None
    for shard in range(3):
        write_shard(shard_path(ours, shard, 3), encoded[shard * SHARD_ROWS : (shard + 1) * SHARD_ROWS], SHARD_ROWS)
    read = np.asarray(zarr.open_array(str(ours), mode="r")[:])
    zarr.open_array(str(zarrs), mode="r+")[:] = images
    assert (read[3] == 0).all()
    kept = np.arange(ROWS) != 3
    if image_format == "jpegxl":
        np.testing.assert_array_equal(read[kept], images[kept])
    np.testing.assert_array_equal(read[kept], np.asarray(zarr.open_array(str(zarrs), mode="r")[:])[kept])
    file = ShardFile(shard_path(zarrs, 1, 3), SHARD_ROWS)
    assert [file.read_chunk(i) for i in range(SHARD_ROWS)] == encoded[SHARD_ROWS : 2 * SHARD_ROWS]


def test_commit_tells_the_files_hash_and_size(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "shard"
    told = write_shard(path, [b"one", None, b""], 5)
    data = path.read_bytes()
    assert told == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    file = ShardFile(path, 5)
    assert [file.read_chunk(i) for i in range(5)] == [b"one", None, b"", None, None]
    assert list(path.parent.iterdir()) == [path]


def test_damage_at_any_byte_is_found_and_stays_where_it_is(tmp_path: Path) -> None:
    path, chunks = tmp_path / "shard", [b"first chunk", b"second", None]
    write_shard(path, chunks, 3)
    good = path.read_bytes()
    ends = [len(b"first chunk") + 4, len(b"first chunk") + len(b"second") + 8]
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        if at >= ends[1]:
            with pytest.raises(StoreError, match="index: damaged"):
                ShardFile(path, 3)
            continue
        damaged = 0 if at < ends[0] else 1
        file = ShardFile(path, 3)
        with pytest.raises(StoreError, match=r"shard: damaged \(checksum does not match\)"):
            file.read_chunk(damaged)
        assert file.read_chunk(1 - damaged) == chunks[1 - damaged]


def test_a_file_cut_anywhere_or_of_another_length_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    write_shard(path, [b"first chunk", b"second"], 2)
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(StoreError, match="damaged"):
            ShardFile(path, 2)
    path.write_bytes(good)
    with pytest.raises(StoreError, match="damaged"):
        ShardFile(path, 1)


def test_an_index_that_points_outside_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"x" * 10 + with_crc(np.array([[5, 6]], "<u8").tobytes()))
    for read in (lambda: ShardFile(path, 1).read_chunk(0), lambda: ShardFile(path, 1).read_slice(0, 0, 1)):
        with pytest.raises(StoreError, match="index out of the file"):
            read()


def test_a_slice_does_not_leave_its_chunk(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard", [b"12345678", b"another"], 2)
    file = ShardFile(tmp_path / "shard", 2)
    assert file.read_slice(0, 4, 4) == b"5678"
    with pytest.raises(StoreError, match="a row is missing"):
        file.read_slice(0, 6, 4)


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"shard: the shard file is missing"):
        ShardFile(tmp_path / "shard", 1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"folder: "):
        ShardFile(tmp_path / "folder", 1)


def test_checksums_fit_only_their_bytes() -> None:
    assert without_crc(with_crc(b"123456789"), "here") == b"123456789"
    assert with_crc(b"123456789")[-4:] == bytes.fromhex("839206e3")  # 0xe3069283, the check value of CRC-32C
    for broken in (b"", b"abc", with_crc(b"x")[:-1], b"\0" + with_crc(b"x")):
        with pytest.raises(StoreError, match="here: damaged"):
            without_crc(broken, "here")


def test_a_shard_that_is_given_up_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    write_shard(path, [b"old"], 1)
    before = path.read_bytes()

    def give_up() -> None:
        with ShardWriter(path, 1) as writer:
            writer.append(b"new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        give_up()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_nothing_half_written_remains_when_the_disk_is_full_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is buffered fails only when the file is closed: /dev/full takes no byte."""

    def open_full(path: Path, mode: str) -> Any:
        path.write_bytes(b"half")
        return open("/dev/full", mode.replace("x", "w"))

    monkeypatch.setattr("pipeline.store.shards.open", open_full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path / "shard", [b"new"], 1)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_serves_many_threads_with_few_files(tmp_path: Path) -> None:
    num_files, capacity = 12, 3
    for i in range(num_files):
        write_shard(tmp_path / str(i), [f"{i}.{j}".encode() for j in range(4)], 4)
    cache, barrier = ShardCache(4, capacity), threading.Barrier(4)
    before = len(os.listdir("/proc/self/fd"))

    def read(seed: int) -> bool:
        barrier.wait()
        order = np.random.default_rng(seed).integers(0, (num_files, 4), (400, 2)).tolist()
        return all(cache.open(tmp_path / str(i)).read_chunk(j) == f"{i}.{j}".encode() for i, j in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    assert len(os.listdir("/proc/self/fd")) - before <= capacity
    with pytest.raises(StoreError, match="missing"):
        cache.open(tmp_path / "none")


def test_the_index_of_a_file_is_read_once_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are read in random order: of more files than are kept open, nearly each row comes to one that is closed."""
    num_files, rounds = 6, 3
    for i in range(num_files):
        write_shard(tmp_path / str(i), [b"row"], 100)
    pread, lengths = os.pread, []

    def counted(number: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return pread(number, length, offset)

    monkeypatch.setattr("pipeline.store.shards.os.pread", counted)
    cache = ShardCache(100, 2)
    for _ in range(rounds):
        for i in range(num_files):
            assert cache.open(tmp_path / str(i)).read_chunk(0) == b"row"
    assert sum(length > 100 for length in lengths) == num_files
    assert sum(length <= 100 for length in lengths) == num_files * rounds


def test_a_file_that_was_made_again_while_it_was_closed_is_read_anew(tmp_path: Path) -> None:
    for name in "abc":
        write_shard(tmp_path / name, [b"first", b"x"], 2)
    cache = ShardCache(2, 2)
    held = cache.open(tmp_path / "a")
    for name in "bc":
        cache.open(tmp_path / name)
    assert held.read_chunk(0) == b"first", "closed by the cache, and still held"
    write_shard(tmp_path / "a", [b"another", b"y"], 2)
    for read in (held.read_chunk, held.read_checksum, lambda index: held.read_slice(index, 0, 1)):
        with pytest.raises(StoreError, match="it has changed since it was opened"):
            read(0)
    assert cache.open(tmp_path / "a").read_chunk(0) == b"another"
    with pytest.raises(StoreError, match="it has changed"):
        held.read_slice(1, 0, 1)
    (tmp_path / "b").unlink()
    with pytest.raises(StoreError, match="b: the shard file is missing"):
        cache.open(tmp_path / "b")


@given(chunks=st.lists(st.none() | st.binary(max_size=5), min_size=1, max_size=6), more=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_an_index_takes_four_bytes_a_chunk_and_says_the_same(chunks: list[bytes | None], more: int) -> None:
    written, start = [], 0
    for chunk in [*chunks, *[None] * more]:
        length = 0 if chunk is None else len(chunk) + 4
        written.append((MISSING, MISSING) if chunk is None else (start, length))
        start += length
    entries = np.array(written, "<u8")
    packed = pack_index(entries, start)
    assert packed.nbytes == 4 * (len(entries) + 1)
    for (offset, length), first, last in zip(written, packed[:-1].tolist(), packed[1:].tolist(), strict=True):
        assert (first == last) if offset == MISSING else (first, last) == (offset, offset + length)


@pytest.mark.parametrize(
    "entries",
    [
        [(4, 5)],  # bytes before it
        [(0, 5), (0, 5)],  # one place twice
        [(5, 5), (0, 5)],  # the last one first
        [(0, 0)],  # without a checksum
        [(0, 11)],  # beyond the end
        [(0, 5), (5, 2**64 - 1)],  # a sum that does not fit
        [(0, 5), (MISSING, 5)],
        [(0, 5), (5, MISSING)],
    ],
)
def test_another_index_stays_as_it_is(entries: list[tuple[int, int]]) -> None:
    array = np.array(entries, "<u8")
    assert pack_index(array, 10) is array
    assert pack_index(np.array([(0, 5)], "<u8"), 1 << 32).ndim == 2


def test_folders_are_synced_into_the_ones_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("pipeline.store.shards.sync_folder", synced.append)
    make_folders(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    make_folders(tmp_path / "a" / "b" / "c")
    assert len(synced) == 3


def test_the_checksum_of_a_chunk_is_known_without_reading_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", [b"abc", None, b"", b"abc", b"abd"], 5)
    file = ShardFile(tmp_path / "s", 5)
    sums = {index: file.read_checksum(index) for index in (0, 2, 3, 4)}
    assert sums[0] == sums[3] == (7 << 32) + int.from_bytes(with_crc(b"abc")[-4:], "little")
    assert len(set(sums.values())) == 3
    with pytest.raises(StoreError, match="a row is missing"):
        file.read_checksum(1)
