"""Shard files: Zarr v3 shards written front to back, and read one inner chunk at a time.

A shard file is its inner chunks one after the other, then an index of (offset, length) little-endian uint64 pairs, then
the index's CRC-32C (Zarr v3 sharding codec, version 1.0:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/). Every inner chunk here ends with its own
CRC-32C. Written by hand because zarr-python holds a whole shard in memory and cannot be told to sync and rename; read
by hand because a random patch should cost one pread. tests/store/test_shards.py compares
both directions with zarr-python.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.base import interrupts
from pipeline.base.errors import StoreError
from pipeline.disk.asides import remove
from pipeline.disk.files import open_aside, replace, sync_file, sync_folder

MISSING = 2**64 - 1
"""Offset and length of an inner chunk that is not there: it reads as the array's fill value."""
CRC_BYTES = 4
ENTRY_BYTES = 16


def with_crc(data: bytes) -> bytes:
    """`data` followed by its CRC-32C, little-endian."""
    return data + int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def without_crc(data: bytes, where: str) -> bytes:
    """The inverse of `with_crc`.

    Raises:
        StoreError: the checksum does not match.
    """
    body = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or int(google_crc32c.value(body)).to_bytes(CRC_BYTES, "little") != data[-CRC_BYTES:]:
        raise StoreError(f"{where}: damaged (checksum does not match). `g2l verify` lists all damage")
    return body


def make_folders(folder: Path) -> None:
    """Create a folder and those above it, each in a way that survives a power cut."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


class ShardWriter:
    """Writes one shard file aside; `commit` syncs and renames it. As a context it cleans up after itself.

    Chunks are given in order, `None` for one that is missing.
    """

    def __init__(self, path: Path, num_chunks: int) -> None:
        self.path = path
        self.num_chunks = num_chunks
        make_folders(path.parent)
        self._aside, self._key = open_aside(path)
        with interrupts.guard:
            self._file = open(self._aside, "xb")  # noqa: SIM115  (closed by commit or __exit__)
        self._digest = hashlib.sha256()
        self._entries: list[tuple[int, int]] = []
        self.num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # closing writes what is buffered, which a full disk does not take
            self._file.close()
        remove(self._aside)
        interrupts.settled(self._key)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.num_bytes += len(data)

    def append(self, chunk: bytes | None) -> None:
        """Add the next inner chunk, without its checksum."""
        assert len(self._entries) < self.num_chunks
        if chunk is None:
            self._entries.append((MISSING, MISSING))
            return
        framed = with_crc(chunk)
        self._entries.append((self.num_bytes, len(framed)))
        self._write(framed)

    def commit(self) -> dict[str, str | int]:
        """Finish the file: index, sync, rename. Returns its sha256 and bytes."""
        self._entries += [(MISSING, MISSING)] * (self.num_chunks - len(self._entries))
        self._write(with_crc(np.array(self._entries, "<u8").tobytes()))
        self._file.flush()
        sync_file(self._file.fileno())
        self._file.close()
        replace(self._aside, self.path)
        sync_folder(self.path.parent)
        return {"sha256": self._digest.hexdigest(), "bytes": self.num_bytes}


def pack_index(entries: NDArray[np.uint64], end: int) -> NDArray[np.uint64] | NDArray[np.uint32]:
    """An index, (N, 2), as the places where chunks end, uint32 (N + 1,), if they follow each other from the start of
    the file on, before `end`, as `ShardWriter` puts them; a missing one ends where it begins. Any other as it is.
    """
    there = (entries != MISSING).any(axis=1)
    lengths = np.where(there, entries[:, 1], np.uint64(0))
    if end >= 1 << 32 or (lengths > end).any() or not lengths[there].all():
        return entries
    ends = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths, dtype=np.uint64)])
    if ends[-1] > end or not np.array_equal(ends[:-1][there], entries[there, 0]):
        return entries
    return ends.astype(np.uint32)


class _Descriptor:
    """An open file; it is closed when nobody refers to it any more, a thread that reads it included."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe there is too short
        self.found = os.fstat(self.number)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    @property
    def version(self) -> tuple[int, int, int, int]:
        """What another file in its place, or one that was written to, has otherwise: device, number, bytes, time."""
        return self.found.st_dev, self.found.st_ino, self.found.st_size, self.found.st_mtime_ns


class ShardFile:
    """One shard file, open for reading; safe to use from many threads. Its index is held in memory: 4 bytes a chunk, or
    16 where chunks do not follow each other or the file has 4 GiB.

    Messages call it `name`, by default its path.

    Raises:
        StoreError: the file is missing or unreadable, or its index is damaged.
    """

    _descriptor: _Descriptor | None
    _version: tuple[int, int, int, int]

    def __init__(self, path: Path, num_chunks: int, name: str = "") -> None:
        self.path = path
        self.num_chunks = num_chunks
        self.name = name or str(path)
        index_bytes = num_chunks * ENTRY_BYTES + CRC_BYTES
        self._index_start = self._open() - index_bytes
        if self._index_start < 0:
            raise self._damaged("too short")
        index = without_crc(self._read(self._index_start, index_bytes), f"{self.name}: its index")
        self._entries = pack_index(np.frombuffer(index, "<u8").reshape(num_chunks, 2), self._index_start)

    @property
    def is_current(self) -> bool:
        """Whether there is no faster way to the file by now."""
        return True

    def rest(self) -> None:
        """Close the file, once nobody reads it, until it is read again; its index stays in memory."""
        self._descriptor = None

    def wake(self) -> bool:
        """Open it again after `rest`; returns whether it is still the file that the index is of.

        Raises:
            StoreError: the file is missing or unreadable.
        """
        descriptor = self._find()
        if descriptor.version != self._version:
            return False
        self._descriptor = descriptor
        return True

    def _open(self) -> int:
        """Open the file; returns its size in bytes."""
        self._descriptor = self._find()
        self._version = self._descriptor.version
        return self._descriptor.found.st_size

    def _find(self) -> _Descriptor:
        """The file that is there now, open; raises as `wake`."""
        try:
            return _Descriptor(self.path)
        except FileNotFoundError:
            raise StoreError(f"{self.name}: the shard file is missing. `g2l verify` lists all damage") from None
        except OSError as error:
            raise StoreError(f"{self.name}: the shard file cannot be read ({error.strerror})") from error

    def _damaged(self, how: str) -> StoreError:
        return StoreError(f"{self.name}: damaged ({how}). `g2l verify` lists all damage")

    def _read(self, offset: int, length: int) -> bytes:
        descriptor = self._descriptor
        if descriptor is None:  # another thread has let it rest
            descriptor = self._find()
            if descriptor.version[2:] != self._version[2:]:  # some mounts number their files anew
                raise self._damaged("it has changed since it was opened")
        try:
            return os.pread(descriptor.number, length, offset)
        except OSError as error:
            raise StoreError(f"{self.name}: the shard file cannot be read ({error.strerror})") from error

    def _entry(self, index: int) -> tuple[int, int] | None:
        """(offset, length) of an inner chunk with its checksum, or `None` if it is missing."""
        if self._entries.ndim == 1:
            start, end = self._entries[index : index + 2].tolist()
            return (start, end - start) if end > start else None
        offset, length = self._entries[index].tolist()
        if offset == MISSING and length == MISSING:
            return None
        if offset + length > self._index_start:
            raise self._damaged("index out of the file")
        return offset, length

    def read_chunk(self, index: int) -> bytes | None:
        """An inner chunk without its checksum, or `None` if it is missing.

        Raises:
            StoreError: it is damaged.
        """
        entry = self._entry(index)
        return None if entry is None else without_crc(self._read(*entry), self.name)

    def read_checksum(self, index: int) -> int:
        """Length and CRC-32C of an inner chunk in one number, as they stand in the file; the chunk is not read.

        Raises:
            StoreError: it is missing.
        """
        entry = self._entry(index)
        if entry is None or entry[1] < CRC_BYTES:
            raise self._damaged("a row is missing")
        offset, length = entry
        return length << 8 * CRC_BYTES | int.from_bytes(self._read(offset + length - CRC_BYTES, CRC_BYTES), "little")

    def read_slice(self, index: int, start: int, length: int) -> bytes:
        """`length` bytes of an inner chunk from `start` on, without checking its checksum.

        Raises:
            StoreError: they are not there.
        """
        entry = self._entry(index)
        if entry is None or start + length > entry[1] - CRC_BYTES:
            raise self._damaged("a row is missing")
        return self._read(entry[0] + start, length)

    def read_rows(self, dtype: str, width: int | None) -> NDArray[np.generic]:
        """All chunks of a raw array, joined: (rows, width) or (rows,)."""
        chunks = [self.read_chunk(i) for i in range(self.num_chunks)]
        if any(chunk is None for chunk in chunks):
            raise self._damaged("a chunk of rows is missing")
        data = b"".join(chunk for chunk in chunks if chunk is not None)
        numbers = np.dtype(dtype).newbyteorder("<")
        if len(data) % (numbers.itemsize * (width or 1)):
            raise self._damaged("its rows are not whole")
        rows = np.frombuffer(data, numbers)
        return rows.reshape(-1, width) if width else rows


@dataclass(frozen=True)
class KnownShard:
    """A shard file as a ledger knows it, and whether it is needed whole before it is of use."""

    path: Path
    num_bytes: int
    sha256: str
    is_needed_whole: bool


class ShardSource(Protocol):
    """Where the shard files of a store come from. Paths are those below the store's folder."""

    def name(self, path: Path) -> str:
        """What messages call a file or folder."""

    def open(self, path: Path, num_chunks: int) -> ShardFile:
        """A shard file, open for reading; raises as `ShardFile`."""

    def copy(self, path: Path) -> Path:
        """Where the file is on this machine, or would be; within `held`."""

    @contextmanager
    def held(self, paths: Sequence[Path]) -> Iterator[None]:
        """While the block runs, those of the files that exist are on this machine, whatever is wrong with them."""

    def expect(self, shards: Iterable[KnownShard]) -> None:
        """Say which files will be read, in the order of need."""

    def read_ahead(self, path: Path, num_chunks: int, chunks: Sequence[int]) -> None:
        """Say which chunks of a file will be read next, each once."""


class LocalShards:
    """The shard files of a store in a folder."""

    def name(self, path: Path) -> str:
        """As `ShardSource`."""
        return str(path)

    def open(self, path: Path, num_chunks: int) -> ShardFile:
        """As `ShardSource`."""
        return ShardFile(path, num_chunks)

    def copy(self, path: Path) -> Path:
        """As `ShardSource`: the file itself."""
        return path

    @contextmanager
    def held(self, paths: Sequence[Path]) -> Iterator[None]:
        """As `ShardSource`."""
        yield

    def expect(self, shards: Iterable[KnownShard]) -> None:
        """As `ShardSource`: nothing is to be done."""

    def read_ahead(self, path: Path, num_chunks: int, chunks: Sequence[int]) -> None:
        """As `ShardSource`: nothing is to be done."""


class ShardCache:
    """The shard files of an array. Those used last are kept open, a fixed number, however many the store has; of the
    others the index stays in memory, for a random row should not cost that of a whole shard. `open_file` opens one.
    """

    def __init__(
        self, num_chunks: int, capacity: int = 64, open_file: Callable[[Path, int], ShardFile] = ShardFile
    ) -> None:
        self._num_chunks = num_chunks
        self._capacity = capacity
        self._open_file = open_file
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, ShardFile] = OrderedDict()
        self._resting: dict[Path, ShardFile] = {}

    def open(self, path: Path) -> ShardFile:
        """The shard file at `path`; one that drops out is closed when its last reader is done."""
        with self._lock:
            file = self._files.get(path)
            if file is None or not file.is_current:
                file = self._files[path] = self._awake(path) or self._open_file(path, self._num_chunks)
                if len(self._files) > self._capacity:
                    oldest, dropped = self._files.popitem(last=False)
                    dropped.rest()
                    self._resting[oldest] = dropped
            self._files.move_to_end(path)
        return file

    def _awake(self, path: Path) -> ShardFile | None:
        """A file that was open before, if it is still the same one."""
        file = self._resting.pop(path, None)
        return file if file is not None and file.is_current and file.wake() else None
