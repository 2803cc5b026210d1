"""The store: teacher embeddings and pixels of a plan's rows, in shards that are complete or absent.

    embedding  (N, D)        float16 or float32, NaN where a row has none
    views      (N, K-1, D)   as `embedding`, of views 1 to K-1 of each patch; only where there are several
    pixels     (N, P, P, 3)  uint8, exactly what the teacher saw; optional
    status     (N,)          uint8, `Status`
    plan/      coords, slide, split (N rows each) and the plan's records: the store needs no other file
    shards/<i>.json          the ledger: written last; a shard without an entry does not count

Row i lies in shard i // rows_per_shard. Whoever has the store needs neither the slides nor the teacher. Embeddings of
further teachers may lie below `teachers/`: see `teachers`.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import say
from pipeline.base.errors import StoreError
from pipeline.base.images import decode_image
from pipeline.base.outside import read_json, reading
from pipeline.base.versions import continued_note
from pipeline.cohort.plan import Plan
from pipeline.config.base import differences
from pipeline.disk.asides import remove_asides
from pipeline.disk.files import make_output_folder, sha256_file, sha256_json
from pipeline.store import zarr_format
from pipeline.store.format import CHUNK_ROWS as CHUNK_ROWS
from pipeline.store.format import METADATA, new_arrays, read_attributes, require_entry, require_sound
from pipeline.store.format import Status as Status
from pipeline.store.format import StoreSpec as StoreSpec
from pipeline.store.format import chunk_rows as chunk_rows
from pipeline.store.plan_arrays import read_stored_plan, write_stored_plan
from pipeline.store.shards import ShardCache, ShardFile


class Store:
    """An existing store, open for reading.

    Raises:
        StoreError: no store, another format version, or damaged metadata.
    """

    format_name: ClassVar[str] = "g2l-store"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attributes = read_attributes(folder, self.format_name)
        with reading(folder / METADATA, "the store's metadata are damaged", StoreError):
            require_sound(self.attributes)
            self.spec = StoreSpec(self.attributes["teacher"], self.attributes["settings"])
            self.num_rows: int = self.attributes["rows"]
            self.width: int = self.spec.teacher["width"]
            self.patch_px: int = self.attributes["patch_px"]
            self.rows_per_shard: int = self.spec.settings["rows_per_shard"]
            self.dtype: str = self.spec.settings["dtype"]
            self.image_format: Any = self.spec.settings["pixels"]
            self.views = self.spec.views
        self._pixel_files = ShardCache(self.rows_per_shard)
        self._embedding_files = ShardCache(self.chunks_per_shard)

    @property
    def base(self) -> "Store":
        """The store that has the plan and the pixels: itself."""
        return self

    @property
    def has_pixels(self) -> bool:
        """Whether the patches themselves are in the store."""
        return bool(self.image_format != "none")

    @property
    def num_shards(self) -> int:
        """Number of shards that the finished store has."""
        return -(-self.num_rows // self.rows_per_shard)

    @property
    def chunks_per_shard(self) -> int:
        """Number of inner chunks of an `embedding` or `status` shard."""
        return self.rows_per_shard // chunk_rows(self.rows_per_shard)

    def shard_rows(self, shard: int) -> range:
        """The rows of a shard; the last one may be short."""
        return range(shard * self.rows_per_shard, min((shard + 1) * self.rows_per_shard, self.num_rows))

    def shard_path(self, name: str, shard: int) -> Path:
        """The file of a shard of the array `name`."""
        axes = {"embedding": 1, "views": 2, "status": 0, "pixels": 3}[name]
        return self.folder.joinpath(name, "c", str(shard), *["0"] * axes)

    def ledger_path(self, shard: int) -> Path:
        """The file of a shard's ledger entry."""
        return self.folder / "shards" / f"{shard}.json"

    def read_ledger(self, shard: int) -> dict[str, Any] | None:
        """The ledger entry of a shard, or `None` while it is not done.

        Raises:
            StoreError: the entry is damaged.
        """
        path = self.ledger_path(shard)
        if not path.exists():
            return None
        with reading(path, "damaged ledger entry", StoreError, "Delete it to redo the shard"):
            entry = read_json(path)
            require_entry(entry)
        return entry

    def ledgers(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """(shard, ledger entry or `None`) for every shard."""
        for shard in range(self.num_shards):
            yield shard, self.read_ledger(shard)

    def pending_shards(self) -> list[int]:
        """Shards that are not done."""
        return [shard for shard, entry in self.ledgers() if entry is None]

    def status_counts(self) -> dict[str, int]:
        """Number of rows of each status, by name; rows of pending shards count as ABSENT."""
        counts = {status.name: 0 for status in Status}
        for shard, entry in self.ledgers():
            if entry is None:
                counts[Status.ABSENT.name] += len(self.shard_rows(shard))
            else:
                for name, count in entry["status"].items():
                    counts[name] += count
        return counts

    def failures(self) -> list[dict[str, Any]]:
        """All failed rows of finished shards: row, slide, x, y, status, reason."""
        return [failure for _, entry in self.ledgers() if entry is not None for failure in entry["failures"]]

    @cached_property
    def plan(self) -> Plan:
        """The plan that the store was made by, checked against its hash.

        Raises:
            StoreError: it is damaged, or of another number of rows than the store's.
        """
        if self._stored_plan.num_rows != self.num_rows:
            raise StoreError(f"{self.folder}: its metadata are damaged: {self.num_rows:,} rows, "
                             f"{self._stored_plan.num_rows:,} in its plan")  # fmt: skip
        return self._stored_plan

    @cached_property
    def _stored_plan(self) -> Plan:
        """The plan in the store's folder, checked against its hash."""
        return read_stored_plan(self.folder / "plan", self.attributes["plan_hash"])

    def read_embeddings(self, shard: int) -> NDArray[Any]:
        """Embeddings of a finished shard: (rows, D) in the stored type; NaN where a row has none.

        Raises:
            StoreError: the shard file is missing or damaged.
        """
        rows = len(self.shard_rows(shard))
        file = ShardFile(self.shard_path("embedding", shard), self.chunks_per_shard)
        return _first_rows(file.read_rows(self.dtype, self.width), rows, file.path)

    def read_views(self, shard: int) -> NDArray[Any]:
        """Embeddings of all views of a finished shard: (rows, K, D), view 0 first; as `read_embeddings`."""
        plain, further = self.read_embeddings(shard)[:, None], self.views.count - 1
        if not further:
            return plain
        file = ShardFile(self.shard_path("views", shard), self.chunks_per_shard)
        values = _first_rows(file.read_rows(self.dtype, further * self.width), len(plain), file.path)
        return np.concatenate([plain, values.reshape(-1, further, self.width)], axis=1)

    def read_embedding(self, row: int, view: int = 0) -> NDArray[np.float32]:
        """The embedding of a view of one row, float32 (D,). Its checksum is not compared: read the shards once
        beforehand.

        Raises:
            StoreError: it is not there.
        """
        shard, index = divmod(row, self.rows_per_shard)
        chunk, index = divmod(index, chunk_rows(self.rows_per_shard))
        row_bytes = self.width * np.dtype(self.dtype).itemsize
        file = self._embedding_files.open(self.shard_path("views" if view else "embedding", shard))
        place = index * (self.views.count - 1) + view - 1 if view else index
        data = file.read_slice(chunk, place * row_bytes, row_bytes)
        return np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<")).astype(np.float32)

    def read_status(self, shard: int) -> NDArray[np.uint8]:
        """`Status` codes of a finished shard: uint8 (rows,)."""
        file = ShardFile(self.shard_path("status", shard), self.chunks_per_shard)
        return _first_rows(file.read_rows("uint8", None), len(self.shard_rows(shard)), file.path).astype(np.uint8)

    def read_pixels(self, row: int) -> NDArray[np.uint8]:
        """The patch of a row as the teacher saw it: uint8 (P, P, 3) RGB.

        Raises:
            StoreError: it is damaged, or the row has none.
        """
        shard, index = divmod(row, self.rows_per_shard)
        path = self.shard_path("pixels", shard)
        data = self._pixel_files.open(path).read_chunk(index)
        if data is None:
            raise StoreError(f"{path}: row {row} has no pixels")
        try:
            return decode_image(data, self.image_format, self.patch_px)
        except ValueError as error:
            raise StoreError(f"{path}: row {row}: {error}") from None

    def status(self) -> NDArray[np.uint8]:
        """`Status` codes of all rows: uint8 (N,); ABSENT in pending shards."""
        status = np.zeros(self.num_rows, np.uint8)
        for shard, entry in self.ledgers():
            if entry is not None:
                rows = self.shard_rows(shard)
                status[rows.start : rows.stop] = self.read_status(shard)
        return status

    def ok_rows(self, split: int | None = None) -> NDArray[np.int64]:
        """Rows with an embedding, ascending, of one split or of all; rows of pending shards are not among them."""
        ok = self.status() == Status.OK
        if split is not None:
            ok &= self.plan.split() == split
        return np.flatnonzero(ok)

    def content_hash(self) -> str:
        """Hex SHA-256 of what the store holds, from the ledger: plan, teacher and every shard file's hash."""
        files = [entry["files"] if entry else None for _, entry in self.ledgers()]
        identity = {"plan": self.attributes["plan_hash"], "teacher": self.spec.teacher, "settings": self.spec.settings}
        return sha256_json({**identity, "files": files})

    def create_empty_like(self, folder: Path) -> dict[str, Any]:
        """Make an empty store of the same plan, teacher and settings in `folder`; returns its attributes."""
        create_store(folder, self._stored_plan, self.spec, self.attributes["versions"])
        return read_attributes(folder, self.format_name)

    def check_shard(self, shard: int) -> list[str]:
        """What is wrong with a finished shard's files against its ledger entry; empty when all is well."""
        entry = self.read_ledger(shard)
        assert entry is not None
        problems = []
        arrays = ("embedding", "views", "status", "pixels")
        own = {self.shard_path(name, shard).relative_to(self.folder).as_posix() for name in arrays}
        for name, expected in entry["files"].items():
            path = self.folder / name
            if name not in own:
                problems.append(f"{name!r} is no file of this shard")
                continue
            if not path.is_file():
                problems.append(f"{name}: missing")
            elif path.stat().st_size != expected["bytes"]:
                problems.append(f"{name}: {path.stat().st_size} bytes, {expected['bytes']} were written")
            elif sha256_file(path) != expected["sha256"]:
                problems.append(f"{name}: its bytes have changed (SHA-256 does not fit)")
        return problems


def _first_rows(values: NDArray[Any], count: int, path: Path) -> NDArray[Any]:
    """The first `count` rows of a shard's.

    Raises:
        StoreError: there are fewer.
    """
    if len(values) < count:
        raise StoreError(f"{path}: damaged ({len(values)} rows, not {count}). `g2l verify` lists all damage")
    return values[:count]


def create_store(folder: Path, plan: Plan, spec: StoreSpec, versions: dict[str, str], **notes: Any) -> None:
    """Make an empty store: metadata and plan, complete or absent; `notes` are attributes that decide nothing.

    Raises:
        G2LError: the place cannot be written.
    """
    make_output_folder(folder if folder.is_dir() else folder.parent)
    image_format, shard_rows = spec.settings["pixels"], spec.settings["rows_per_shard"]
    with new_arrays(folder, plan, spec, versions, Store.format_name, notes) as aside:
        if image_format != "none":
            zarr_format.create_images_array(
                aside, "pixels", plan.num_rows, plan.config.patch_px, shard_rows=shard_rows, image_format=image_format
            )
        write_stored_plan(aside / "plan", plan)


def open_to_continue(folder: Path, plan: Plan, spec: StoreSpec) -> Store:
    """Open a store to add shards to it, after clearing away what a killed run left half written.

    Raises:
        StoreError: it was made by another plan, teacher or setting; says what differs.
    """
    store = Store(folder)
    require_same(store, plan, spec)
    remove_asides(folder)
    say_other_versions(store)
    return store


def say_other_versions(store: Store) -> None:
    """Tell the user if what is missing of a store will be made under other versions of packages than the rest."""
    if store.pending_shards() and (note := continued_note(store.folder, store.attributes.get("versions", {}))):
        say(note)


def require_same(store: Store, plan: Plan, spec: StoreSpec) -> None:
    """See that a store was made by this plan, teacher and settings.

    Raises:
        StoreError: it was not; says what differs.
    """
    changes = differences(
        {"plan_hash": store.attributes["plan_hash"], "teacher": store.spec.teacher, "settings": store.spec.settings},
        {"plan_hash": plan.hash, "teacher": spec.teacher, "settings": spec.settings},
    )
    if any(not line.startswith("teacher.weights:") for line in changes):  # a label: weights count by their hash
        listing = "\n".join(f"  {line}" for line in changes[:20]) + ("\n  ..." if len(changes) > 20 else "")
        another = any(line.startswith("teacher.name:") for line in changes) and store.base.pending_shards()
        raise StoreError(
            f"{store.folder} was made with other inputs and is not continued (store -> now):\n{listing}\n"
            f"Choose another --out{', or finish the store: then it takes a further teacher' if another else ''}."
        )
