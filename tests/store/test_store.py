"""The store: what zarr-python sees of it, what its hash covers, and damage."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.store_writing import (
    EMBEDDINGS,
    FAILED,
    ROWS,
    WIDTH,
    continued_store,
    cut,
    edit_attributes,
    flip,
    spec,
    write_pending,
)

from pipeline.base.errors import StoreError
from pipeline.cohort.plan import Plan
from pipeline.sampling import TRAIN, VAL
from pipeline.store.format import Status
from pipeline.store.store import Store

# --- reading ------------------------------------------------------------------------------------------------


def test_reading_gives_what_was_written(finished: Path, plan: Plan, images: NDArray[np.uint8]) -> None:
    store = Store(finished)
    ok = [row for row in range(ROWS) if row not in FAILED]
    assert store.first.ledger.pending() == []
    assert store.first.ok_rows().tolist() == ok
    split = plan.split()
    assert store.first.ok_rows(TRAIN).tolist() == [row for row in ok if split[row] == TRAIN]
    assert store.first.ok_rows(VAL).tolist() == [row for row in ok if split[row] == VAL]
    whole = np.concatenate([store.first.read_embeddings(shard) for shard in range(store.first.num_shards)])
    assert whole.shape == (ROWS, WIDTH)
    np.testing.assert_array_equal(whole[ok], EMBEDDINGS[ok].astype(np.float16))
    assert np.isnan(whole[list(FAILED)]).all()
    for row in ok:
        np.testing.assert_array_equal(store.first.read_embedding(row), EMBEDDINGS[row].astype(np.float16))
        np.testing.assert_array_equal(store.read_pixels(row), images[row])
    counts = {status.name: 0 for status in Status} | {"OK": ROWS - 3, "UNREADABLE": 1, "NO_SLIDE": 1, "EMPTY": 1}
    assert store.first.ledger.status_counts() == counts
    assert [(f["row"], f["status"], f["reason"]) for f in store.first.ledger.failures()] == [
        (row, status.name, "a reason") for row, status in FAILED.items()
    ]
    assert store.plan.hash == plan.hash
    np.testing.assert_array_equal(store.plan.coords(), plan.coords())
    for row in FAILED:
        with pytest.raises(StoreError, match=f"row {row} has no pixels"):
            store.read_pixels(row)


@pytest.mark.slow
def test_zarr_opens_it_in_a_process_that_does_not_know_this_project(
    finished: Path, tmp_path: Path, plan: Plan, images: NDArray[np.uint8]
) -> None:
    """The codec of the pixels comes by its entry point."""
    script = f"""
import sys, zarr, numpy as np
group = zarr.open_group({str(finished)!r}, mode="r")
names = ("embedding", "pixels", "status", "plan/coords", "plan/slide", "plan/split")
np.savez({str(tmp_path / "seen.npz")!r}, **{{name: group[name][:] for name in names}})
print(group.attrs["g2l"]["status_codes"]["UNREADABLE"], "stages" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("2 False", "")
    seen = np.load(tmp_path / "seen.npz")
    expected = EMBEDDINGS.astype(np.float16)
    expected[list(FAILED)] = np.nan
    np.testing.assert_array_equal(seen["embedding"], expected)
    pixels = images.copy()
    pixels[list(FAILED)] = 0
    np.testing.assert_array_equal(seen["pixels"], pixels)
    assert seen["status"].tolist() == [FAILED.get(row, Status.OK) for row in range(ROWS)]
    np.testing.assert_array_equal(seen["plan/coords"], plan.coords())
    np.testing.assert_array_equal(seen["plan/slide"], plan.slide_of_row())
    np.testing.assert_array_equal(seen["plan/split"], plan.split())


def test_without_pixels_there_are_no_pixels(tmp_path: Path, plan: Plan, encoded: list[bytes]) -> None:
    store = continued_store(tmp_path / "s.zarr", plan, spec(pixels="none"))
    write_pending(store, encoded)
    assert not store.has_pixels
    assert not (tmp_path / "s.zarr" / "pixels").exists()
    assert {name.split("/")[0] for _, entry in store.first.ledger.entries() for name in (entry or {})["files"]} == {
        "embedding",
        "status",
    }


def test_the_content_hash_covers_plan_teacher_and_files(finished: Path, copy: Path) -> None:
    store = Store(copy)
    assert store.first.content_hash() == Store(finished).first.content_hash()
    ledger = json.loads(store.first.ledger.path(1).read_text())
    store.first.ledger.path(1).write_text(json.dumps(ledger | {"seconds": 99.0, "device": "another"}))
    assert Store(copy).first.content_hash() == Store(finished).first.content_hash()
    ledger["files"]["status/c/1"]["sha256"] = "0" * 64
    store.first.ledger.path(1).write_text(json.dumps(ledger))
    assert Store(copy).first.content_hash() != Store(finished).first.content_hash()


# --- damage -------------------------------------------------------------------------------------------------


def test_absent_stores_and_damaged_metadata(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(StoreError, match=r"no such store. `g2l extract-teacher` makes one"):
        Store(tmp_path / "none")
    edit_attributes(copy, lambda a: a["settings"].pop("dtype"))
    with pytest.raises(StoreError, match="metadata are damaged"):
        Store(copy)


@pytest.mark.parametrize("name", ["embedding", "status", "pixels"])
def test_damaged_shard_files_are_found(copy: Path, name: str) -> None:
    store = Store(copy)
    path = store.first.shard_path(name, 1)
    relative = path.relative_to(copy)
    assert store.first.check_files(1) == []
    flip(path, 5)
    assert store.first.check_files(1) == [f"{relative}: its bytes have changed (SHA-256 does not match)"]
    fresh = Store(copy)
    with pytest.raises(StoreError, match=rf"{relative}: damaged \(checksum does not match\)"):
        {
            "embedding": fresh.first.read_embeddings,
            "status": fresh.first.read_status,
            "pixels": lambda _: fresh.read_pixels(8),
        }[name](1)
    cut(path)
    (problem,) = store.first.check_files(1)
    assert f"{relative}: {path.stat().st_size} bytes, {path.stat().st_size + 8} were written" in problem
    path.unlink()
    assert store.first.check_files(1) == [f"{relative}: missing"]
    assert store.first.check_files(0) == store.first.check_files(2) == []


def test_reading_a_row_of_a_pending_shard_is_told(tmp_path: Path, plan: Plan) -> None:
    store = continued_store(tmp_path / "s.zarr", plan)
    assert store.first.ok_rows().tolist() == []
    assert store.first.ledger.status_counts()["ABSENT"] == ROWS
    for read in (store.first.read_embedding, store.read_pixels):
        with pytest.raises(StoreError, match="the shard file is missing"):
            read(0)


def test_the_checksum_of_an_embedding_is_compared_when_it_is_read_first(copy: Path) -> None:
    path = Store(copy).first.shard_path("embedding", 1)
    row = Store(copy).first.ledger.rows(1).start
    whole, before = Store(copy), Store(copy)
    expected = whole.first.read_embedding(row)
    before.first.read_embeddings(1)
    flip(path, 5)
    with pytest.raises(StoreError, match=r"embedding.*: damaged \(checksum does not match\)"):
        Store(copy).first.read_embedding(row)
    for read_already in (whole, before):  # once: a row costs a small read
        assert read_already.first.read_embedding(row).shape == expected.shape
