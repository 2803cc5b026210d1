"""The one loop that embeds: batches of patches, a forward pass in an arithmetic, results on the host.

Stage one, `embed`, `evaluate`, `verify`, the proof of an import and the scoring of a student all go through it. Rows
that could not be read never enter the model. On a GPU the host is one batch ahead: while a batch computes, the results
of the one before are fetched into pinned memory and used. On a CPU several batches compute at once, each in threads of
its own, as threads that share a batch wait for each other at every layer (docs/decisions/0067).
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.base.console import Progress
from pipeline.base.devices import autocast, describe_device, mark
from pipeline.base.loader import Batch, BatchLoader, ReadRows
from pipeline.base.memory import told_if_no_room
from pipeline.encoders.build import BuiltEncoder, Encoder

T = TypeVar("T")

MOST_AT_ONCE = 8
"""Batches that a CPU computes at once, if it has the cores; more cores share the batches. Our choice: memory grows with
them.
"""

ForwardPass = Callable[[Tensor], Tensor]
"""uint8 (B, P, P, 3) on the device -> float32 (B, D) there; of several views (B, K, P, P, 3) -> (B, K, D)."""


@dataclass(frozen=True, eq=False)
class EncoderForward:
    """A `ForwardPass`: a frozen encoder that is on `device`, in an arithmetic.

    Several views are a pass each: the first one is then, to the bit, that of a run without further views.
    """

    module: nn.Module
    device: torch.device
    precision: str

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            several = pixels.dim() == 5
            passes = [self.module(view) for view in (pixels.unbind(1) if several else [pixels])]
            embeddings = torch.stack(passes, 1) if several else passes[0]
        return torch.as_tensor(embeddings.float())


@dataclass(frozen=True, eq=False)
class EmbeddedBatch(Generic[T]):
    """One batch, embedded.

    Attributes:
        rows: the row numbers, in the loader's order.
        results: what the loader's reading function returned for each row.
        readable: positions of the R rows that could be read.
        embeddings: float32 (R, D), of several views (R, K, D), on the host.
    """

    rows: Sequence[int]
    results: list[T]
    readable: list[int]
    embeddings: Tensor

    def for_all_rows(self) -> NDArray[np.float32]:
        """float32 (B, D), of several views (B, K, D): NaN for rows that could not be read."""
        every = np.full((len(self.rows), *self.embeddings.shape[1:]), np.nan, np.float32)
        every[self.readable] = self.embeddings.numpy()
        return every


def batches_at_once(device: torch.device) -> int:
    """How many batches a device computes at once: on a CPU as many as torch uses threads, up to `MOST_AT_ONCE`; 1 on
    others, which queue them.
    """
    return min(torch.get_num_threads(), MOST_AT_ONCE) if device.type == "cpu" else 1


def embed_batches(
    forward: ForwardPass,
    batches: Iterable[Batch[T]],
    device: torch.device,
    *,
    width: int,
    no_room: str,
    is_readable: Callable[[T], bool] = lambda _: True,
    at_once: int = 1,
) -> Generator[EmbeddedBatch[T], None, None]:
    """Embed batches in order; each is given when `at_once` further ones have been started. A batch from `batches` is in
    use until then.

    Args:
        width: D, the dimension of an embedding, for batches of which no row could be read.
        no_room: what the user can do if the device has too little memory for a batch.
        is_readable: whether a row could be read, by what the loader's reading function returned for it.
        at_once: batches that are computed at the same time: more than 1 on a CPU only (`batches_at_once`), and only if
            the forward pass of one does not change that of another. Norms that gather statistics do, and a pass that
            several processes make together takes its turn.

    Raises:
        ConfigError: the device has too little memory for a batch.
    """
    waiting: deque[tuple[Batch[T], Callable[[], EmbeddedBatch[T]]]] = deque()

    def finish_oldest() -> EmbeddedBatch[T]:
        batch, finish = waiting.popleft()
        with told_if_no_room(partial(_words_on_room, device, len(batch.rows), no_room)):
            return finish()

    with _starter(forward, device, width, is_readable, at_once) as start:
        for batch in batches:
            with told_if_no_room(partial(_words_on_room, device, len(batch.rows), no_room)):
                waiting.append((batch, start(batch)))
            if len(waiting) > at_once:
                yield finish_oldest()
        while waiting:
            yield finish_oldest()


@contextmanager
def read_and_embed(
    forward: ForwardPass,
    read: ReadRows[T],
    row_batches: Iterable[Sequence[int]],
    device: torch.device,
    *,
    patch_px: int,
    batch_size: int,
    workers: int,
    width: int,
    no_room: str,
    is_readable: Callable[[T], bool] = lambda _: True,
    views: int = 1,
    ahead: Callable[[Sequence[int]], object] | None = None,
    at_once: int = 1,
) -> Iterator[Iterator[EmbeddedBatch[T]]]:
    """Read batches of rows in threads and embed them in order; gives the embedded batches. At the end of the block the
    threads end.

    Args:
        read, ahead: as for a `BatchLoader`.
        row_batches: the rows of each batch, at most `batch_size`.
        width, no_room, is_readable, at_once: as for `embed_batches`.
    """
    with BatchLoader(
        read,
        patch_px=patch_px,
        batch_size=batch_size,
        workers=workers,
        device=device,
        views=views,
        in_use=at_once + 1,
        ahead=ahead,
    ) as loader:
        batches = loader.batches(row_batches)
        embedded = embed_batches(
            forward, batches, device, width=width, no_room=no_room, is_readable=is_readable, at_once=at_once
        )
        with closing(embedded):
            yield embedded


def embed_rows(
    module: Encoder,
    read: ReadRows[Any],
    rows: Sequence[int],
    *,
    patch_px: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
    what: str,
    no_room: str = "Give a smaller --batch-size",
    ahead: Callable[[Sequence[int]], object] | None = None,
) -> NDArray[np.float32]:
    """Embed `rows` by a frozen encoder; float32 (N, D) in their order. `read` and `ahead`: as for a `BatchLoader`.

    Raises:
        ConfigError: the device has too little memory for a batch; `no_room` says what the user can do.
    """
    at_once = batches_at_once(device)
    size = max(1, min(batch_size, -(-len(rows) // at_once)))
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    found: list[NDArray[np.float32]] = []
    with (
        read_and_embed(
            EncoderForward(module, device, precision),
            read,
            parts,
            device,
            patch_px=patch_px,
            batch_size=size,
            workers=workers,
            width=module.spec.width,
            no_room=no_room,
            ahead=ahead,
            at_once=at_once,
        ) as batches,
        Progress(what, len(rows), "patches") as progress,
    ):
        for embedded in batches:
            found.append(embedded.embeddings.numpy().copy())  # a copy: pinned memory is not kept
            progress.step(len(embedded.rows))
    return np.concatenate(found)


def model_key(built: BuiltEncoder, precision: str) -> dict[str, Any]:
    """What an encoder's embedding of given pixels depends on: architecture, rule, statistics, weights, arithmetic."""
    return built.spec.deciding() | {"weights_sha256": built.weights_sha256, "precision": precision}


StartBatch = Callable[[Batch[T]], Callable[[], EmbeddedBatch[T]]]
"""Starts a batch; what it returns waits for the result."""


@contextmanager
def _starter(
    forward: ForwardPass, device: torch.device, width: int, is_readable: Callable[[T], bool], at_once: int
) -> Iterator[StartBatch[T]]:
    """How batches are started: in the calling thread, or `at_once` of them in threads that share those of torch."""
    if at_once == 1:

        def start(batch: Batch[T]) -> Callable[[], EmbeddedBatch[T]]:
            return partial(_finish, _start(forward, batch, device, width, is_readable), mark(device))

        yield start
        return
    threads = torch.get_num_threads()
    share = max(threads // at_once, 1)
    pool = ThreadPoolExecutor(at_once, "g2l-forward", initializer=torch.set_num_threads, initargs=(share,))
    try:
        yield lambda batch: pool.submit(_start, forward, batch, device, width, is_readable).result
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the pool's number is also that of threads to come


def _words_on_room(device: torch.device, num_patches: int, no_room: str) -> str:
    """That a batch is too large for the device, and what to do."""
    return f"{describe_device(device)} has no room for batches of {num_patches} patches. {no_room}"


def _start(
    forward: ForwardPass, batch: Batch[T], device: torch.device, width: int, is_readable: Callable[[T], bool]
) -> EmbeddedBatch[T]:
    """Start a batch; on a GPU its embeddings are on the host once a `mark` made after this has passed."""
    readable = [i for i, result in enumerate(batch.results) if is_readable(result)]
    if not readable:
        return EmbeddedBatch(batch.rows, batch.results, readable, torch.empty((0, *batch.pixels.shape[1:-3], width)))
    pixels = batch.pixels_on(device)
    if len(readable) < len(batch.rows):
        pixels = pixels[torch.tensor(readable, device=device)]
    on_host = forward(pixels).to("cpu", non_blocking=device.type == "cuda")  # into pinned memory
    return EmbeddedBatch(batch.rows, batch.results, readable, on_host)


def _finish(embedded: EmbeddedBatch[T], ready: torch.cuda.Event | None) -> EmbeddedBatch[T]:
    """Wait until the embeddings are on the host."""
    if ready is not None:
        ready.synchronize()
    return embedded
