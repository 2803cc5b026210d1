"""What a store is made of: what is no store of this version is refused, chunks divide shards, names are plain."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_writing import PATCH_PX, ROWS, edit_attributes, spec

from pipeline.base.errors import StoreError
from pipeline.cohort.plan import Plan
from pipeline.cohort.views.views import Views
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.format import (
    CHUNK_ROWS,
    MOST_SHARDS,
    STORE_FORMAT,
    TEACHER_FORMAT,
    Status,
    chunk_rows,
    new_arrays,
    read_store_attributes,
    require_entry,
    require_sound_attributes,
    teacher_folder,
)
from pipeline.store.store import Store


@given(st.integers(1, 5000))
def test_chunks_divide_a_shard(rows_per_shard: int) -> None:
    rows = chunk_rows(rows_per_shard)
    assert rows_per_shard % rows == 0
    assert 1 <= rows <= CHUNK_ROWS
    assert not any(rows_per_shard % more == 0 for more in range(rows + 1, min(CHUNK_ROWS, rows_per_shard) + 1))


def test_a_store_of_another_version_or_format_is_refused(copy: Path) -> None:
    edit_attributes(copy, lambda a: a.update(version=99))
    with pytest.raises(StoreError, match=r"format version 99; this program reads versions 1 and 2 of"):
        Store(copy)
    edit_attributes(copy, lambda a: a.update(version=1, format="something-else"))
    with pytest.raises(StoreError, match="something-else"):
        Store(copy)
    edit_attributes(copy, lambda a: a.pop("version"))
    with pytest.raises(StoreError, match="not a store of G2L"):
        Store(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"attributes": {}}', b'{"attributes": []}', b"\xff"])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(StoreError, match="not a store of G2L"):
        Store(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("h-optimus-0", "h-optimus-0"), ("hf-hub:a/b_c.d", "hf-hub-a-b_c.d"), ("../..", "teacher"), ("a\0b", "a-b")],
)
def test_folders_have_plain_names(name: str, folder: str) -> None:
    assert teacher_folder(name) == folder


def test_codes_of_what_became_of_a_row_never_change() -> None:
    """They stand in stores; a new one may be added."""
    codes = {"ABSENT": 0, "OK": 1, "UNREADABLE": 2, "EMPTY": 3, "NO_SLIDE": 4, "NOT_FINITE": 5}
    assert {status.name: int(status) for status in Status}.items() >= codes.items()
    assert len(set(Status)) == len(Status.__members__)


def attributes() -> dict[str, Any]:
    """The part of a store's attributes that sizes depend on."""
    return {"rows": ROWS, "patch_px": PATCH_PX, "teacher": spec().teacher, "settings": spec().settings}


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("", "rows", 0),
        ("", "rows", 2**41),
        ("", "rows", True),
        ("", "patch_px", -1),
        ("", "patch_px", 16.0),
        ("teacher", "width", "6"),
        ("teacher", "width", 2**21),
        ("settings", "rows_per_shard", None),
        ("settings", "views", 0),
        ("settings", "dtype", "float64"),
        ("settings", "views_strength", "stronger"),
        ("", "tile_px", 2**15),
        ("", "tile_px", PATCH_PX - 1),
        ("settings", "pixels", "png"),
    ],
)
def test_sizes_that_no_store_has_are_refused_by_name(part: str, name: str, value: object) -> None:
    changed = attributes()
    require_sound_attributes(changed)
    (changed[part] if part else changed)[name] = value
    with pytest.raises(ValueError, match=f"{name} (is )?{re.escape(repr(value))}"):
        require_sound_attributes(changed)


def test_more_shards_than_anyone_writes_are_refused() -> None:
    changed = attributes()
    changed["rows"], changed["settings"]["rows_per_shard"] = 10 * MOST_SHARDS, 10
    require_sound_attributes(changed)
    changed["rows"] += 1
    with pytest.raises(ValueError, match="rows in shards of 10"):
        require_sound_attributes(changed)


def whole_entry() -> dict[str, Any]:
    """A ledger entry of eight rows."""
    file = {"bytes": 3, "sha256": "0" * 64}
    return {"rows": [0, 8], "status": {"OK": 7, "EMPTY": 1}, "files": {"status/c/0": file}, "failures": [{"row": 3}]}


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("rows"),
        lambda entry: entry.pop("failures"),
        lambda entry: entry["status"].update(OK=-1),
        lambda entry: entry["status"].update(OK="7"),
        lambda entry: entry["status"].update(MELTED=1),
        lambda entry: entry["files"]["status/c/0"].update(bytes="3"),
        lambda entry: entry["files"]["status/c/0"].pop("sha256"),
        lambda entry: entry["failures"].append(4),
        lambda entry: entry.update(seconds=[]),
        lambda entry: entry.update(seconds="3"),
        lambda entry: entry.update(seconds=True),
        lambda entry: entry.update(seconds=-1),
        lambda entry: entry.update(seconds=float("nan")),
        lambda entry: entry.update(seconds=float("inf")),
    ],
)
def test_a_ledger_entry_has_all_its_fields(change: Callable[[dict[str, Any]], object]) -> None:
    entry = whole_entry()
    require_entry(entry)
    change(entry)
    with pytest.raises((KeyError, TypeError, ValueError)):
        require_entry(entry)


def test_views_are_of_the_settings() -> None:
    assert spec().views == Views(1, 0)
    assert spec(views=3, views_seed=5).views == Views(3, 5)


def test_arrays_that_are_not_ended_well_are_not_made(tmp_path: Path, plan: Plan) -> None:
    def interrupted() -> None:
        with new_arrays(tmp_path / "s.zarr", plan, spec(), {}, STORE_FORMAT) as aside:
            assert (aside / METADATA).exists()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot make the store .*s\.zarr: No space left on device"):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_attributes_are_read_as_they_were_made(tmp_path: Path, plan: Plan) -> None:
    with new_arrays(tmp_path / "t", plan, spec(), {"python": "3"}, TEACHER_FORMAT, {"proof": {"rows": 2}}):
        pass
    made = read_store_attributes(tmp_path / "t", TEACHER_FORMAT)
    assert (made["rows"], made["patch_px"], made["plan_hash"]) == (ROWS, PATCH_PX, plan.hash)
    assert (made["teacher"], made["settings"]) == (spec().teacher, spec().settings)
    assert (made["versions"], made["proof"]) == ({"python": "3"}, {"rows": 2})
    with pytest.raises(StoreError, match=f"{TEACHER_FORMAT} of format version 1; this program reads"):
        read_store_attributes(tmp_path / "t", STORE_FORMAT)
