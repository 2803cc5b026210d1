"""Check a store against what it says of itself: metadata, shard files, ledger, and that the three agree.

What it leaves out: whether the embeddings are the teacher's. That takes the teacher; `stages.verify` asks it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import G2LError, StoreError
from pipeline.base.outside import read_json
from pipeline.disk.files import temporary_folder
from pipeline.store import zarr_format
from pipeline.store.shards import ShardFile
from pipeline.store.store import Status, Store

KEPT_ATTRIBUTES = ("rows", "patch_px", "status_codes")
"""Attributes of a store that follow from its plan and this program."""


def check_metadata(store: Store) -> list[str]:
    """What is wrong with the store's metadata; empty when all is well.

    An empty store is made from the plan, the teacher and the settings that the store carries, and compared.

    Raises:
        StoreError: the store's plan is damaged, or there is no temporary space.
    """
    with temporary_folder("g2l-verify-") as temporary:
        expected = temporary / "expected.zarr"
        try:
            should_be = store.create_empty_like(expected)
        except G2LError:
            raise
        except Exception as error:  # noqa: BLE001  (zarr's, for settings that nobody would write)
            return [f"zarr.json: no store is made with such settings ({error})"]
        problems = [
            f"zarr.json: {name} is {store.attributes.get(name)!r}, not {should_be[name]!r}"
            for name in KEPT_ATTRIBUTES
            if store.attributes.get(name) != should_be[name]
        ]
        for path in sorted(expected.rglob("zarr.json")):
            name = path.parent.relative_to(expected).as_posix()
            if name not in (".", "plan"):  # groups: the attributes above, and the plan's hash
                problems += _check_array(store.folder, expected, name)
    return problems or (_check_slide_column(store) if store.base is store else [])


def _check_array(folder: Path, expected: Path, name: str) -> list[str]:
    """What is wrong with one array's metadata; the same said in other words (by another zarr) is right."""
    path = folder / name / "zarr.json"
    try:
        found, right = (read_json(place / name / "zarr.json") for place in (folder, expected))
        if found == right:
            return []
        found, right = (zarr_format.read_metadata(place, name) for place in (folder, expected))
        wrong = sorted(key for key in found.keys() | right.keys() if found.get(key) != right.get(key))
    except FileNotFoundError:
        return [f"{name}/{path.name}: missing"]
    except Exception as error:  # noqa: BLE001  (zarr's, for metadata that nobody would write)
        return [f"{name}/{path.name}: no metadata of an array ({' '.join(str(error).split())})"]
    return [f"{name}/{path.name}: not as this store was made ({', '.join(wrong)})"] if wrong else []


def _check_slide_column(store: Store) -> list[str]:
    """`plan/slide` against the plan; the plan's hash covers the other two arrays."""
    try:
        slide = zarr_format.read_array(store.folder / "plan", "slide")
    except Exception as error:  # noqa: BLE001  (zarr's, for an array that is damaged in any way)
        return [f"plan/slide: cannot be read ({error})"]
    return [] if np.array_equal(slide, store.plan.slide_of_row()) else ["plan/slide: not the plan's slides"]


def check_shard(store: Store, shard: int, *, content: bool = True) -> list[str] | None:
    """What is wrong with a shard; empty when all is well, `None` while it is not done.

    Args:
        content: also compare what the files hold; for a store whose metadata are right.
    """
    try:
        entry = store.read_ledger(shard)
        if entry is None:
            return None
        problems = _check_entry(store, shard, entry) or store.check_shard(shard)
        if problems or not content:
            return problems
        return _check_content(store, shard, entry)
    except StoreError as error:
        return [str(error)]
    except Exception as error:  # noqa: BLE001  (of one shard: whatever is wrong with it is told by its name)
        return [f"shards/{shard}.json: damaged ledger entry ({error!r})"]


def _check_entry(store: Store, shard: int, entry: dict[str, Any]) -> list[str]:
    """A ledger entry against the store: its rows and the names of its files."""
    name, rows = f"shards/{shard}.json", store.shard_rows(shard)
    arrays = ["embedding", "status", *(["pixels"] if store.has_pixels else [])]
    arrays += ["views"] if store.views.count > 1 else []
    files = {store.shard_path(array, shard).relative_to(store.folder).as_posix() for array in arrays}
    problems = []
    if entry["rows"] != [rows.start, rows.stop]:
        problems.append(f"{name}: its rows are {entry['rows']}, not {[rows.start, rows.stop]}")
    if set(entry["files"]) != files:
        problems.append(f"{name}: its files are {sorted(entry['files'])}, not {sorted(files)}")
    return problems


def _check_content(store: Store, shard: int, entry: dict[str, Any]) -> list[str]:
    """The ledger's counts and failures, the embeddings and the pixels of a shard against its status."""
    status, first = store.read_status(shard), store.shard_rows(shard).start
    known = {int(code): code.name for code in Status}
    values, numbers = np.unique(status, return_counts=True)
    counts = {known.get(v, str(v)): n for v, n in zip(values.tolist(), numbers.tolist(), strict=True)}
    failed = {first + i: known.get(int(status[i]), "") for i in np.flatnonzero(status != Status.OK).tolist()}
    problems = []
    if wrong := sorted(set(counts) - {s.name for s in Status if s is not Status.ABSENT}):
        problems.append(f"status: rows of shard {shard} are {', '.join(wrong)}, though the shard is done")
    if entry["status"] != counts:
        problems.append(f"shards/{shard}.json: its status counts are {entry['status']}, those of the rows {counts}")
    if {failure["row"]: failure["status"] for failure in entry["failures"]} != failed:
        problems.append(f"shards/{shard}.json: its failures are not the rows that failed")
    embeddings = store.read_views(shard)
    ok = status == Status.OK
    amiss = np.where(ok, ~np.isfinite(embeddings).all(axis=(1, 2)), ~np.isnan(embeddings).all(axis=(1, 2)))
    if amiss.any():
        rows = _name_rows(first + np.flatnonzero(amiss))
        problems.append(f"embedding, shard {shard}: {rows}: a row is finite if its status is OK, and NaN otherwise")
    if store.has_pixels:
        problems += _check_pixels(store, shard, status)
    return problems


def _check_pixels(store: Store, shard: int, status: NDArray[np.uint8]) -> list[str]:
    """By the shard's index: a row has an image if it was read, and none otherwise."""
    file, amiss = ShardFile(store.shard_path("pixels", shard), store.rows_per_shard), []
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
    rows = _name_rows(store.shard_rows(shard).start + np.array(amiss))
    return [f"pixels, shard {shard}: {rows}: a row has an image if its status is OK, and none if it was not read"]


def _name_rows(rows: NDArray[np.int64]) -> str:
    """The first few rows, and how many there are."""
    shown = ", ".join(map(str, rows[:5].tolist()))
    return f"{len(rows):,} rows ({shown}{', ...' if len(rows) > 5 else ''})"
