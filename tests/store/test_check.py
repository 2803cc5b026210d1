"""The check of a store: silent on a sound one, and each disagreement named by its array, shard and rows."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.limits import few_files_left
from support.store_writing import edit_attributes, edit_json, flip, write_shard

from pipeline.base.errors import LimitError, StoreError
from pipeline.store import check
from pipeline.store.check import check_metadata, check_shard, require_files
from pipeline.store.shards import ShardFile
from pipeline.store.store import Store


def test_nothing_is_wrong_with_a_finished_store(finished: Path) -> None:
    first = Store(finished).first
    assert check_metadata(first) == []
    assert [check_shard(first, shard) for shard in range(first.num_shards)] == [[], [], []]


def test_files_that_a_copy_lacks_are_named(copy: Path) -> None:
    """By their names and sizes; those of shards that are not done may be missing."""
    first = Store(copy).first
    require_files(first)
    (copy / "embedding" / "c" / "1" / "0").unlink()
    pixels = copy / "pixels" / "c" / "2" / "0" / "0" / "0"
    pixels.write_bytes(pixels.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"2 files that the ledger names \(embedding/c/1/0, pixels/c/2/0/0/0\)\. Was"):
        require_files(first)
    for shard in (1, 2):
        first.ledger.forget(shard)
    require_files(first)


def test_a_shard_that_is_not_done_is_no_damage(copy: Path) -> None:
    first = Store(copy).first
    first.ledger.forget(1)
    assert [check_shard(first, shard) for shard in range(first.num_shards)] == [[], None, []]


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_full_temporary_folder_is_no_damage_and_is_named(
    finished: Path, is_wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was said to be damaged, or no word said which folder was full."""

    def full(*arguments: object) -> None:
        error = OSError(errno.ENOSPC, "No space left on device")
        if is_wrapped:
            raise StoreError("cannot write") from error
        raise error

    monkeypatch.setattr(check, "create_empty_like", full)
    words = rf"temporary files, {tempfile.gettempdir()}, cannot be written \(No space left.*set TMPDIR"
    with pytest.raises(StoreError, match=words):
        check_metadata(Store(finished).first)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda a: a.update(rows=21), "zarr.json: rows is 21, not 22"),
        (lambda a: a.update(patch_px=32), "zarr.json: patch_px is 32, not 16"),
        (lambda a: a.pop("status_codes"), "zarr.json: status_codes is None, not {"),
    ],
)
def test_an_attribute_that_does_not_follow_from_the_plan_is_named(
    copy: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    edit_attributes(copy, change)
    found = check_metadata(Store(copy).first)
    assert any(line.startswith(problem) for line in found), found


def test_metadata_of_arrays_are_compared_key_by_key(copy: Path) -> None:
    edit_json(copy / "embedding" / "zarr.json", lambda value: value.update(data_type="float32"))
    (copy / "status" / "zarr.json").unlink()
    (copy / "pixels" / "zarr.json").write_text("[]")
    embedding, pixels, status = check_metadata(Store(copy).first)
    assert embedding == "embedding/zarr.json: not as this store was made (data_type)"
    assert pixels.startswith("pixels/zarr.json: no metadata of an array (")
    assert status == "status/zarr.json: missing"


def test_the_column_of_slides_is_compared_with_the_plan(copy: Path) -> None:
    path = next(path for path in (copy / "plan" / "slide" / "c").rglob("*") if path.is_file())
    flip(path, 0)
    assert check_metadata(Store(copy).first) == ["plan/slide: not the plan's slides"]
    path.write_bytes(b"")
    (problem,) = check_metadata(Store(copy).first)
    assert problem.startswith("plan/slide: cannot be read (")


def test_embeddings_are_finite_where_a_row_is_ok_and_nan_elsewhere(copy: Path) -> None:
    """Row 9 of shard 1 has failed; of shard 0 all rows but row 3 are well."""
    first = Store(copy).first
    values = first.read_embeddings(1).copy()
    values[9 - 8, 0] = 0.5
    write_shard(copy, "embedding", 1, [values.tobytes()])
    write_shard(copy, "embedding", 0, [np.full_like(values, np.nan).tobytes()])
    (second,), (cut_short,) = check_shard(first, 1) or [], check_shard(first, 0) or []
    assert second.startswith("embedding, shard 1: 1 row (9): ")
    assert cut_short.startswith("embedding, shard 0: 7 rows (0, 1, 2, 4, 5, ...): ")
    assert check_shard(first, 1, content=False) == []  # the files are as the ledger says


@pytest.mark.parametrize(("row", "has_image"), [(9, True), (10, False)])
def test_a_row_has_an_image_if_it_was_read(copy: Path, row: int, has_image: bool) -> None:
    first = Store(copy).first
    file = ShardFile(first.shard_path("pixels", 1), first.rows_per_shard)
    images = [file.read_chunk(i) for i in range(first.rows_per_shard)]
    assert (images[row - 8] is None) == has_image  # which is what is changed now
    images[row - 8] = images[0] if has_image else None
    write_shard(copy, "pixels", 1, images)
    (problem,) = check_shard(first, 1) or []
    assert problem.startswith(f"pixels, shard 1: 1 row ({row}): ")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda entry: entry.update(rows=[8, 15]), "shards/1.json: its rows are [8, 15], not [8, 16]"),
        (lambda entry: entry["files"].pop("status/c/1"), "shards/1.json: its files are ['embedding/c/1/0', 'pixels/"),
        (lambda entry: entry.update(status={"OK": 8}), "shards/1.json: its status counts are {'OK': 8}, those of the"),
        (lambda entry: entry.update(failures=[]), "shards/1.json: its failures are not the rows that failed"),
        (lambda entry: entry.update(rows=None), "shards/1.json: its rows are None"),
    ],
)
def test_a_ledger_entry_that_tells_otherwise_is_named(
    copy: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    first = Store(copy).first
    edit_json(first.ledger.path(1), change)
    (found,) = check_shard(first, 1) or []
    assert found.startswith(problem)


def test_whatever_is_wrong_with_one_shard_does_not_end_the_check(copy: Path) -> None:
    first = Store(copy).first
    first.ledger.path(0).write_text("{")
    edit_json(first.ledger.path(2), lambda entry: entry.update(failures=[{"reason": "no row"}]))
    for shard in (0, 2):
        (problem,) = check_shard(first, shard) or []
        assert f"{shard}.json: damaged ledger entry" in problem
    assert check_shard(first, 1) == []


def test_without_descriptors_no_shard_is_called_damaged(finished: Path) -> None:
    first = Store(finished).first
    with few_files_left(), pytest.raises(LimitError, match=r"ulimit -n"):
        check_shard(first, 0)
    assert check_shard(first, 0) == []
