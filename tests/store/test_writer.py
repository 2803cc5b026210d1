"""The writer: shards complete or absent at every moment, faults told, and no thread left waiting."""

import csv
import errno
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import leftovers
from support.extraction import array_files
from support.failing import failing
from support.store_writing import EMBEDDINGS, FAILED, ROWS, WIDTH, continued_store, describe, spec, write_pending

from pipeline.base.errors import StoreError
from pipeline.cohort.plan import Plan
from pipeline.store.format import Status
from pipeline.store.ledger import Ledger
from pipeline.store.patches import PatchRead
from pipeline.store.store import Store
from pipeline.store.writer import (
    QUEUED_BATCHES,
    QUEUED_ROWS,
    ROWS_A_PLACE,
    StoreWriter,
    _OpenShard,
    places_of,
    row_batches,
    warn_of_disk,
    write_failures,
)


@pytest.mark.parametrize(("rows_per_shard", "batch_size"), [(7, 3), (22, 22), (1, 1), (21, 4)])
def test_any_shard_and_batch_size(
    tmp_path: Path, plan: Plan, encoded: list[bytes], rows_per_shard: int, batch_size: int
) -> None:
    store = continued_store(tmp_path / "s.zarr", plan, spec(rows_per_shard=rows_per_shard, dtype="float32"))
    write_pending(store, encoded, batch_size=batch_size)
    ok = store.first.ok_rows()
    assert len(ok) == ROWS - len(FAILED)
    for row in ok:
        np.testing.assert_array_equal(store.first.read_embedding(row), EMBEDDINGS[row])
    assert sum(len(store.first.ledger.rows(shard)) for shard in range(store.first.num_shards)) == ROWS
    assert sum(len(store.first.read_status(shard)) for shard in range(store.first.num_shards)) == ROWS


def test_what_is_not_finite_as_stored_is_a_failed_row(tmp_path: Path, plan: Plan, encoded: list[bytes]) -> None:
    embeddings = EMBEDDINGS.copy()
    embeddings[0, 1], embeddings[5, 2], embeddings[11, 0] = np.nan, -np.inf, 70000
    half = continued_store(tmp_path / "half.zarr", plan)
    write_pending(half, encoded, embeddings=embeddings)
    assert [f["row"] for f in half.first.ledger.failures() if f["status"] == "NOT_FINITE"] == [0, 5, 11]
    assert not set(half.first.ok_rows()) & {0, 5, 11}
    assert np.isnan(half.first.read_embedding(11)).all()
    reasons = {f["row"]: f["reason"] for f in half.first.ledger.failures() if f["status"] == "NOT_FINITE"}
    assert reasons[0] == "the teacher's embedding is not finite as float16: it has NaN or infinity"
    assert reasons[11].endswith("float16: its largest value is 7e+04. A new store with --dtype float32 holds it")
    single = continued_store(tmp_path / "single.zarr", plan, spec(dtype="float32"))
    write_pending(single, encoded, embeddings=embeddings)
    assert [f["row"] for f in single.first.ledger.failures() if f["status"] == "NOT_FINITE"] == [0, 5]
    assert single.first.read_embedding(11)[0] == 70000


def test_the_seconds_of_shards_are_those_of_the_run(
    tmp_path: Path, plan: Plan, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its start, with what passes before a shard's first rows are there: a rate by them is the run's. By a clock
    that only the teacher moves, 10 s a batch.
    """
    now = 0.0
    monkeypatch.setattr("pipeline.store.writer.time", SimpleNamespace(monotonic=lambda: now))
    store = continued_store(tmp_path / "s.zarr", plan, spec(rows_per_shard=8))
    committed = threading.Semaphore(0)
    with StoreWriter(store.first, describe, "a machine", lambda shard: committed.release()) as writer:
        for shard in store.first.ledger.pending():
            rows = store.first.ledger.rows(shard)
            for start in range(rows.start, rows.stop, 4):
                now += 10.0
                batch = range(start, min(start + 4, rows.stop))
                reads = [PatchRead(Status.OK, encoded[row]) for row in batch]
                writer.put(batch, EMBEDDINGS[batch.start : batch.stop], reads)
            committed.acquire()
    assert [entry["seconds"] for _, entry in store.first.ledger.entries() if entry] == [20.0, 20.0, 20.0]
    assert store.first.ledger.seconds() == now == 60.0


def assert_sound(store: Store) -> None:
    """What the ledger claims is there, to the byte."""
    assert [
        problem for shard, entry in store.first.ledger.entries() if entry for problem in store.first.check_files(shard)
    ] == []


@pytest.mark.slow
def test_whatever_the_moment_of_a_kill_the_next_run_gives_the_same_bytes(
    tmp_path: Path, finished: Path, plan: Plan, encoded: list[bytes], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is copied before each call that changes it: that is what a SIGKILL at this moment leaves."""
    live, moments = tmp_path / "live", tmp_path / "moments"
    store = continued_store(live / "store.zarr", plan)
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
    write_pending(store, encoded)
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
        again = continued_store(folder / "store.zarr", plan)
        write_pending(again, encoded)
        assert array_files(folder / "store.zarr") == expected
        assert leftovers(folder) == []
        assert_sound(again)
    assert half_written > 20


@pytest.mark.slow
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
    continued_store(tmp_path / "empty" / "store.zarr", plan)
    while True:
        folder = shutil.copytree(tmp_path / "empty", tmp_path / str(nth))
        store = continued_store(folder / "store.zarr", plan)
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
            write_pending(store, encoded)
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
        write_pending(continued_store(folder / "store.zarr", plan), encoded)
        monkeypatch.undo()
        assert array_files(folder / "store.zarr") == expected
        nth += 1
    assert nth >= 9  # the fault came at each of this many calls


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


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_lost_wake_up_does_not_hang(tmp_path: Path, plan: Plan) -> None:
    store = continued_store(tmp_path / "store.zarr", plan)
    with StoreWriter(store.first, describe, "a machine") as writer:
        lossy = LosesTheFirstEnd(writer._queue)
        writer._queue = lossy  # type: ignore[assignment]
    assert lossy.lost
    assert not writer._thread.is_alive()


def test_the_writer_waits_on_nothing_that_an_interrupt_can_break(tmp_path: Path, plan: Plan) -> None:
    """`queue.Queue` is Python code: an interrupt within it can leave the other side waiting for good."""
    import queue

    with StoreWriter(continued_store(tmp_path / "store.zarr", plan).first, describe, "a machine") as writer:
        assert isinstance(writer._queue, queue.SimpleQueue)
        assert isinstance(writer._places, queue.SimpleQueue)


@pytest.mark.parametrize("num_rows", [1, 63, 64, 65, 100, 256, 1000, 5000])
def test_a_few_batches_of_any_size_and_many_small_ones_wait_for_the_disk(num_rows: int) -> None:
    """Only so many rows, unless these are fewer than a few batches; never more places than there are."""
    fit = QUEUED_ROWS // ROWS_A_PLACE // places_of(num_rows)
    assert fit >= QUEUED_BATCHES
    assert fit * num_rows <= QUEUED_ROWS or fit == QUEUED_BATCHES


def ok_reads(encoded: list[bytes], rows: range) -> list[PatchRead]:
    return [PatchRead(Status.OK, encoded[row]) for row in rows]


def test_any_error_of_the_writer_reaches_the_feeder_and_stops_nothing(
    tmp_path: Path, plan: Plan, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with far more batches than the queue holds, and an error that is no OSError."""
    store = continued_store(tmp_path / "s.zarr", plan)
    monkeypatch.setattr("pipeline.store.writer._OpenShard.add", failing(ZeroDivisionError("in the thread")))
    writer = StoreWriter(store.first, describe, "")

    def feed() -> None:
        with writer:
            for _ in range(3 * QUEUED_ROWS // ROWS_A_PLACE):
                writer.put(range(4), EMBEDDINGS[:4], ok_reads(encoded, range(4)))

    with pytest.raises(ZeroDivisionError, match="in the thread"):
        feed()
    assert not writer._thread.is_alive()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("of the feeder")])
def test_an_error_of_the_feeder_discards_what_is_in_flight(
    tmp_path: Path, plan: Plan, encoded: list[bytes], error: BaseException
) -> None:
    store = continued_store(tmp_path / "s.zarr", plan)

    def interrupted() -> None:
        with StoreWriter(store.first, describe, "") as writer:
            writer.put(range(4), EMBEDDINGS[:4], ok_reads(encoded, range(4)))
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert store.first.ledger.pending() == [0, 1, 2]
    assert leftovers(tmp_path) == []


def test_a_run_that_stops_itself_keeps_the_whole_shards_that_it_has_put(
    tmp_path: Path, plan: Plan, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the disk is behind when the run stops, as with too many failures."""
    store = continued_store(tmp_path / "s.zarr", plan)
    add, may_go_on = _OpenShard.add, threading.Event()

    def behind(self: _OpenShard, rows: Any) -> None:
        assert may_go_on.wait(60)
        add(self, rows)

    monkeypatch.setattr(_OpenShard, "add", behind)

    def stopped() -> None:
        with StoreWriter(store.first, describe, "") as writer:
            for rows in row_batches(store.first, [0], 4):
                writer.put(rows, EMBEDDINGS[rows.start : rows.stop], ok_reads(encoded, rows))
            rows = next(row_batches(store.first, [1], 4))
            writer.put(rows, EMBEDDINGS[rows.start : rows.stop], ok_reads(encoded, rows))
            threading.Timer(0.2, may_go_on.set).start()
            raise StoreError("too many")

    with pytest.raises(StoreError, match="too many"):
        stopped()
    assert store.first.ledger.pending() == [1, 2]
    assert leftovers(tmp_path) == []
    assert_sound(store)


def test_the_writer_counts_failures_as_they_are_put(tmp_path: Path, plan: Plan, encoded: list[bytes]) -> None:
    store = continued_store(tmp_path / "s.zarr", plan)
    embeddings = EMBEDDINGS.copy()
    embeddings[2] = np.inf
    with StoreWriter(store.first, describe, "") as writer:
        writer.put(range(4), embeddings[:4], [*ok_reads(encoded, range(3)), PatchRead(Status.EMPTY, reason="bare")])
        assert writer.num_failures == 2
        assert writer.last_failure == {**describe(3), "status": "EMPTY", "reason": "bare"}


def test_each_shard_is_told_once_it_is_in_the_ledger(tmp_path: Path, plan: Plan) -> None:
    teacher = continued_store(tmp_path / "store.zarr", plan).first
    told: list[tuple[int, bool]] = []

    def committed(shard: int) -> None:
        told.append((shard, teacher.ledger.read(shard) is not None))

    with StoreWriter(teacher, describe, "", committed) as writer:
        for rows in row_batches(teacher, [1, 0], 4):
            writer.put(rows, np.zeros((len(rows), teacher.width), np.float32), [PatchRead(Status.NO_SLIDE)] * len(rows))
    assert told == [(1, True), (0, True)]


def test_batches_never_straddle_shards(finished: Path) -> None:
    store = Store(finished)
    batches = list(row_batches(store.first, [0, 2], 3))
    assert [list(b) for b in batches] == [[0, 1, 2], [3, 4, 5], [6, 7], [16, 17, 18], [19, 20, 21]]


@given(st.integers(1, 23))
def test_batches_are_all_rows_of_their_shards_in_order(batch_size: int) -> None:
    teacher = SimpleNamespace(ledger=Ledger(Path("nowhere"), ROWS, 8))
    batches = list(row_batches(teacher, range(3), batch_size))  # type: ignore[arg-type]
    assert [row for batch in batches for row in batch] == list(range(ROWS))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert all(batch[0] // 8 == batch[-1] // 8 for batch in batches)


def test_failed_rows_are_listed_beside_the_arrays_while_there_are_some(copy: Path) -> None:
    first, path = Store(copy).first, copy / "failures.csv"
    write_failures(first)
    with open(path, newline="") as f:
        listed = list(csv.DictReader(f))
    assert [(int(line["row"]), line["status"]) for line in listed] == [(row, s.name) for row, s in FAILED.items()]
    assert {line["reason"] for line in listed} == {"a reason"}
    for shard in range(first.num_shards):
        first.ledger.forget(shard)
    write_failures(first)
    assert not path.exists()
    write_failures(first)  # and once more, where there is no file


@pytest.mark.parametrize(("free", "is_told"), [(ROWS * WIDTH * 2, False), (ROWS * WIDTH * 2 - 1, True)])
def test_a_disk_without_room_for_the_embeddings_is_told(
    tmp_path: Path,
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    free: int,
    is_told: bool,
) -> None:
    """Two bytes a number; without pixels there is nothing else to speak of."""
    store = continued_store(tmp_path / "s.zarr", plan, spec(pixels="none"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    warn_of_disk(store.first, plan, ROWS)
    assert capsys.readouterr().err.startswith("warning: about 264 B") == is_told
