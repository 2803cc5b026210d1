"""Check a store against its own metadata and ledger: arrays, shard files, counts, and that all of them agree.

Left out: whether the embeddings are the teacher's. That takes the teacher; see `stages.verify`.
"""

import errno
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.base.errors import G2LError, LimitError, StoreError, raise_if_limit
from pipeline.base.outside import read_json
from pipeline.disk.files import temporary_folder
from pipeline.disk.objects.bucket import ObjectError
from pipeline.disk.raw_arrays import METADATA, read_array
from pipeline.store import zarr_format
from pipeline.store.create import create_empty_like
from pipeline.store.format import Status
from pipeline.store.store import Store, StoredTeacher

NAMED = 3
"""Files that an error names. Our choice: enough to see which part of a copy is missing."""
KEPT_ATTRIBUTES = ("rows", "patch_px", "tile_px", "status_codes")
"""Attributes that follow from the plan and this program."""
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""The system's errors of a folder that cannot be written."""
DROPPED = frozenset(code.name for code in Status if code.is_dropped)
"""Names of the status of rows that `--patch-qc` dropped."""


def require_files(teacher: StoredTeacher) -> None:
    """See that the files of finished shards of a teacher and its rounds are there, before more are added: the store may
    be a copy that was cut short. Their bytes are not read.

    Raises:
        StoreError: some are missing, or are of another size.
    """
    missing = [path for made in teacher.with_rounds for path, _ in made.wrong_files()]
    if not missing:
        return
    names = [path.relative_to(teacher.folder).as_posix() for path in missing[:NAMED]]
    some = ", ".join([*names, *(["..."] if len(missing) > NAMED else [])])
    raise StoreError(
        f"{teacher.folder}: missing or of another size: {counted(len(missing), 'file')} that the ledger names "
        f"({some}). Was the store copied only in part? Copy it again, or delete shards/<i>.json of these shards to do "
        "them again; `g2l verify` lists all damage"
    )


def check_metadata(teacher: StoredTeacher) -> list[str]:
    """What is wrong with the metadata of a teacher's arrays, with the first one's also the plan's; empty when all is
    well.

    Arrays without rows are made of the plan, the teacher and the settings that are stored, and compared.

    Raises:
        StoreError: the store's plan is damaged, or there is no temporary space.
    """
    with temporary_folder("g2l-verify-") as temporary:
        expected = temporary / "expected.zarr"
        try:
            should_be = create_empty_like(teacher, expected)
        except Exception as error:  # zarr's too, for settings that nobody would write
            if no_room := _no_temporary_room(error, temporary):
                raise no_room from None
            if isinstance(error, G2LError):
                raise
            raise_if_limit(error)
            return [f"{METADATA}: no store is made with such settings ({error})"]
        problems = [
            f"{METADATA}: {name} is {teacher.attributes.get(name)!r}, not {should_be.get(name)!r}"
            for name in KEPT_ATTRIBUTES
            if teacher.attributes.get(name) != should_be.get(name)
        ]
        for path in sorted(expected.rglob(METADATA)):
            name = path.parent.relative_to(expected).as_posix()
            if name not in (".", "plan"):  # groups: the attributes above, and the plan's hash
                problems += _check_array(teacher.folder, expected, name)
    return problems or (_check_slide_column(teacher.store) if teacher.is_first else [])


def _no_temporary_room(error: BaseException, folder: Path) -> StoreError | None:
    """The error for a folder for temporary files that cannot be written; `None` for an error that is of something else:
    a full disk there is no damage of the store.
    """
    system = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(system, OSError) or system.errno not in NOT_WRITTEN:
        return None
    return StoreError(
        f"the folder for temporary files, {folder.parent}, cannot be written ({system.strerror}), so the store was not "
        "checked. Free some MB there, or set TMPDIR to another folder"
    )


def _check_array(folder: Path, expected: Path, name: str) -> list[str]:
    """What is wrong with one array's metadata; another version of zarr may write the same in other words."""
    path = folder / name / METADATA
    try:
        stored, right = (read_json(place / name / METADATA) for place in (folder, expected))
        if stored == right:
            return []
        stored, right = (zarr_format.read_metadata(place, name) for place in (folder, expected))
        wrong = sorted(key for key in stored.keys() | right.keys() if stored.get(key) != right.get(key))
    except FileNotFoundError:
        return [f"{name}/{path.name}: missing"]
    except Exception as error:  # noqa: BLE001  (zarr's, for metadata that nobody would write)
        raise_if_limit(error)
        return [f"{name}/{path.name}: no metadata of an array ({' '.join(str(error).split())})"]
    return [f"{name}/{path.name}: not as this store was made ({', '.join(wrong)})"] if wrong else []


def _check_slide_column(store: Store) -> list[str]:
    """`plan/slide` against the plan; the plan's hash covers the other two arrays."""
    try:
        slide = read_array(store.folder / "plan", "slide")
    except Exception as error:  # noqa: BLE001  (zarr's, for an array that is damaged in any way)
        raise_if_limit(error)
        return [f"plan/slide: cannot be read ({error})"]
    return [] if np.array_equal(slide, store.plan.slide_of_row()) else ["plan/slide: not the plan's slides"]


def check_shard(teacher: StoredTeacher, shard: int, *, content: bool = True) -> list[str] | None:
    """What is wrong with a shard; empty when all is well, `None` while it is not done.

    Args:
        content: also compare what the files hold; for embeddings whose metadata are right.

    Raises:
        ObjectError: the store is in a bucket that cannot be read.
        LimitError: this process may open no more files.
    """
    try:
        entry = teacher.ledger.read(shard)
        if entry is None:
            return None
        with teacher.store.files.held(teacher.shard_files(shard)):
            problems = _check_entry(teacher, shard, entry) or teacher.check_files(shard)
            if problems or not content:
                return problems
            return _check_content(teacher, shard, entry)
    except ObjectError:  # it says nothing of the shard
        raise
    except LimitError:
        raise
    except StoreError as error:
        raise_if_limit(error)
        return [str(error)]
    except Exception as error:  # noqa: BLE001  (whatever is wrong with one shard is reported by its name)
        raise_if_limit(error)
        return [f"shards/{shard}.json: damaged ledger entry ({error!r})"]


def _check_entry(teacher: StoredTeacher, shard: int, entry: dict[str, Any]) -> list[str]:
    """What is wrong with the rows and the names of files in a ledger entry."""
    name, rows = f"shards/{shard}.json", teacher.ledger.rows(shard)
    files = {teacher.shard_path(array, shard).relative_to(teacher.folder).as_posix() for array in teacher.arrays}
    problems = []
    if entry["rows"] != [rows.start, rows.stop]:
        problems.append(f"{name}: its rows are {entry['rows']}, not {[rows.start, rows.stop]}")
    if set(entry["files"]) != files:
        problems.append(f"{name}: its files are {sorted(entry['files'])}, not {sorted(files)}")
    return problems


def _check_content(teacher: StoredTeacher, shard: int, entry: dict[str, Any]) -> list[str]:
    """What in a shard does not agree with its status: the ledger's counts and failures, embeddings, pixels."""
    status, first = teacher.read_status(shard), teacher.ledger.rows(shard).start
    problems = _check_status(shard, entry, status, first)
    embeddings = teacher.read_views(shard)
    ok = status == Status.OK
    amiss = np.where(ok, ~np.isfinite(embeddings).all(axis=(1, 2)), ~np.isnan(embeddings).all(axis=(1, 2)))
    if amiss.any():
        rows = _name_rows(first + np.flatnonzero(amiss))
        problems.append(f"embedding, shard {shard}: {rows}: a row is finite if its status is OK, and NaN otherwise")
    if teacher.keeps_pixels:
        problems += _check_pixels(teacher, shard, status)
    return problems


def _check_status(shard: int, entry: dict[str, Any], status: NDArray[np.uint8], first: int) -> list[str]:
    """What in a ledger entry does not agree with the status of its rows, from row `first` on: counts, failures, rows
    that were dropped.
    """
    known = {int(code): code.name for code in Status}
    values, numbers = np.unique(status, return_counts=True)
    counts = {known.get(v, str(v)): n for v, n in zip(values.tolist(), numbers.tolist(), strict=True)}
    counts = {name: number for name, number in counts.items() if name not in DROPPED}
    without = {first + i: known.get(int(status[i]), "") for i in np.flatnonzero(status != Status.OK).tolist()}
    problems = []
    if wrong := sorted(set(counts) - {s.name for s in Status if s is not Status.ABSENT}):
        problems.append(f"status: rows of shard {shard} are {', '.join(wrong)}, though the shard is done")
    if entry["status"] != counts:
        problems.append(f"shards/{shard}.json: its status counts are {entry['status']}, those of the rows {counts}")
    return problems + _check_records(shard, entry, without)


def _check_records(shard: int, entry: dict[str, Any], without: dict[int, str]) -> list[str]:
    """What in a ledger entry does not agree with the rows `without` an embedding, names of status by row."""
    failed = {failure["row"]: failure["status"] for failure in entry["failures"]}
    dropped = {record["row"]: record["status"] for record in entry.get("dropped", [])}
    problems = []
    if failed != {row: name for row, name in without.items() if name not in DROPPED}:
        problems.append(f"shards/{shard}.json: its failures are not the rows that failed")
    if dropped != {row: name for row, name in without.items() if name in DROPPED}:
        problems.append(f"shards/{shard}.json: its dropped rows are not those of the status")
    return problems


def _check_pixels(teacher: StoredTeacher, shard: int, status: NDArray[np.uint8]) -> list[str]:
    """What is wrong with a shard's images, by its index: a row has one if it was read, and none otherwise."""
    file, amiss = teacher.store.files.open(teacher.shard_path("pixels", shard), teacher.rows_per_shard), []
    for i, code in enumerate(status.tolist()):
        if code == Status.OK:
            try:
                file.read_slice(i, 0, 0)
            except StoreError:
                amiss.append(i)
        elif code != Status.NOT_FINITE and file.read_chunk(i) is not None:
            amiss.append(i)
    if not amiss:
        return []
    rows = _name_rows(teacher.ledger.rows(shard).start + np.array(amiss))
    return [f"pixels, shard {shard}: {rows}: a row has an image if its status is OK, and none if it was not read"]


def _name_rows(rows: NDArray[np.int64]) -> str:
    """The first few rows, and how many there are."""
    shown = ", ".join(map(str, rows[:5].tolist()))
    return f"{counted(len(rows), 'row')} ({shown}{', ...' if len(rows) > 5 else ''})"
