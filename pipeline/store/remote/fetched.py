"""Shard files of a store in a bucket: fetched whole ahead of use as far as there is room, else read by range.

Training reads rows in random order, so that each batch needs nearly all shards: which file comes first hardly matters,
and none is done with before the end. So files stay once they are here. Those that are of use only whole (embeddings,
their status) come first, and whoever needs one waits for it. Pixels come after them; until a file is here, and where
there is no room for it, a patch is one request of the bucket, made ahead for the batches that come next.

A whole file is compared with the size and the SHA-256 of the ledger, a range with the checksum of its chunk.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.console import Tell, counted
from pipeline.base.errors import StoreError
from pipeline.base.units import format_bytes
from pipeline.disk.objects.bucket import Bucket, NoObjectError, ObjectError
from pipeline.slides.staging.room import StageRoom
from pipeline.store.shards import KnownShard, ShardFile

FETCHES, REQUESTS = 8, 32
"""Files that are fetched, and ranges that are asked for, at once. Our choice: a bucket gives one stream little, and
answers a request after some hundredths of a second, whatever its size.
"""
NAMED = 3
"""Files that a message names. Our choice."""


@dataclass(frozen=True)
class ObjectFile:
    """An object as a file that room is taken for."""

    name: str
    num_bytes: int


class RangedShard(ShardFile):
    """A shard file that stays in the bucket; each read is a request, or one that `begin` has made before. `copies` has
    the paths of the files that are on this machine by now.
    """

    def __init__(
        self,
        path: Path,
        num_chunks: int,
        name: str,
        *,
        bucket: Bucket,
        entry: ObjectFile,
        pool: ThreadPoolExecutor,
        copies: dict[str, Path],
    ) -> None:
        self._bucket, self._object, self._pool, self._copies = bucket, entry, pool, copies
        self._begun: dict[tuple[int, int], Future[bytes]] = {}
        super().__init__(path, num_chunks, name)

    @property
    def is_current(self) -> bool:
        """Whether the file is not on this machine yet."""
        return self._object.name not in self._copies

    def rest(self) -> None:
        """Nothing is open."""

    def wake(self) -> bool:
        """As `ShardFile`."""
        return True

    def begin(self, chunks: Iterable[int]) -> None:
        """Ask for chunks that will be read once each."""
        for chunk in chunks:
            place = self._entry(chunk)
            if place is not None and place not in self._begun:
                self._begun[place] = self._pool.submit(self._request, *place)

    def _open(self) -> int:
        return self._object.num_bytes

    def _read(self, offset: int, length: int) -> bytes:
        begun = self._begun.pop((offset, length), None)
        return self._request(offset, length) if begun is None else begun.result()

    def _request(self, offset: int, length: int) -> bytes:
        data = self._bucket.read(self._object.name, offset, length)
        if len(data) != length:
            raise self._damaged("it has become shorter since it was opened")
        return data


class FetchedShards:
    """As `ShardSource`, of a store in a bucket; safe to use from many threads. `close` it in the end.

    Args:
        bucket: where the store is.
        sizes: of all its objects.
        room: where files may lie.
        folder: the store's folder on this machine, with its small files.
        tell: is told of what is not fetched.
    """

    def __init__(self, bucket: Bucket, sizes: dict[str, int], room: StageRoom, folder: Path, *, tell: Tell) -> None:
        self._bucket, self._sizes, self._room, self._folder, self._tell = bucket, sizes, room, folder, tell
        self._known: dict[str, KnownShard] = {}
        self._fetching: dict[str, Future[Path | None]] = {}
        self._copies: dict[str, Path] = {}
        self._ranged: dict[str, RangedShard] = {}
        self._lock, self._room_lock = threading.Lock(), threading.Lock()
        self._is_full = False
        self._fetch_pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="g2l-fetch")
        self._range_pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="g2l-range")

    def close(self) -> None:
        """End all threads; what they still fetch is given up."""
        self._bucket.stop()
        for pool in (self._fetch_pool, self._range_pool):
            pool.shutdown(wait=True, cancel_futures=True)

    def name(self, path: Path) -> str:
        """As `ShardSource`: the address of the object."""
        below = self._object(path)
        return f"{self._bucket.url}/{below}" if below else self._bucket.url

    def _object(self, path: Path) -> str:
        """The name of the object that a file is."""
        below = path.relative_to(self._folder).as_posix()
        return "" if below == "." else below

    def open(self, path: Path, num_chunks: int) -> ShardFile:
        """As `ShardSource`: on this machine, if the file is there or is waited for; else in the bucket."""
        wanted, name = self._object(path), self.name(path)
        copy = self._copies.get(wanted)
        if copy is None and wanted in self._known:
            copy = self._fetched(wanted)
        if copy is not None:
            return ShardFile(copy, num_chunks, name)
        return self._open_ranged(path, num_chunks)

    def _open_ranged(self, path: Path, num_chunks: int) -> RangedShard:
        """A shard file in the bucket; its index is read once."""
        wanted, name = self._object(path), self.name(path)
        with self._lock:
            file = self._ranged.get(wanted)
        if file is None:
            if wanted not in self._sizes:
                raise StoreError(f"{name}: the shard file is missing. `g2l verify` lists all damage")
            file = RangedShard(
                path,
                num_chunks,
                name,
                bucket=self._bucket,
                entry=ObjectFile(wanted, self._sizes[wanted]),
                pool=self._range_pool,
                copies=self._copies,
            )
            with self._lock:
                file = self._ranged.setdefault(wanted, file)
        return file

    def _fetched(self, wanted: str) -> Path | None:
        """The copy of an expected file, waited for if it is of use only whole; `None` if it is read by range.

        Raises:
            StoreError: it is damaged.
            ObjectError: it cannot be read.
        """
        fetching, known = self._fetching[wanted], self._known[wanted]
        if known.is_needed_whole and fetching.cancel():
            with self._lock:
                again = self._fetching[wanted]
                if again is fetching:  # it had not begun: do not wait for those before it
                    again = self._fetching[wanted] = self._range_pool.submit(self._fetch, wanted, known)
            fetching = again
        if fetching.done() or known.is_needed_whole:
            return fetching.result()
        return None

    def copy(self, path: Path) -> Path:
        """As `ShardSource`."""
        return self._copies.get(self._object(path), path)

    @contextmanager
    def held(self, paths: Sequence[Path]) -> Iterator[None]:
        """As `ShardSource`.

        Raises:
            ObjectError: one cannot be read, or there is no room for it.
        """
        names = [name for name in map(self._object, paths) if name in self._sizes and name not in self._copies]
        folders = []
        try:
            for name in names:
                entry = ObjectFile(name, self._sizes[name])
                folder = self._take(entry)
                if folder is None:
                    raise ObjectError(
                        f"{self._bucket.url}/{name}: there is no room for its {format_bytes(entry.num_bytes)} in "
                        f"{self._room.folder}. Give --stage-dir a larger disk, or --stage-gb a larger number"
                    )
                folders.append(folder)
                try:
                    self._bucket.fetch(name, entry.num_bytes, folder / name)
                except NoObjectError:
                    continue
                self._copies[name] = folder / name
            yield
        finally:
            for name in names:
                self._copies.pop(name, None)
            for folder in folders:
                self._room.give_back(folder)

    def expect(self, shards: Iterable[KnownShard]) -> None:
        """As `ShardSource`: see that they are there, and begin to fetch them.

        Raises:
            StoreError: some are not, or are of another size.
        """
        new = {self._object(shard.path): shard for shard in shards}
        new = {name: shard for name, shard in new.items() if name not in self._known}
        if wrong := [name for name, shard in new.items() if self._sizes.get(name) != shard.num_bytes]:
            some = ", ".join(wrong[:NAMED]) + (", ..." if len(wrong) > NAMED else "")
            raise StoreError(
                f"{self._bucket.url}: missing or of another size: {counted(len(wrong), 'file')} that the ledger names "
                f"({some}). Was the store copied only in part? Copy it again: shard files first, the ledger (the "
                "folders shards/) last"
            )
        if new and not self._known:
            of_all = format_bytes(sum(shard.num_bytes for shard in new.values()))
            self._tell(f"{self._bucket.url}: fetching {of_all} ahead of use, into {self._room.folder}")
        for name, shard in new.items():
            self._fetching[name] = self._fetch_pool.submit(self._fetch, name, shard)
            self._known[name] = shard

    def read_ahead(self, path: Path, num_chunks: int, chunks: Sequence[int]) -> None:
        """As `ShardSource`: ask for them, if the file is not on this machine. The first time for its index only."""
        wanted = self._object(path)
        if wanted in self._copies:
            return
        with self._lock:
            file = self._ranged.get(wanted)
        if file is None:
            self._range_pool.submit(self._open_ranged, path, num_chunks)
        else:
            file.begin(chunks)

    def _fetch(self, wanted: str, known: KnownShard) -> Path | None:
        """Fetch a file whole; `None` if there is no room for it.

        Raises:
            StoreError: it is damaged.
            ObjectError: it cannot be read.
        """
        folder = self._take(ObjectFile(wanted, known.num_bytes))
        if folder is None:
            return None
        copy = folder / wanted
        try:
            digests = (self._bucket.fetch(wanted, known.num_bytes, copy) for _ in range(2))  # once more, if it differs
            if known.sha256 not in digests:
                raise StoreError(
                    f"{self._bucket.url}/{wanted}: damaged (SHA-256 is not the ledger's). `g2l verify` lists all damage"
                )
        except OSError as error:
            self._room.give_back(folder)
            self._full(f"{self._room.folder} cannot be written ({error.strerror})")
            return None
        except BaseException:
            self._room.give_back(folder)
            raise
        self._copies[wanted] = copy
        with self._lock:
            self._ranged.pop(wanted, None)
        return copy

    def _take(self, entry: ObjectFile) -> Path | None:
        """A folder with room for a file; `None` if there is none, now or from earlier on."""
        with self._room_lock:
            if self._is_full:
                return None
            try:
                folder = self._room.take([entry])
            except OSError as error:
                self._full(f"{self._room.folder} cannot be written ({error.strerror})")
                return None
            if folder is None:
                self._full(f"{self._room.folder} has room for no more")
            return folder

    def _full(self, why: str) -> None:
        """From here on, fetch no file whole."""
        if not self._is_full:
            self._is_full = True
            here = sum(self._sizes[name] for name in self._copies)
            self._tell(
                f"note: {why}: {format_bytes(here)} of {self._bucket.url} are on this machine, the rest is read from "
                "the bucket whenever it is needed"
            )
