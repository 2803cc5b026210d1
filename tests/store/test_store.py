"""The store: what zarr-python sees of it, shards complete or absent at every moment, damage, and refusals."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.commands import leftovers
from support.extraction import array_files, made_up_plan
from support.mounts import mounted, needs_mounts

from pipeline.base.errors import PlanError, StoreError
from pipeline.base.images import encode_image
from pipeline.cohort.plan import Plan, build_plan
from pipeline.disk.locks import exclusive
from pipeline.sampling import TRAIN, VAL
from pipeline.store.create import create_store, open_to_continue
from pipeline.store.format import CHUNK_ROWS, Status, StoreSpec, chunk_rows
from pipeline.store.patches import PatchRead
from pipeline.store.store import Store
from pipeline.store.writer import QUEUED_BATCHES, StoreWriter

ROWS, WIDTH, PATCH_PX = 22, 6, 16
FAILED = {3: Status.UNREADABLE, 9: Status.NO_SLIDE, 21: Status.EMPTY}


def spec(**settings: Any) -> StoreSpec:
    values = {"rows_per_shard": 8, "pixels": "jpegxl", "dtype": "float16", "precision": "float32", "batch_size": 4}
    return StoreSpec({"name": "made up", "width": WIDTH, "weights_sha256": "1" * 64}, values | settings)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return made_up_plan(ROWS, PATCH_PX)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (ROWS, PATCH_PX, PATCH_PX, 3), np.uint8)


@pytest.fixture(scope="module")
def encoded(images: NDArray[np.uint8]) -> list[bytes]:
    return [encode_image(image, "jpegxl") for image in images]


EMBEDDINGS = np.random.default_rng(3).normal(size=(ROWS, WIDTH)).astype(np.float32)


def describe(row: int) -> dict[str, Any]:
    return {"row": row, "slide_id": "a", "x": row, "y": 0}


def write(store: Store, encoded: list[bytes], *, batch_size: int = 4, embeddings: NDArray[Any] = EMBEDDINGS) -> None:
    """Write all pending shards, as stage one does."""
    with StoreWriter(store.first, describe, "a machine") as writer:
        for shard in store.first.ledger.pending():
            rows = store.first.ledger.rows(shard)
            for start in range(rows.start, rows.stop, batch_size):
                batch = range(start, min(start + batch_size, rows.stop))
                reads = [
                    PatchRead(FAILED[row], reason="a reason") if row in FAILED else PatchRead(Status.OK, encoded[row])
                    for row in batch
                ]
                writer.put(batch, embeddings[batch.start : batch.stop], reads)


def make_store(folder: Path, plan: Plan, made_by: StoreSpec | None = None) -> Store:
    """The store in `folder`, new or continued."""
    made_by = made_by or spec()
    if not (folder / "zarr.json").exists():
        create_store(folder, plan, made_by, {"python": "3"})
    return open_to_continue(folder, plan, made_by)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, plan: Plan, encoded: list[bytes]) -> Path:
    """A finished store; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("finished") / "store.zarr"
    write(make_store(folder, plan), encoded)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store.zarr"))


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


@given(st.integers(1, 5000))
def test_chunks_divide_a_shard(rows_per_shard: int) -> None:
    rows = chunk_rows(rows_per_shard)
    assert rows_per_shard % rows == 0
    assert 1 <= rows <= CHUNK_ROWS
    assert not any(rows_per_shard % more == 0 for more in range(rows + 1, min(CHUNK_ROWS, rows_per_shard) + 1))


@pytest.mark.parametrize(("rows_per_shard", "batch_size"), [(7, 3), (22, 22), (1, 1), (21, 4)])
def test_any_shard_and_batch_size(
    tmp_path: Path, plan: Plan, encoded: list[bytes], rows_per_shard: int, batch_size: int
) -> None:
    store = make_store(tmp_path / "s.zarr", plan, spec(rows_per_shard=rows_per_shard, dtype="float32"))
    write(store, encoded, batch_size=batch_size)
    ok = store.first.ok_rows()
    assert len(ok) == ROWS - len(FAILED)
    for row in ok:
        np.testing.assert_array_equal(store.first.read_embedding(row), EMBEDDINGS[row])
    assert sum(len(store.first.ledger.rows(shard)) for shard in range(store.first.num_shards)) == ROWS
    assert sum(len(store.first.read_status(shard)) for shard in range(store.first.num_shards)) == ROWS


def test_a_plan_whose_numbers_are_all_zero_is_kept(tmp_path: Path) -> None:
    everything = made_up_plan(ROWS, PATCH_PX)
    one = replace(everything.slides[1], split=np.zeros(len(everything.slides[1].split), np.uint8))
    only_train = build_plan(everything.config, [one], [], Path("/nowhere"))
    store = make_store(tmp_path / "s.zarr", only_train, spec(pixels="none"))
    assert not (store.folder / "plan" / "split" / "c").exists()  # zarr writes no chunk of zeros
    assert store.plan.hash == only_train.hash
    np.testing.assert_array_equal(store.plan.split(), only_train.split())


def test_without_pixels_there_are_no_pixels(tmp_path: Path, plan: Plan, encoded: list[bytes]) -> None:
    store = make_store(tmp_path / "s.zarr", plan, spec(pixels="none"))
    write(store, encoded)
    assert not store.has_pixels
    assert not (tmp_path / "s.zarr" / "pixels").exists()
    assert {name.split("/")[0] for _, entry in store.first.ledger.entries() for name in (entry or {})["files"]} == {
        "embedding",
        "status",
    }


def test_what_is_not_finite_as_stored_is_a_failed_row(tmp_path: Path, plan: Plan, encoded: list[bytes]) -> None:
    embeddings = EMBEDDINGS.copy()
    embeddings[0, 1], embeddings[5, 2], embeddings[11, 0] = np.nan, -np.inf, 70000
    half = make_store(tmp_path / "half.zarr", plan)
    write(half, encoded, embeddings=embeddings)
    assert [f["row"] for f in half.first.ledger.failures() if f["status"] == "NOT_FINITE"] == [0, 5, 11]
    assert not set(half.first.ok_rows()) & {0, 5, 11}
    assert np.isnan(half.first.read_embedding(11)).all()
    assert "not finite as float16" in half.first.ledger.failures()[0]["reason"]
    single = make_store(tmp_path / "single.zarr", plan, spec(dtype="float32"))
    write(single, encoded, embeddings=embeddings)
    assert [f["row"] for f in single.first.ledger.failures() if f["status"] == "NOT_FINITE"] == [0, 5]
    assert single.first.read_embedding(11)[0] == 70000


def test_the_content_hash_covers_plan_teacher_and_files(finished: Path, copy: Path) -> None:
    store = Store(copy)
    assert store.first.content_hash() == Store(finished).first.content_hash()
    ledger = json.loads(store.first.ledger.path(1).read_text())
    store.first.ledger.path(1).write_text(json.dumps(ledger | {"seconds": 99.0, "device": "another"}))
    assert Store(copy).first.content_hash() == Store(finished).first.content_hash()
    ledger["files"]["status/c/1"]["sha256"] = "0" * 64
    store.first.ledger.path(1).write_text(json.dumps(ledger))
    assert Store(copy).first.content_hash() != Store(finished).first.content_hash()


# --- killed at any moment, and faults at any call -----------------------------------------------------------


class _Hooked(io.BufferedWriter):
    """A file that tells of every write before it is done."""

    before: Callable[[str], None]

    def write(self, data: Any, /) -> int:
        type(self).before("write")
        return super().write(data)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], None]], None]:
    """Have a function called with its name before every call that changes the disk, in the writer's thread or not."""

    def install(before: Callable[[str], None]) -> None:
        for name in ("replace", "rename", "fsync", "mkdir", "unlink"):
            real = getattr(os, name)

            def call(*args: Any, _name: str = name, _real: Any = real, **kwargs: Any) -> Any:
                before(_name)
                return None if _name == "fsync" else _real(*args, **kwargs)

            monkeypatch.setattr(os, name, call)
        kind = type("Hooked", (_Hooked,), {"before": staticmethod(before)})
        for module in ("pipeline.store.shards", "pipeline.disk.files"):
            monkeypatch.setattr(f"{module}.open", lambda path, _mode: kind(io.FileIO(path, "w")), raising=False)

    return install


def assert_sound(store: Store) -> None:
    """What the ledger claims is there, to the byte."""
    assert [
        problem for shard, entry in store.first.ledger.entries() if entry for problem in store.first.check_files(shard)
    ] == []


def test_whatever_the_moment_of_a_kill_the_next_run_gives_the_same_bytes(
    tmp_path: Path, finished: Path, plan: Plan, encoded: list[bytes], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is copied before each call that changes it: that is what a SIGKILL at this moment leaves."""
    live, moments = tmp_path / "live", tmp_path / "moments"
    store = make_store(live / "store.zarr", plan)
    names: list[str] = []
    copying = False

    def before(name: str) -> None:
        nonlocal copying
        if not copying:  # which makes folders as well
            copying = True
            shutil.copytree(live, moments / str(len(names)))
            names.append(name)
            copying = False

    hook(before)
    write(store, encoded)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert {"write", "fsync", "replace", "mkdir"} <= set(names)
    expected = array_files(finished)
    assert array_files(live / "store.zarr") == expected
    half_written = 0
    for moment in range(len(names)):
        folder = moments / str(moment)
        assert_sound(Store(folder / "store.zarr"))
        half_written += bool(leftovers(folder))
        again = make_store(folder / "store.zarr", plan)
        write(again, encoded)
        assert array_files(folder / "store.zarr") == expected
        assert leftovers(folder) == []
        assert_sound(again)
    assert half_written > 20


@pytest.mark.parametrize("name", ["write", "replace", "fsync", "mkdir"])
def test_a_fault_at_any_call_is_told_and_loses_nothing(
    name: str,
    tmp_path: Path,
    finished: Path,
    plan: Plan,
    encoded: list[bytes],
    hook: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, nth = array_files(finished), 0
    make_store(tmp_path / "empty" / "store.zarr", plan)
    while True:
        folder = shutil.copytree(tmp_path / "empty", tmp_path / str(nth))
        store = make_store(folder / "store.zarr", plan)
        left = nth

        def before(called: str) -> None:
            nonlocal left
            if called == name:
                left -= 1
                if left == -1:
                    raise OSError(errno.ENOSPC, "No space left on device")

        hook(before)
        told = ""
        try:
            write(store, encoded)
        except StoreError as error:
            told = str(error)
        monkeypatch.undo()
        if not told:
            break
        done = store.first.num_shards - len(store.first.ledger.pending())
        assert f"cannot write to {store.folder}: No space left on device. {done} of 3 shards are done" in told
        assert leftovers(folder) == []
        assert_sound(store)
        monkeypatch.setattr(os, "fsync", lambda _: None)
        write(make_store(folder / "store.zarr", plan), encoded)
        monkeypatch.undo()
        assert array_files(folder / "store.zarr") == expected
        nth += 1
    assert nth >= 9  # the fault came at each of this many calls


@pytest.mark.parametrize("name", ["rename", "mkdir", "fsync"])
def test_a_store_that_cannot_be_made_is_absent(
    name: str, tmp_path: Path, plan: Plan, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "place" / "store.zarr"
    folder.parent.mkdir()

    def before(called: str) -> None:
        if called == name:
            raise OSError(errno.ENOSPC, "No space left on device")

    hook(before)
    with pytest.raises(StoreError, match=r"cannot make the store .*store.zarr: No space left"):
        create_store(folder, plan, spec(), {})
    monkeypatch.undo()
    assert list(folder.parent.iterdir()) == []
    make_store(folder, plan)


def test_what_a_run_killed_while_making_a_store_left_is_cleared(tmp_path: Path, plan: Plan) -> None:
    folder = tmp_path / "store.zarr"
    aside = tmp_path / "store.zarr.g2l-part"
    (aside / "embedding").mkdir(parents=True)
    (aside / "zarr.json").write_text("{")
    make_store(folder, plan)
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


def test_continuing_clears_whatever_lies_half_written(copy: Path, plan: Plan, finished: Path) -> None:
    for name in ("shards/7.json", "pixels/c/7/0/0/0", "failures.csv"):
        path = copy / (name + ".g2l-part")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    open_to_continue(copy, plan, spec())
    assert leftovers(copy.parent) == []
    assert array_files(copy) == array_files(finished)


# --- the writer's thread ------------------------------------------------------------------------------------


class LosesTheFirstEnd:
    """A queue whose first `None` wakes nobody, as after an interrupt within `Condition.notify`."""

    def __init__(self, queue: Any) -> None:
        self.queue, self.lost = queue, False

    def get(self) -> Any:
        return self.queue.get()

    def put(self, item: Any) -> None:
        if item is None and not self.lost:
            self.lost = True
        else:
            self.queue.put(item)


@pytest.mark.timeout(60)
def test_a_lost_wake_up_does_not_hang(tmp_path: Path, plan: Plan) -> None:
    store = make_store(tmp_path / "store.zarr", plan)
    with StoreWriter(store.first, describe, "a machine") as writer:
        lossy = LosesTheFirstEnd(writer._queue)
        writer._queue = lossy  # type: ignore[assignment]
    assert lossy.lost
    assert not writer._thread.is_alive()


def test_the_writer_waits_on_nothing_that_an_interrupt_can_break(tmp_path: Path, plan: Plan) -> None:
    """`queue.Queue` is Python code: an interrupt within it can leave the other side waiting for good."""
    import queue

    with StoreWriter(make_store(tmp_path / "store.zarr", plan).first, describe, "a machine") as writer:
        assert isinstance(writer._queue, queue.SimpleQueue)
        assert isinstance(writer._places, queue.SimpleQueue)


@needs_mounts
def test_a_volume_becomes_a_store(tmp_path: Path, finished: Path, plan: Plan, encoded: list[bytes]) -> None:
    """As `docker -v` gives it: the folder itself is a mount point below one that may not be written."""
    with mounted("-t", "tmpfs", "none", at=tmp_path / "volume") as volume:
        with exclusive(volume, "me"):
            write(make_store(volume, plan), encoded)
        assert array_files(volume) == array_files(finished)
        assert leftovers(tmp_path) == []


def ok_reads(encoded: list[bytes], rows: range) -> list[PatchRead]:
    return [PatchRead(Status.OK, encoded[row]) for row in rows]


def test_any_error_of_the_writer_reaches_the_feeder_and_stops_nothing(
    tmp_path: Path, plan: Plan, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with far more batches than the queue holds, and an error that is no OSError."""
    store = make_store(tmp_path / "s.zarr", plan)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("in the thread")

    monkeypatch.setattr("pipeline.store.writer._OpenShard.add", fail)
    writer = StoreWriter(store.first, describe, "")

    def feed() -> None:
        with writer:
            for _ in range(3 * QUEUED_BATCHES):
                writer.put(range(4), EMBEDDINGS[:4], ok_reads(encoded, range(4)))

    with pytest.raises(ZeroDivisionError, match="in the thread"):
        feed()
    assert not writer._thread.is_alive()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("of the feeder")])
def test_an_error_of_the_feeder_discards_what_is_in_flight(
    tmp_path: Path, plan: Plan, encoded: list[bytes], error: BaseException
) -> None:
    store = make_store(tmp_path / "s.zarr", plan)

    def interrupted() -> None:
        with StoreWriter(store.first, describe, "") as writer:
            writer.put(range(4), EMBEDDINGS[:4], ok_reads(encoded, range(4)))
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert store.first.ledger.pending() == [0, 1, 2]
    assert leftovers(tmp_path) == []


def test_the_writer_counts_failures_as_they_are_put(tmp_path: Path, plan: Plan, encoded: list[bytes]) -> None:
    store = make_store(tmp_path / "s.zarr", plan)
    embeddings = EMBEDDINGS.copy()
    embeddings[2] = np.inf
    with StoreWriter(store.first, describe, "") as writer:
        writer.put(range(4), embeddings[:4], [*ok_reads(encoded, range(3)), PatchRead(Status.EMPTY, reason="bare")])
        assert writer.num_failures == 2
        assert writer.last_failure == {**describe(3), "status": "EMPTY", "reason": "bare"}


# --- refusals and damage ------------------------------------------------------------------------------------


def test_another_plan_teacher_or_setting_is_refused_by_name(copy: Path, plan: Plan) -> None:
    with pytest.raises(StoreError, match="plan_hash: ") as caught:
        open_to_continue(copy, made_up_plan(ROWS + 1, PATCH_PX), spec())
    assert "teacher." not in str(caught.value)
    other = StoreSpec(spec().teacher | {"weights_sha256": "2" * 64, "new": 1}, spec(dtype="float32").settings)
    with pytest.raises(StoreError, match="is not continued") as caught:
        open_to_continue(copy, plan, other)
    told = str(caught.value)
    assert f"teacher.weights_sha256: '{'1' * 64}' -> '{'2' * 64}'" in told
    assert "teacher.new: None -> 1" in told
    assert "settings.dtype: 'float16' -> 'float32'" in told
    assert "batch_size" not in told
    assert "plan_hash" not in told


def test_what_is_missing_of_a_store_under_other_versions_is_told(
    copy: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "zarr.json"
    record = json.loads(path.read_text())
    record["attributes"]["g2l"]["versions"] = {"imagecodecs": "1.0"}
    path.write_text(json.dumps(record))
    open_to_continue(copy, plan, spec())
    assert "other versions" not in capsys.readouterr().err  # it is finished: nothing is added
    Store(copy).first.ledger.path(0).unlink()
    open_to_continue(copy, plan, spec())
    assert f"imagecodecs 1.0 -> {metadata.version('imagecodecs')}" in capsys.readouterr().err


def test_weights_count_by_their_hash_and_not_by_their_name(tmp_path: Path, plan: Plan) -> None:
    def named(weights: str, sha: str = "1" * 64) -> StoreSpec:
        return StoreSpec(spec().teacher | {"weights": weights, "weights_sha256": sha}, spec().settings)

    make_store(tmp_path / "s.zarr", plan, named("a.safetensors"))
    assert open_to_continue(tmp_path / "s.zarr", plan, named("b.safetensors")).first.spec == named(
        "a.safetensors"
    )  # as recorded
    with pytest.raises(StoreError, match=r"teacher\.weights: 'a(.|\n)*teacher\.weights_sha256: "):
        open_to_continue(tmp_path / "s.zarr", plan, named("b.safetensors", "2" * 64))


def edit_attributes(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "zarr.json").read_text())
    edit(document["attributes"]["g2l"])
    (folder / "zarr.json").write_text(json.dumps(document))


def test_a_store_of_another_version_or_format_is_refused(copy: Path) -> None:
    edit_attributes(copy, lambda a: a.update(version=99))
    with pytest.raises(StoreError, match=r"format version 99; this program reads version 1"):
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


def test_absent_stores_and_damaged_metadata(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(StoreError, match=r"no such store. `g2l extract-teacher` makes one"):
        Store(tmp_path / "none")
    edit_attributes(copy, lambda a: a["settings"].pop("dtype"))
    with pytest.raises(StoreError, match="metadata are damaged"):
        Store(copy)


def damaged_plans() -> Iterator[tuple[str, Callable[[Path], object]]]:
    def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        edit_attributes(folder / "plan", change)

    yield "gone", lambda f: shutil.rmtree(f / "plan")
    yield "no record", lambda f: edit(f, lambda a: a.pop("slides"))
    yield "slide", lambda f: edit(f, lambda a: a["slides"][0].pop("geometry"))
    yield "split gone", lambda f: shutil.rmtree(f / "plan" / "split")
    yield "coords", lambda f: _flip(f / "plan" / "coords" / "c" / "0" / "0", 40)
    yield "coords cut", lambda f: _cut(f / "plan" / "coords" / "c" / "0" / "0")
    yield "hash", lambda f: edit_attributes(f, lambda a: a.update(plan_hash="0" * 64))


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(("name", "damage"), list(damaged_plans()), ids=[name for name, _ in damaged_plans()])
def test_a_damaged_plan_is_told(copy: Path, name: str, damage: Callable[[Path], object]) -> None:
    damage(copy)
    with pytest.raises((StoreError, PlanError), match="plan"):
        assert Store(copy).plan, name


@pytest.mark.parametrize("content", [b"{", b"null", b"[]", b"{}", b"\xff", b""])
def test_a_damaged_ledger_entry_is_told(copy: Path, content: bytes) -> None:
    Store(copy).first.ledger.path(1).write_bytes(content)
    with pytest.raises(StoreError, match=r"1.json: damaged ledger entry .* Delete it to redo the shard"):
        Store(copy).first.ledger.pending()


@pytest.mark.parametrize("name", ["embedding", "status", "pixels"])
def test_damaged_shard_files_are_found(copy: Path, name: str) -> None:
    store = Store(copy)
    path = store.first.shard_path(name, 1)
    relative = path.relative_to(copy)
    assert store.first.check_files(1) == []
    _flip(path, 5)
    assert store.first.check_files(1) == [f"{relative}: its bytes have changed (SHA-256 does not fit)"]
    fresh = Store(copy)
    with pytest.raises(StoreError, match=rf"{relative}: damaged \(checksum does not fit\)"):
        {
            "embedding": fresh.first.read_embeddings,
            "status": fresh.first.read_status,
            "pixels": lambda _: fresh.read_pixels(8),
        }[name](1)
    _cut(path)
    (problem,) = store.first.check_files(1)
    assert f"{relative}: {path.stat().st_size} bytes, {path.stat().st_size + 8} were written" in problem
    path.unlink()
    assert store.first.check_files(1) == [f"{relative}: missing"]
    assert store.first.check_files(0) == store.first.check_files(2) == []


def test_reading_a_row_of_a_pending_shard_is_told(tmp_path: Path, plan: Plan) -> None:
    store = make_store(tmp_path / "s.zarr", plan)
    assert store.first.ok_rows().tolist() == []
    assert store.first.ledger.status_counts()["ABSENT"] == ROWS
    for read in (store.first.read_embedding, store.read_pixels):
        with pytest.raises(StoreError, match="the shard file is missing"):
            read(0)
