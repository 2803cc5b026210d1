"""The store: teacher embeddings and pixels of a plan's rows, in shards that are complete or absent.

    embedding  (N, D)        float16 or float32, NaN where a row has none
    pixels     (N, P, P, 3)  uint8, exactly what the teacher saw; optional
    status     (N,)          uint8, `Status`
    plan/      coords, slide, split (N rows each) and the plan's records: the store needs no other file
    shards/<i>.json          the ledger: written last; a shard without an entry does not count

Row i lies in shard i // rows_per_shard. Whoever has the store needs neither the slides nor the teacher.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import zarr_format
from pipeline.config import differences
from pipeline.errors import StoreError
from pipeline.files import ASIDE_SUFFIX, make_output_folder, remove_asides, sha256_file, sha256_json, sync_folder
from pipeline.images import decode_image
from pipeline.plan import MALFORMED, Plan, plan_from_records, plan_records, slide_from_record, slide_record
from pipeline.shards import ShardCache, ShardFile, sync_tree

FORMAT_VERSION = 1
CHUNK_ROWS = 256
"""Rows of an inner chunk of `embedding`, at most. Our choice: 256 rows of 1536 float16 are 0.8 MB, a good read."""


class Status(IntEnum):
    """What became of a row."""

    ABSENT = 0  # not done yet
    OK = 1
    UNREADABLE = 2  # a tile under the patch is damaged
    EMPTY = 3  # the slide has no pixels there
    NO_SLIDE = 4  # the slide does not open, or is not the planned one
    NOT_FINITE = 5  # the teacher gave NaN or infinity, or a value beyond the stored type


@dataclass(frozen=True)
class StoreSpec:
    """What a store was made with; it is continued under the same only.

    Attributes:
        teacher: record of the teacher: source, architecture, weight hash, mean, std, width, embedding rule, ...
        settings: rows_per_shard, pixels, dtype, precision, batch_size.
    """

    teacher: dict[str, Any]
    settings: dict[str, Any]


def chunk_rows(rows_per_shard: int) -> int:
    """Rows of an inner chunk: the largest divisor of the shard's rows that is at most `CHUNK_ROWS`."""
    return next(c for c in range(min(CHUNK_ROWS, rows_per_shard), 0, -1) if rows_per_shard % c == 0)


def _read_attributes(folder: Path) -> dict[str, Any]:
    """What a store says of itself, of the format and version that this program reads.

    Raises:
        StoreError: there is none such.
    """
    try:
        attributes: dict[str, Any] = json.loads((folder / "zarr.json").read_text())["attributes"]["g2l"]
        found = attributes["format"], attributes["version"]
    except FileNotFoundError:
        raise StoreError(f"{folder}: no such store. `g2l extract-teacher` makes one") from None
    except (OSError, *MALFORMED) as error:
        raise StoreError(f"{folder}: not a store of G2L ({error!r})") from None
    if found != ("g2l-store", FORMAT_VERSION):
        raise StoreError(
            f"{folder}: {found[0]} of format version {found[1]}; this program reads version {FORMAT_VERSION} of "
            "g2l-store. Use the G2L that made it"
        )
    return attributes


class Store:
    """An existing store, open for reading.

    Raises:
        StoreError: no store, another format version, or damaged metadata.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attributes = _read_attributes(folder)
        try:
            self.spec = StoreSpec(self.attributes["teacher"], self.attributes["settings"])
            self.num_rows: int = self.attributes["rows"]
            self.width: int = self.spec.teacher["width"]
            self.patch_px: int = self.attributes["patch_px"]
            self.rows_per_shard: int = self.spec.settings["rows_per_shard"]
            self.dtype: str = self.spec.settings["dtype"]
            self.image_format: Any = self.spec.settings["pixels"]
        except MALFORMED as error:
            raise StoreError(f"{folder}: the store's metadata are damaged ({error!r})") from None
        self._pixel_files = ShardCache(self.rows_per_shard)
        self._embedding_files = ShardCache(self.chunks_per_shard)

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
        axes = {"embedding": 1, "status": 0, "pixels": 3}[name]
        return self.folder.joinpath(name, "c", str(shard), *["0"] * axes)

    def ledger_path(self, shard: int) -> Path:
        """The file of a shard's ledger entry."""
        return self.folder / "shards" / f"{shard}.json"

    def read_ledger(self, shard: int) -> dict[str, Any] | None:
        """The ledger entry of a shard, or `None` while it is not done.

        Raises:
            StoreError: the entry is damaged.
        """
        try:
            entry: dict[str, Any] = json.loads(self.ledger_path(shard).read_text())
            if missing := {"rows", "status", "files", "failures"} - entry.keys():
                raise KeyError(*sorted(missing))
        except FileNotFoundError:
            return None
        except MALFORMED as error:
            raise StoreError(
                f"{self.ledger_path(shard)}: damaged ledger entry ({error!r}). Delete it to redo the shard"
            ) from None
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
        """The plan that the store was made by, checked against its hash."""
        folder = self.folder / "plan"
        try:
            records = json.loads((folder / "zarr.json").read_text())["attributes"]["g2l"]
            coords = zarr_format.read_array(folder, "coords")
            split = zarr_format.read_array(folder, "split")
            slides, start = [], 0
            for record in records["slides"]:
                stop = start + record.pop("rows")
                slides.append(slide_from_record(record, coords[start:stop], split[start:stop]))
                start = stop
            plan = plan_from_records(records["plan"], slides, folder)
        except (OSError, *MALFORMED) as error:
            raise StoreError(f"{folder}: the store's plan is damaged ({error!r})") from None
        if plan.hash != self.attributes["plan_hash"]:
            raise StoreError(f"{folder}: the store's plan is damaged: it is not the plan that the store was made by")
        return plan

    def read_embeddings(self, shard: int) -> NDArray[Any]:
        """Embeddings of a finished shard: (rows, D) in the stored type; NaN where a row has none.

        Raises:
            StoreError: the shard file is missing or damaged.
        """
        rows = len(self.shard_rows(shard))
        return ShardFile(self.shard_path("embedding", shard), self.chunks_per_shard).read_rows(self.dtype, self.width)[
            :rows
        ]

    def read_embedding(self, row: int) -> NDArray[np.float32]:
        """The embedding of one row, float32 (D,). Its checksum is not compared: read the shards once beforehand.

        Raises:
            StoreError: it is not there.
        """
        shard, index = divmod(row, self.rows_per_shard)
        chunk, index = divmod(index, chunk_rows(self.rows_per_shard))
        row_bytes = self.width * np.dtype(self.dtype).itemsize
        file = self._embedding_files.open(self.shard_path("embedding", shard))
        data = file.read_slice(chunk, index * row_bytes, row_bytes)
        return np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<")).astype(np.float32)

    def read_status(self, shard: int) -> NDArray[np.uint8]:
        """`Status` codes of a finished shard: uint8 (rows,)."""
        rows = ShardFile(self.shard_path("status", shard), self.chunks_per_shard).read_rows("uint8", None)
        return rows[: len(self.shard_rows(shard))].astype(np.uint8)

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
            return decode_image(data, self.image_format)
        except ValueError as error:
            raise StoreError(f"{path}: row {row}: {error}") from None

    def ok_rows(self, split: int | None = None) -> NDArray[np.int64]:
        """Rows with an embedding, ascending, of one split or of all; rows of pending shards are not among them."""
        status = np.zeros(self.num_rows, np.uint8)
        for shard, entry in self.ledgers():
            if entry is not None:
                rows = self.shard_rows(shard)
                status[rows.start : rows.stop] = self.read_status(shard)
        ok = status == Status.OK
        if split is not None:
            ok &= self.plan.split() == split
        return np.flatnonzero(ok)

    def content_hash(self) -> str:
        """Hex SHA-256 of what the store holds, from the ledger: plan, teacher and every shard file's hash."""
        files = [entry["files"] if entry else None for _, entry in self.ledgers()]
        identity = {"plan": self.attributes["plan_hash"], "teacher": self.spec.teacher, "settings": self.spec.settings}
        return sha256_json({**identity, "files": files})

    def check_shard(self, shard: int) -> list[str]:
        """What is wrong with a finished shard's files against its ledger entry; empty when all is well."""
        entry = self.read_ledger(shard)
        assert entry is not None
        problems = []
        for name, expected in entry["files"].items():
            path = self.folder / name
            if not path.is_file():
                problems.append(f"{name}: missing")
            elif path.stat().st_size != expected["bytes"]:
                problems.append(f"{name}: {path.stat().st_size} bytes, {expected['bytes']} were written")
            elif sha256_file(path) != expected["sha256"]:
                problems.append(f"{name}: its bytes have changed (SHA-256 does not fit)")
        return problems


def create_store(folder: Path, plan: Plan, spec: StoreSpec, versions: dict[str, str], **notes: Any) -> None:
    """Make an empty store: metadata and plan, complete or absent; `notes` are attributes that decide nothing.

    Raises:
        G2LError: the place cannot be written.
    """
    make_output_folder(folder.parent)
    aside = folder.with_name(folder.name + ASIDE_SUFFIX)
    shutil.rmtree(aside, ignore_errors=True)
    rows, settings = plan.num_rows, spec.settings
    shard_rows, patch_px = settings["rows_per_shard"], plan.config.patch_px
    attributes = {
        "format": "g2l-store",
        "version": FORMAT_VERSION,
        "rows": rows,
        "patch_px": patch_px,
        "plan_hash": plan.hash,
        "teacher": spec.teacher,
        "settings": settings,
        "status_codes": {status.name: int(status) for status in Status},
        "versions": versions,
        **notes,
    }
    try:
        zarr_format.create_group(aside, {"g2l": attributes})
        sharding = {"shard_rows": shard_rows, "chunk_rows": chunk_rows(shard_rows)}
        width = spec.teacher["width"]
        zarr_format.create_rows_array(
            aside, "embedding", (rows, width), settings["dtype"], fill=float("nan"), **sharding
        )
        zarr_format.create_rows_array(aside, "status", (rows,), "uint8", fill=int(Status.ABSENT), **sharding)
        if settings["pixels"] != "none":
            zarr_format.create_images_array(
                aside, "pixels", rows, patch_px, shard_rows=shard_rows, image_format=settings["pixels"]
            )
        records = {
            "plan": plan_records(plan),
            "slides": [slide_record(s) | {"rows": len(s.coords_l0_px)} for s in plan.slides],
        }
        zarr_format.create_group(aside / "plan", {"g2l": records})
        zarr_format.write_array(aside / "plan", "coords", plan.coords())
        zarr_format.write_array(aside / "plan", "slide", plan.slide_of_row())
        zarr_format.write_array(aside / "plan", "split", plan.split())
        (aside / "shards").mkdir()
        sync_tree(aside)
        os.rename(aside, folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(f"cannot make the store {folder}: {error.strerror or error}") from error


def open_to_continue(folder: Path, plan: Plan, spec: StoreSpec) -> Store:
    """Open a store to add shards to it, after clearing away what a killed run left half written.

    Raises:
        StoreError: it was made by another plan, teacher or setting; says what differs.
    """
    store = Store(folder)
    changes = differences(
        {"plan_hash": store.attributes["plan_hash"], "teacher": store.spec.teacher, "settings": store.spec.settings},
        {"plan_hash": plan.hash, "teacher": spec.teacher, "settings": spec.settings},
    )
    if any(not line.startswith("teacher.weights:") for line in changes):  # a label: weights count by their hash
        listing = "\n".join(f"  {line}" for line in changes[:20]) + ("\n  ..." if len(changes) > 20 else "")
        raise StoreError(
            f"{folder} was made with other inputs and is not continued (store -> now):\n{listing}\n"
            "Choose another --out."
        )
    remove_asides(folder)
    return store
