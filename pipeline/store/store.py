"""The store: the plan and the pixels of its rows, and the embeddings of one or more teachers.

    plan/             coords, slide, split (N rows each) and the plan's records: the store needs no other file
    pixels     (N, T, T, 3)  uint8, the tiles, of which the teachers saw the centre (P, P) and other crops; optional.
                             Without tiles T is P: exactly what the teachers saw
    embedding  (N, D)        float16 or float32, NaN where a row has none
    views      (N, K-1, D)   as `embedding`, of views 1 to K-1 of each patch; only where there are several
    status     (N,)          uint8, `Status`
    shards/<i>.json          the ledger: written last; a shard without an entry does not count
    teachers/<name>/         of each further teacher: embedding, views, status and shards/, as above
    rounds/<v>/              of view v, made in a round of its own: embedding, status and shards/; beside the arrays of
                             the teacher that saw it

Row i lies in shard i // rows_per_shard. The first teacher's arrays lie beside the plan, and its ledger covers the
pixels too: they are written when it reads the slides. Whoever has the store needs neither the slides nor the teachers.
Left out: two teachers of one name (an encoder with two sets of weights).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, StoreError, did_you_mean
from pipeline.base.images import decode_image
from pipeline.base.outside import reading
from pipeline.cohort.plan import Plan
from pipeline.cohort.views.views import Views, centre
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.disk.files import sha256_file, sha256_json
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.format import (
    ROUNDS_FOLDER,
    STORE_FORMAT,
    TEACHER_FORMAT,
    TEACHERS_FOLDER,
    Status,
    StoreSpec,
    chunk_rows,
    read_store_attributes,
    require_sound_attributes,
)
from pipeline.store.ledger import Ledger
from pipeline.store.parts.part import StorePart, part_of
from pipeline.store.plan_arrays import read_stored_plan
from pipeline.store.shards import KnownShard, LocalShards, ShardCache, ShardSource

AXES = {"embedding": 1, "views": 2, "status": 0, "pixels": 3}
"""Arrays of a teacher, and how many axes each has beside the rows."""


class Store:
    """An existing store, open for reading.

    Args:
        files: where its shard files come from; by default, from the folder.

    Attributes:
        folder: where it lies; of a store in a bucket, where its small files are now.
        place: what messages and records call it: the folder, or the address in the bucket.
        first: the teacher that it was made with.
        num_rows: rows of its plan.
        patch_px: side of a patch, as the teachers see it.
        tile_px: side of what is kept or read for a row, in whose middle the patch lies.
        image_format: how it keeps pixels, or "none".

    Raises:
        StoreError: no store, another format version, or damaged metadata.
    """

    def __init__(self, folder: Path, files: ShardSource | None = None) -> None:
        self.folder, self.files = folder, files or LocalShards()
        self.place = self.files.name(folder)
        self.first = StoredTeacher(self, folder)
        self.num_rows = self.first.num_rows
        self.patch_px, self.tile_px = self.first.patch_px, self.first.tile_px
        self.image_format: Any = self.first.settings["pixels"]
        self._pixel_files = ShardCache(self.first.rows_per_shard, open_file=self.files.open)

    @property
    def has_pixels(self) -> bool:
        """Whether the patches themselves are in the store."""
        return self.first.keeps_pixels

    @property
    def teachers(self) -> dict[str, "StoredTeacher"]:
        """All teachers by name: the first, then the further ones as their folders are sorted. Looked up anew each time,
        for a run may have added one.

        Raises:
            StoreError: one is damaged, or of another plan.
        """
        folders = sorted(path.parent for path in (self.folder / TEACHERS_FOLDER).glob(f"*/{METADATA}"))
        further = [StoredTeacher(self, folder) for folder in folders if not folder.name.endswith(ASIDE_SUFFIX)]
        return {teacher.name: teacher for teacher in (self.first, *further)}

    @property
    def all_embeddings(self) -> "list[StoredTeacher]":
        """Those of all teachers, each followed by its rounds."""
        return [made for teacher in self.teachers.values() for made in teacher.with_rounds]

    def teacher(self, name: str | None) -> "StoredTeacher":
        """The teacher of that name; the first one for `None`.

        Raises:
            ConfigError: the store has no embeddings of it.
        """
        if name is None:
            return self.first
        teachers = self.teachers
        if name not in teachers:
            raise ConfigError(
                f"--teacher {name}: {self.place} has embeddings of {', '.join(teachers)}"
                f"{did_you_mean(name, teachers)}. `g2l "
                f"extract-teacher` with --teacher {name} adds them"
            )
        return teachers[name]

    @cached_property
    def plan(self) -> Plan:
        """The plan that the store was made by, checked against its hash.

        Raises:
            StoreError: it is damaged, or of another number of rows than the store's.
        """
        if self.plan_as_stored.num_rows != self.num_rows:
            raise StoreError(
                f"{self.place}: its metadata are damaged: {self.num_rows:,} rows, "
                f"{self.plan_as_stored.num_rows:,} in its plan"
            )
        return self.plan_as_stored

    @cached_property
    def plan_as_stored(self) -> Plan:
        """The plan in the store's folder, checked against its hash, but not against the number of rows."""
        folder = self.folder / "plan"
        return read_stored_plan(folder, self.first.plan_hash, self.files.name(folder))

    def read_pixels(self, row: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The tile of a row, without tiles the patch as the teachers saw it: uint8 (T, T, 3) RGB; in `out` if given.

        Raises:
            StoreError: it is damaged, or the row has none.
        """
        name, data = self._read_image(row)
        try:
            return decode_image(data, self.image_format, self.tile_px, out)
        except ValueError as error:
            raise StoreError(f"{name}: row {row}: {error}") from None

    def read_image(self, row: int) -> bytes:
        """The encoded image of a row; raises as `read_pixels`."""
        return self._read_image(row)[1]

    def _read_image(self, row: int) -> tuple[str, bytes]:
        """The name of the shard file of a row's image, and the image."""
        shard, index = divmod(row, self.first.rows_per_shard)
        file = self._pixel_files.open(self.first.shard_path("pixels", shard))
        data = file.read_chunk(index)
        if data is None:
            raise StoreError(f"{file.name}: row {row} has no pixels")
        return file.name, data

    def read_patch(self, row: int) -> NDArray[np.uint8]:
        """The patch of a row, uint8 (P, P, 3) RGB; raises as `read_pixels`."""
        return centre(self.read_pixels(row), self.patch_px)

    def expect(self, teachers: Sequence["StoredTeacher"]) -> None:
        """Say that these teachers' embeddings, of finished shards, and the pixels will be read: where the store is in a
        bucket, it is seen that their files are there, and they are fetched ahead.

        Raises:
            StoreError: some are not there.
        """
        arrays = [(teacher, array) for array in ("status", "embedding", "views") for teacher in teachers]
        self.files.expect(
            shard
            for teacher, array in [*arrays, (self.first, "pixels")]
            if array in teacher.arrays
            for shard in teacher.known_shards(array)
        )

    def read_ahead(self, rows: Sequence[int]) -> None:
        """Say that the pixels of these rows will be read next, each once."""
        per_shard = self.first.rows_per_shard
        chunks: dict[int, list[int]] = {}
        for row in rows:
            chunks.setdefault(row // per_shard, []).append(row % per_shard)
        for shard, some in chunks.items():
            self.files.read_ahead(self.first.shard_path("pixels", shard), per_shard, some)


class StoredTeacher:
    """The embeddings of one teacher of a store, and their ledger; the first teacher and further ones alike.

    Attributes:
        store: the store, which has the plan and the pixels.
        folder: where the arrays and the ledger lie.
        place: what messages call it.
        attributes: all that the metadata say.
        spec: the teacher's record, and the settings that it was run with.
        name: of the encoder.
        ledger: which shards are done.

    Raises:
        StoreError: there is none in `folder`, it is damaged, or it is of another plan than the store's.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.place = store.files.name(folder)
        self.attributes = read_store_attributes(folder, STORE_FORMAT if self.is_first else TEACHER_FORMAT, self.place)
        with reading(store.files.name(folder / METADATA), "the store's metadata are damaged", StoreError):
            require_sound_attributes(self.attributes)
            self.spec = StoreSpec(self.attributes["teacher"], self.attributes["settings"])
            self.name: str = self.record["name"]
            self.plan_hash: str = self.attributes["plan_hash"]
            self.num_rows: int = self.attributes["rows"]
            self.width: int = self.record["width"]
            self.patch_px: int = self.attributes["patch_px"]
            self.tile_px: int = self.attributes.get("tile_px", self.patch_px)
            self.rows_per_shard: int = self.settings["rows_per_shard"]
            self.dtype: str = self.settings["dtype"]
            self.views = replace(self.spec.views, patch_px=self.attributes.get("tile_px") and self.patch_px)
        if not self.is_first and self.plan_hash != store.first.plan_hash:
            raise StoreError(f"{self.place}: these embeddings are of another plan than the store's")
        self.ledger = Ledger(folder / "shards", self.num_rows, self.rows_per_shard, store.files.name)
        self._chunk_rows = chunk_rows(self.rows_per_shard)
        self._numbers = np.dtype(self.dtype).newbyteorder("<")
        self._embedding_files = ShardCache(self.chunks_per_shard, open_file=store.files.open)
        self._paths: dict[tuple[str, int], Path] = {}
        self._compared: set[tuple[str, int, int]] = set()
        self._rounds: dict[int, StoredTeacher] = {}

    @property
    def part(self) -> StorePart | None:
        """The part of a store that this is; `None` for a whole one."""
        return part_of(self.attributes)

    @property
    def shards(self) -> range:
        """The shards that are to be done here: all, or those of the part."""
        return range(self.num_shards) if self.part is None else self.part.shards(self.num_shards)

    @property
    def pending(self) -> list[int]:
        """Those of `shards` that are not done."""
        return [shard for shard in self.shards if self.ledger.read(shard) is None]

    @property
    def num_rows_here(self) -> int:
        """Rows of `shards`."""
        return self.ledger.count_rows(self.shards)

    @property
    def num_rows_pending(self) -> int:
        """Rows of `pending`."""
        return self.ledger.count_rows(self.pending)

    @property
    def is_first(self) -> bool:
        """Whether the store was made with this teacher."""
        return self.folder == self.store.folder

    @property
    def record(self) -> dict[str, Any]:
        """What the encoder is: source, architecture, hash of the weights, statistics, width, ..."""
        return self.spec.teacher

    @property
    def settings(self) -> dict[str, Any]:
        """What it was run with: rows a shard, precision, batch size, ..."""
        return self.spec.settings

    @property
    def keeps_pixels(self) -> bool:
        """Whether its shards have the patches too; only the first teacher's do."""
        return bool(self.settings["pixels"] != "none")

    @property
    def own_view(self) -> int:
        """The view that `embedding` is of: 0, the patch itself, except in a round."""
        return int(self.settings.get("view", 0))

    def round_folder(self, view: int) -> Path:
        """Where the round of a view lies, or will lie."""
        return self.folder / ROUNDS_FOLDER / str(view)

    def round(self, view: int) -> "StoredTeacher | None":
        """The embeddings of a view that was made in a round of its own; `None` if the round was not begun.

        Raises:
            StoreError: it is damaged, or not this teacher's.
        """
        folder = self.round_folder(view)
        if view not in self._rounds and (folder / METADATA).exists():
            found = StoredTeacher(self.store, folder)
            if (found.own_view, found.record) != (view, self.record):
                raise StoreError(
                    f"{found.place}: these embeddings are of another view or teacher than their place says"
                )
            self._rounds[view] = found
        return self._rounds.get(view)

    @property
    def rounds(self) -> list["StoredTeacher"]:
        """The rounds that were begun, in the order of views; the last one may be unfinished. Looked up anew each time.

        Raises:
            StoreError: one is damaged.
        """
        found, view = [], self.views.count
        while (made := self.round(view)) is not None:
            found.append(made)
            view += 1
        return found

    @property
    def with_rounds(self) -> list["StoredTeacher"]:
        """It, and its rounds that were begun; raises as `rounds`."""
        return [self, *self.rounds]

    @property
    def views_at_hand(self) -> Views:
        """The views that can be shown: those made at once, and of the finished rounds that follow them."""
        rounds = self.rounds
        if not rounds:
            return self.views
        unfinished = next((i for i, each in enumerate(rounds) if each.ledger.pending()), len(rounds))
        return replace(rounds[0].views, count=self.views.count + unfinished)

    @property
    def views_strength(self) -> str | None:
        """Name of the strength of its views, those of rounds as well; `None` where the store names none."""
        settings = (self.settings, *(made.settings for made in self.rounds[:1]))
        return next((each["views_strength"] for each in settings if "views_strength" in each), None)

    @property
    def inherited(self) -> dict[str, Any]:
        """What a further teacher takes over from its store, as options of `extract-teacher`; empty for the first."""
        if self.is_first:
            return {}
        checked = {"patch_qc": True} if "patch_qc" in self.store.first.settings else {}
        return {"rows_per_shard": self.rows_per_shard, "pixels": self.store.image_format, **checked}

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that each of its shards has a file of."""
        views = ("views",) if self.views.count > 1 else ()
        return ("embedding", *views, "status", *(("pixels",) if self.keeps_pixels else ()))

    @property
    def plan(self) -> Plan:
        """The store's plan."""
        return self.store.plan

    @property
    def num_shards(self) -> int:
        """Number of shards when all are done."""
        return self.ledger.num_shards

    @property
    def chunks_per_shard(self) -> int:
        """Number of inner chunks of an `embedding` or `status` shard."""
        return self.rows_per_shard // self._chunk_rows

    def shard_path(self, array: str, shard: int) -> Path:
        """The file of a shard of an array."""
        path = self._paths.get((array, shard))
        if path is None:  # once: to make it takes as long as to read a patch
            path = self._paths[array, shard] = self.folder.joinpath(array, "c", str(shard), *["0"] * AXES[array])
        return path

    def shard_files(self, shard: int) -> list[Path]:
        """The files of a shard of all arrays."""
        return [self.shard_path(array, shard) for array in self.arrays]

    def known_shards(self, array: str) -> Iterator[KnownShard]:
        """The files of an array as the ledger knows them, of finished shards.

        Raises:
            StoreError: an entry is damaged, or does not name the file.
        """
        for shard, entry in self.ledger.entries():
            if entry is not None:
                path = self.shard_path(array, shard)
                name = path.relative_to(self.folder).as_posix()
                with reading(self.store.files.name(self.ledger.path(shard)), "damaged ledger entry", StoreError):
                    file = entry["files"][name]
                yield KnownShard(path, file["bytes"], file["sha256"], is_needed_whole=array != "pixels")

    def read_embeddings(self, shard: int) -> NDArray[Any]:
        """Embeddings of a finished shard: (rows, D) in the stored type; NaN where a row has none.

        Raises:
            StoreError: the shard file is missing or damaged.
        """
        file = self.store.files.open(self.shard_path("embedding", shard), self.chunks_per_shard)
        values = _first_rows(file.read_rows(self.dtype, self.width), len(self.ledger.rows(shard)), file.name)
        self._compared.update(("embedding", shard, chunk) for chunk in range(self.chunks_per_shard))
        return values

    def read_views(self, shard: int) -> NDArray[Any]:
        """Embeddings of all views of a finished shard: (rows, K, D), view 0 first; as `read_embeddings`."""
        plain, further = self.read_embeddings(shard)[:, None], self.views.count - 1
        if not further:
            return plain
        file = self.store.files.open(self.shard_path("views", shard), self.chunks_per_shard)
        values = _first_rows(file.read_rows(self.dtype, further * self.width), len(plain), file.name)
        self._compared.update(("views", shard, chunk) for chunk in range(self.chunks_per_shard))
        return np.concatenate([plain, values.reshape(-1, further, self.width)], axis=1)

    def read_embedding(self, row: int, view: int = 0) -> NDArray[np.float32]:
        """The embedding of a view of one row, float32 (D,); raises as `read_stored_embedding`."""
        return self.read_stored_embedding(row, view).astype(np.float32)

    def read_stored_embedding(self, row: int, view: int = 0) -> NDArray[Any]:
        """The same in the stored type, (D,), read-only. The checksum of the chunk that it lies in is compared when the
        chunk is read for the first time, here or with its shard.

        Raises:
            StoreError: it is not there, or damaged.
        """
        if view >= self.views.count:
            made = self.round(view)
            if made is None:
                where = self.store.files.name(self.round_folder(view))
                raise StoreError(f"{where}: view {view} was not made")
            return made.read_stored_embedding(row)
        shard, index = divmod(row, self.rows_per_shard)
        chunk, index = divmod(index, self._chunk_rows)
        row_bytes = self.width * self._numbers.itemsize
        array = "views" if view else "embedding"
        file = self._embedding_files.open(self.shard_path(array, shard))
        place = index * (self.views.count - 1) + view - 1 if view else index
        if (array, shard, chunk) not in self._compared:
            file.read_chunk(chunk)
            self._compared.add((array, shard, chunk))
        data = file.read_slice(chunk, place * row_bytes, row_bytes)
        return np.frombuffer(data, self._numbers)

    def read_status(self, shard: int) -> NDArray[np.uint8]:
        """`Status` codes of a finished shard: uint8 (rows,)."""
        file = self.store.files.open(self.shard_path("status", shard), self.chunks_per_shard)
        return _first_rows(file.read_rows("uint8", None), len(self.ledger.rows(shard)), file.name).astype(np.uint8)

    def status(self) -> NDArray[np.uint8]:
        """`Status` codes of all rows: uint8 (N,); ABSENT in pending shards."""
        status = np.zeros(self.num_rows, np.uint8)
        for shard, entry in self.ledger.entries():
            if entry is not None:
                rows = self.ledger.rows(shard)
                status[rows.start : rows.stop] = self.read_status(shard)
        return status

    def ok_rows(self, split: int | None = None) -> NDArray[np.int64]:
        """Rows with an embedding, ascending, of one split or of all; rows of pending shards are not among them."""
        ok = self.status() == Status.OK
        if split is not None:
            ok &= self.plan.split() == split
        return np.flatnonzero(ok)

    def content_hash(self) -> str:
        """Hex SHA-256 of what is stored, from the ledger: plan, teacher and every shard file's hash. That of a further
        teacher covers the first one's, for the pixels; that of the first does not depend on further ones.
        """
        files = [entry["files"] if entry else None for _, entry in self.ledger.entries()]
        identity = {"plan": self.plan_hash, "teacher": self.record, "settings": self.settings}
        digest = sha256_json({**identity, "files": files})
        return digest if self.is_first else sha256_json({"store": self.store.first.content_hash(), "teacher": digest})

    def wrong_files(self) -> list[tuple[Path, int | None]]:
        """The files of finished shards that are not there with all their bytes, and no more, each with how many it has,
        `None` where there is none; for a store in a folder.

        Raises:
            StoreError: as `known_shards`.
        """
        known = ((each, _size_of(each.path)) for array in self.arrays for each in self.known_shards(array))
        return [(each.path, num_bytes) for each, num_bytes in known if num_bytes != each.num_bytes]

    def check_files(self, shard: int) -> list[str]:
        """What is wrong with a finished shard's files against its ledger entry; empty when all is well. Those of a
        store in a bucket are `held`.
        """
        entry = self.ledger.read(shard)
        assert entry is not None
        problems = []
        names = {self.shard_path(array, shard).relative_to(self.folder).as_posix() for array in AXES}
        for name, expected in entry["files"].items():
            path = self.store.files.copy(self.folder / name)
            if name not in names:
                problems.append(f"{name!r} is no file of this shard")
            elif not path.is_file():
                problems.append(f"{name}: missing")
            elif path.stat().st_size != expected["bytes"]:
                problems.append(f"{name}: {path.stat().st_size} bytes, {expected['bytes']} were written")
            elif sha256_file(path) != expected["sha256"]:
                problems.append(f"{name}: its bytes have changed (SHA-256 does not match)")
        return problems


def _size_of(path: Path) -> int | None:
    """Bytes of a file; `None` if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _first_rows(values: NDArray[Any], count: int, name: str) -> NDArray[Any]:
    """The first `count` rows of a shard's.

    Raises:
        StoreError: there are fewer.
    """
    if len(values) < count:
        raise StoreError(f"{name}: damaged ({len(values)} rows, not {count}). `g2l verify` lists all damage")
    return values[:count]
