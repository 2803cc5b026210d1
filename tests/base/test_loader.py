"""Batches read ahead: their order and content whatever the threads, their buffers, and errors in a read."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.cores import usable_cores
from pipeline.base.errors import ConfigError
from pipeline.base.images import BESIDE_BOUNDARY
from pipeline.base.loader import BATCHES_AHEAD, ROWS_PER_TASK, Batch, BatchLoader, one_by_one

CPU = torch.device("cpu")
Read = Callable[[int, NDArray[np.uint8]], int]


def fill(row: int, out: NDArray[np.uint8]) -> int:
    out[:] = row % 251
    return row * 10


def jittery(row: int, out: NDArray[np.uint8]) -> int:
    time.sleep((row * 7919 % 13) / 4000)
    return fill(row, out)


def loader(read: Read, *, batch_size: int = 5, workers: int = 3, patch_px: int = 4) -> BatchLoader[int]:
    return BatchLoader(one_by_one(read), patch_px=patch_px, batch_size=batch_size, workers=workers, device=CPU)


def is_whole(batch: Batch[int]) -> bool:
    expected = torch.tensor([row % 251 for row in batch.rows], dtype=torch.uint8)
    return bool((batch.pixels == expected[:, None, None, None]).all())


@pytest.mark.parametrize("workers", [1, 2, 5, 40])
@pytest.mark.parametrize("batch_size", [1, 5, 3 * ROWS_PER_TASK])
def test_order_and_content_do_not_depend_on_workers(workers: int, batch_size: int) -> None:
    order = np.random.default_rng(0).permutation(70).tolist()
    given = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    seen = []
    with loader(jittery, batch_size=batch_size, workers=workers) as reader:
        for batch in reader.batches(given):
            assert batch.results == [row * 10 for row in batch.rows]
            assert batch.pixels.shape == (len(batch.rows), 4, 4, 3)
            assert is_whole(batch)
            seen.append(list(batch.rows))
    assert seen == given


def test_rows_are_told_before_they_are_read() -> None:
    told: list[int] = []

    def read(row: int, out: NDArray[np.uint8]) -> int:
        assert row in told
        return fill(row, out)

    batches = [[3, 1], [2, 0], [5]]
    with BatchLoader(one_by_one(read), patch_px=4, batch_size=2, workers=2, device=CPU, ahead=told.extend) as reader:
        assert [list(batch.rows) for batch in reader.batches(batches)] == batches
    assert told == [3, 1, 2, 0, 5]


def test_a_batch_and_the_one_before_it_stay_whole_while_others_are_read() -> None:
    """Threads race ahead as far as they may; the consumer dawdles."""
    before: Batch[int] | None = None
    with loader(fill, batch_size=4, workers=4) as reader:
        for batch in reader.batches([range(i, i + 4) for i in range(0, 160, 4)]):
            time.sleep(0.002)
            assert is_whole(batch)
            assert before is None or is_whole(before)
            before = batch


@pytest.mark.parametrize("in_use", [2, 5])
def test_as_many_batches_stay_whole_as_are_in_use(in_use: int) -> None:
    used: deque[Batch[int]] = deque(maxlen=in_use)
    with BatchLoader(one_by_one(fill), patch_px=4, batch_size=4, workers=4, device=CPU, in_use=in_use) as reader:
        for batch in reader.batches([range(i, i + 4) for i in range(0, 160, 4)]):
            time.sleep(0.002)
            used.append(batch)
            assert all(is_whole(each) for each in used)


def test_it_reads_ahead_but_not_further_than_its_buffers() -> None:
    started: list[int] = []

    def read(row: int, out: NDArray[np.uint8]) -> int:
        started.append(row)
        return fill(row, out)

    with loader(read, batch_size=2, workers=2) as reader:
        batches = reader.batches([range(i, i + 2) for i in range(0, 100, 2)])
        first = next(batches)
        deadline = time.monotonic() + 10
        while len(started) < 2 * BATCHES_AHEAD and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert sorted(started) == list(range(2 * BATCHES_AHEAD))
        assert is_whole(first)


def test_a_buffer_is_filled_again_only_when_its_copy_is_done() -> None:
    """The event behind the copy to a GPU is waited for before any later read may touch the buffer."""
    waited: list[int] = []
    first_rows: dict[int, int] = {}

    class Event:
        def __init__(self, batch: Batch[int]) -> None:
            self.batch = batch

        def synchronize(self) -> None:
            time.sleep(0.002)
            assert is_whole(self.batch)
            waited.append(self.batch.rows[0])

    def read(row: int, out: NDArray[np.uint8]) -> int:
        address = out.__array_interface__["data"][0]
        if address in first_rows:
            assert first_rows[address] in waited
        first_rows[address] = row
        return fill(row, out)

    with loader(read, batch_size=1, workers=1) as reader:
        for batch in reader.batches([row] for row in range(30)):
            batch.copied = Event(batch)  # type: ignore[assignment]
    assert waited == list(range(29))
    assert len(first_rows) == BATCHES_AHEAD + 2


def test_an_error_in_a_read_is_raised_at_its_batch() -> None:
    def read(row: int, out: NDArray[np.uint8]) -> int:
        if row == 17:
            raise RuntimeError("row 17 is bad")
        return fill(row, out)

    seen: list[int] = []

    def consume() -> None:
        with loader(read) as reader:
            seen.extend(batch.rows[0] for batch in reader.batches([range(i, i + 5) for i in range(0, 40, 5)]))

    with pytest.raises(RuntimeError, match="row 17 is bad"):
        consume()
    assert seen == [0, 5, 10]


def test_leaving_by_an_interrupt_ends_the_threads_and_drops_what_waits() -> None:
    second, gate, seen = threading.Event(), threading.Event(), []

    def read(row: int, out: NDArray[np.uint8]) -> int:
        seen.append(row)
        if row >= 8:
            second.set()
            gate.wait(10)
        return fill(row, out)

    def interrupt() -> None:
        with loader(read, batch_size=8, workers=2) as reader:
            next(reader.batches([range(i, i + 8) for i in range(0, 800, 8)]))
            assert second.wait(10)
            threading.Timer(0.1, gate.set).start()
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert gate.is_set()  # what was being read came to its end
    assert 8 < len(seen) <= 8 + 2 * 4  # the first batch, and the tasks that two threads had begun
    assert threading.active_count() <= before + 1  # the timer may still be ending


def test_no_batches_give_none_and_a_loader_serves_twice() -> None:
    with loader(fill) as reader:
        assert list(reader.batches([])) == []
        assert [list(b.rows) for b in reader.batches([[1], [2]])] == [[1], [2]]
        assert [list(b.rows) for b in reader.batches([[3]])] == [[3]]


def test_pixels_move_to_a_device() -> None:
    with loader(fill) as reader:
        (batch,) = reader.batches([range(5)])
        moved = batch.pixels_on(CPU)
    assert torch.equal(moved, batch.pixels)
    assert batch.copied is None


def test_what_is_done_on_the_device_has_the_last_word() -> None:
    def doubled(rows: Sequence[int], pixels: Tensor) -> Tensor:
        told.append(list(rows))
        return pixels * 2

    told: list[list[int]] = []
    with BatchLoader(one_by_one(fill), patch_px=4, batch_size=5, workers=3, device=CPU, on_device=doubled) as reader:
        for batch in reader.batches([[1, 2, 3], [9]]):
            assert torch.equal(batch.pixels_on(CPU), batch.pixels * 2)
            assert is_whole(batch)
    assert told == [[1, 2, 3], [9]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_buffers_reach_the_gpu_whole() -> None:
    device = torch.device("cuda")
    with BatchLoader(one_by_one(fill), patch_px=64, batch_size=64, workers=4, device=device) as reader:
        for batch in reader.batches([range(i, i + 64) for i in range(0, 64 * 40, 64)]):
            torch.cuda._sleep(2_000_000)  # the copy waits in the stream while reads go on
            moved = batch.pixels_on(device)
            expected = torch.tensor([row % 251 for row in batch.rows], dtype=torch.uint8, device=device)
            assert batch.pixels.is_pinned()
            assert batch.copied is not None
            assert (moved == expected[:, None, None, None]).all()


def test_there_is_a_worker() -> None:
    assert usable_cores() >= 1


def test_rows_read_together_are_those_read_one_by_one() -> None:
    together: list[int] = []

    def read(rows: Sequence[int], out: NDArray[np.uint8]) -> list[int]:
        together.append(len(rows))
        return [fill(row, patch) for row, patch in zip(rows, out, strict=True)]

    order = list(range(0, 90, 3))
    with BatchLoader(read, patch_px=4, batch_size=10, workers=2, device=CPU) as reader:
        for batch in reader.batches([order[:10], order[10:20], order[20:]]):
            assert batch.results == [row * 10 for row in batch.rows]
            assert is_whole(batch)
        assert sorted(together) == [5] * 6
        for batch in reader.batches([order[:7], order[7:8]]):  # as the last of a shard: memory for as many as are read
            assert batch.results == [row * 10 for row in batch.rows]
            assert is_whole(batch)
    assert sorted(together) == [1, 2, *[5] * 7]


def test_batches_begin_where_jpeg_is_decoded_fast() -> None:
    with loader(fill, batch_size=2, patch_px=8) as batches:
        for batch in batches.batches([[1, 2]] * 6):
            assert batch.pixels.data_ptr() % 64 == BESIDE_BOUNDARY
            assert batch.pixels.is_contiguous()


def test_batches_that_memory_has_no_room_for_are_named() -> None:
    """Before anything is read: torch's own words were a traceback."""
    with pytest.raises(ConfigError, match=r"the 5 batches of 1000000000 patches .*, 753 TB\. Give a smaller --batch"):
        BatchLoader(lambda *_: [], patch_px=224, batch_size=10**9, workers=2, device=torch.device("cpu"))
