"""Read batches of patches in threads, ahead of the model.

Threads suffice: OpenSlide, Pillow and the image codecs release the interpreter lock, and a killed run leaves no orphan
processes. The caller sets the order of batches and rows; the number of threads does not change it. Memory is a fixed
ring of batch buffers, pinned for a GPU.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.devices import mark
from pipeline.base.errors import ConfigError
from pipeline.base.images import BESIDE_BOUNDARY
from pipeline.base.units import format_bytes

T = TypeVar("T")

ROWS_PER_TASK = 8
"""Most rows that one thread reads per task. Our choice: neighbours share tiles, and a task costs little next to 8
patches.
"""
BATCHES_AHEAD = 3

ReadRows = Callable[[Sequence[int], NDArray[np.uint8]], list[T]]
"""Reads rows into uint8 (N, P, P, 3), of several views (N, K, P, P, 3); returns a result for each. Neighbours that are
read together may cost less."""
OnDevice = Callable[[Sequence[int], Tensor], Tensor]
"""What is done with a batch's pixels on the device: from the rows and their pixels, to pixels, in
other memory where they change."""


@dataclass
class Batch(Generic[T]):
    """One batch.

    Attributes:
        rows: the row numbers, in the caller's order.
        pixels: uint8 (B, P, P, 3) or (B, K, P, P, 3), a view of a buffer; valid while it is one of the last `in_use`
            batches of the loader.
        results: what the reading function returned for each row.
        on_device: what is done with the pixels on the device, given the rows.
    """

    rows: Sequence[int]
    pixels: Tensor
    results: list[T]
    on_device: OnDevice | None = field(default=None, repr=False)
    copied: torch.cuda.Event | None = field(default=None, repr=False)

    def pixels_on(self, device: torch.device) -> Tensor:
        """The pixels on `device`, copied asynchronously from pinned memory to a GPU, after `on_device`."""
        moved = self.pixels.to(device, non_blocking=device.type == "cuda")
        self.copied = mark(device)
        return moved if self.on_device is None else self.on_device(self.rows, moved)


def one_by_one(read: Callable[[int, NDArray[np.uint8]], T]) -> ReadRows[T]:
    """Reads rows one after the other with `read`, which fills uint8 (P, P, 3) and returns a result."""

    def read_rows(rows: Sequence[int], out: NDArray[np.uint8]) -> list[T]:
        return [read(row, patch) for row, patch in zip(rows, out, strict=True)]

    return read_rows


class BatchLoader(Generic[T]):
    """Reads batches ahead with `read`, which gets at most `ROWS_PER_TASK` rows in a call. A batch's pixels are
    uint8 (B, P, P, 3), with several views (B, K, P, P, 3).

    `in_use` is how many batches, at least 2, the consumer uses at the same time.

    `ahead(rows)`, if given, is told of the rows of a batch before they are read, and `on_device` has the last word on
    what a batch's pixels are on the device.

    An exception in `read` reaches the consumer at that batch. Use as a context manager, which ends the threads.

    Raises:
        ConfigError: there is too little memory for the batches that are read ahead.
    """

    def __init__(
        self,
        read: ReadRows[T],
        *,
        patch_px: int,
        batch_size: int,
        workers: int,
        device: torch.device,
        views: int = 1,
        in_use: int = 2,
        ahead: Callable[[Sequence[int]], object] | None = None,
        on_device: OnDevice | None = None,
    ) -> None:
        self._read = read
        self._ahead = ahead
        self._on_device = on_device
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="g2l-read")
        self._rows_per_task = max(1, min(ROWS_PER_TASK, batch_size // workers))
        self._in_use = in_use
        shape = (BATCHES_AHEAD + in_use, batch_size, *([views] if views > 1 else []), patch_px, patch_px, 3)
        try:
            memory = torch.empty(prod(shape) + BESIDE_BOUNDARY, dtype=torch.uint8, pin_memory=device.type == "cuda")
        except RuntimeError as error:
            raise ConfigError(
                f"too little memory for the {shape[0]} batches of {batch_size} patches that are read ahead, "
                f"{format_bytes(prod(shape))}. Give a smaller --batch-size"
            ) from error
        self._buffers = memory[BESIDE_BOUNDARY:].view(shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, rows: Sequence[int], buffer: Tensor) -> list[Future[list[T]]]:
        if self._ahead:
            self._ahead(rows)
        out, step = buffer[: len(rows)].numpy(), self._rows_per_task
        return [
            self._pool.submit(self._read, rows[start : start + step], out[start : start + step])
            for start in range(0, len(rows), step)
        ]

    def batches(self, row_batches: Iterable[Sequence[int]]) -> Iterator[Batch[T]]:
        """Yield the batches in order. Requesting a batch ends the use of the one `in_use` before it."""
        pending: deque[tuple[Sequence[int], Tensor, list[Future[list[T]]]]] = deque()
        yielded: deque[Batch[T]] = deque()
        source = iter(row_batches)
        count = 0
        while True:
            while len(pending) <= BATCHES_AHEAD - 1 and (rows := next(source, None)) is not None:
                buffer = self._buffers[count % len(self._buffers)]
                pending.append((rows, buffer, self._submit(rows, buffer)))
                count += 1
            if not pending:
                return
            rows, buffer, futures = pending.popleft()
            results = [result for future in futures for result in future.result()]
            batch = Batch(rows, buffer[: len(rows)], results, self._on_device)
            yield batch
            yielded.append(batch)
            if len(yielded) >= self._in_use and (event := yielded.popleft().copied) is not None:
                event.synchronize()  # its buffer may be refilled from here on
