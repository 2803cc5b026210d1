"""The ledger of a teacher's embeddings: which shards are done, and what became of their rows.

A shard has an entry, `<shard>.json`, only once all its files are written, synced and renamed. A shard without one does
not count.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.base.errors import StoreError
from pipeline.base.outside import read_json, reading
from pipeline.disk.files import write_json
from pipeline.store.format import Status, require_entry


class Ledger:
    """The entries in `folder`, of `num_rows` rows in shards of `rows_per_shard`; each is read when it is asked for.
    `name` gives what messages call a file.

    Raises:
        StoreError: from whatever reads an entry: it is damaged.
    """

    def __init__(self, folder: Path, num_rows: int, rows_per_shard: int, name: Callable[[Path], str] = str) -> None:
        self.folder = folder
        self.num_rows = num_rows
        self.rows_per_shard = rows_per_shard
        self._name = name

    def count_rows(self, shards: Iterable[int]) -> int:
        """Rows of some shards."""
        return sum(len(self.rows(shard)) for shard in shards)

    @property
    def num_shards(self) -> int:
        """Number of shards when all are done."""
        return -(-self.num_rows // self.rows_per_shard)

    def rows(self, shard: int) -> range:
        """The rows of a shard; the last one may be short."""
        return range(shard * self.rows_per_shard, min((shard + 1) * self.rows_per_shard, self.num_rows))

    def path(self, shard: int) -> Path:
        """The file of a shard's entry."""
        return self.folder / f"{shard}.json"

    def read(self, shard: int) -> dict[str, Any] | None:
        """The entry of a shard; `None` while it is not done."""
        path = self.path(shard)
        if not path.exists():
            return None
        with reading(self._name(path), "damaged ledger entry", StoreError, "Delete it to redo the shard"):
            entry = read_json(path)
            require_entry(entry)
        return entry

    def write(self, shard: int, entry: dict[str, Any]) -> None:
        """Enter a shard, whose files are all on disk."""
        write_json(self.path(shard), entry)

    def forget(self, shard: int) -> None:
        """Take a shard out, so that it is done again."""
        self.path(shard).unlink()

    def entries(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """(shard, entry or `None`) for every shard."""
        for shard in range(self.num_shards):
            yield shard, self.read(shard)

    def pending(self) -> list[int]:
        """Shards that are not done."""
        return [shard for shard, entry in self.entries() if entry is None]

    def status_counts(self, shards: Iterable[int] | None = None) -> dict[str, int]:
        """Number of rows of each status, by name, in some shards or all; rows of pending shards count as ABSENT."""
        counts = {status.name: 0 for status in Status}
        for shard in range(self.num_shards) if shards is None else shards:
            entry = self.read(shard)
            if entry is None:
                counts[Status.ABSENT.name] += len(self.rows(shard))
            else:
                for name, count in entry["status"].items():
                    counts[name] += count
                for record in entry.get("dropped", []):
                    counts[record["status"]] += 1
        return counts

    def num_done(self) -> int:
        """Rows of finished shards, whatever became of them."""
        return self.count_rows(shard for shard, entry in self.entries() if entry is not None)

    def row_seconds(self) -> float | None:
        """Seconds that a row took, with all views that were made of it at once; `None` if no entry says."""
        timed = [shard for shard, entry in self.entries() if entry and entry.get("seconds")]
        return self.seconds() / self.count_rows(timed) if timed else None

    def num_bytes(self) -> int:
        """Bytes of the files of finished shards."""
        return sum(file["bytes"] for _, entry in self.entries() if entry for file in entry["files"].values())

    def seconds(self) -> float:
        """Seconds that the finished shards took; 0 for those whose entries do not say."""
        return sum(float(entry.get("seconds", 0.0)) for _, entry in self.entries() if entry)

    def failures(self) -> list[dict[str, Any]]:
        """All failed rows of finished shards: row, slide, x, y, status, reason."""
        return [failure for _, entry in self.entries() if entry is not None for failure in entry["failures"]]

    def dropped(self) -> list[dict[str, Any]]:
        """All rows of finished shards that `--patch-qc` dropped: row, slide, x, y, status, value, bound."""
        return [record for _, entry in self.entries() if entry is not None for record in entry.get("dropped", [])]
