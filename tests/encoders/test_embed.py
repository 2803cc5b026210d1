"""The one loop that embeds: what enters the model, in which order results are given, and what a full device says."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.extraction import PATCH_PX, TEACHER, write_teacher
from support.failing import failing
from support.pixels import noise

from pipeline.base.devices import autocast
from pipeline.base.errors import ConfigError
from pipeline.base.loader import Batch, one_by_one
from pipeline.config.model_names import SCRATCH
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.embed import (
    MOST_AT_ONCE,
    EncoderForward,
    batches_at_once,
    embed_batches,
    embed_rows,
    model_key,
    read_and_embed,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltEncoder:
    weights: Path = write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")
    return build_encoder(TEACHER, weights, PATCH_PX)


def patches(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, PATCH_PX, PATCH_PX, 3), dtype=torch.uint8, generator=generator)


def embed(forward: Any, *batches: Batch[bool], width: int) -> list[Any]:
    """The batches, embedded; a row could be read if its result is true."""
    return list(embed_batches(forward, batches, CPU, width=width, no_room="Advice", is_readable=bool))


def test_rows_that_could_not_be_read_never_enter_the_model(built: BuiltEncoder) -> None:
    seen: list[torch.Tensor] = []
    hook = built.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    pixels = patches(4)
    some = Batch(range(4, 8), pixels, [True, False, True, False])
    none = Batch(range(8, 10), pixels[:2], [False, False])
    done = embed(EncoderForward(built.module, CPU, "float32"), some, none, width=built.spec.width)
    hook.remove()
    assert [list(each.rows) for each in done] == [[4, 5, 6, 7], [8, 9]]
    assert len(seen) == 1
    assert torch.equal(seen[0], pixels[[0, 2]])
    with torch.inference_mode():
        expected = built.module(pixels[[0, 2]])
    assert torch.equal(done[0].embeddings, expected)
    every = done[0].for_all_rows()
    assert np.isnan(every[[1, 3]]).all()
    assert np.array_equal(every[[0, 2]], expected.numpy())
    assert done[1].embeddings.shape == (0, built.spec.width)
    assert np.isnan(done[1].for_all_rows()).all()
    assert done[1].for_all_rows().shape == (2, built.spec.width)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_several_views_are_a_pass_each(built: BuiltEncoder, precision: str) -> None:
    pixels = patches(3, 4)
    results = [True, False, True]
    (done,) = embed(EncoderForward(built.module, CPU, precision), Batch(range(3), pixels, results), width=96)
    assert done.embeddings.shape == (2, 4, built.spec.width)
    assert done.embeddings.dtype == torch.float32
    for view in range(4):
        with torch.inference_mode(), autocast(CPU, precision):
            expected = built.module(pixels[[0, 2], view])
        assert torch.equal(done.embeddings[:, view], expected.float())
    (none,) = embed(EncoderForward(built.module, CPU, precision), Batch(range(3), pixels, [False] * 3), width=96)
    assert none.for_all_rows().shape == (3, 4, 96)


def test_each_batch_is_given_when_the_next_one_has_been_started() -> None:
    log: list[str] = []

    def make() -> Iterator[Batch[bool]]:
        for i in range(3):
            yield Batch([i], torch.full((1, 2, 2, 3), i, dtype=torch.uint8), [True])

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        log.append(f"start {int(pixels.flatten()[0])}")
        return pixels.float().mean((1, 2))

    for embedded in embed_batches(forward, make(), CPU, width=3, no_room=""):
        log.append(f"take {embedded.rows[0]}")
        assert embedded.embeddings.tolist() == [[embedded.rows[0]] * 3]
    assert log == ["start 0", "start 1", "take 0", "start 2", "take 1", "take 2"]
    assert list(embed_batches(forward, [], CPU, width=3, no_room="")) == []


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_device_without_room_for_a_batch_is_told(at_once: int, error: Exception) -> None:
    batch = Batch(range(4), patches(4), [True] * 4)
    with pytest.raises(ConfigError, match=r"has no room for batches of 4 patches\. Advice"):
        list(embed_batches(failing(error), [batch], CPU, width=3, no_room="Advice", at_once=at_once))


@contextmanager
def torch_threads(num: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "at_once", "share"), [(4, 4, 1), (7, 3, 2), (1, 2, 1)])
def test_batches_compute_at_once_and_are_given_in_order(threads: int, at_once: int, share: int) -> None:
    """Each in its share of torch's threads; the earliest batches take the longest."""
    together = threading.Barrier(at_once, timeout=30)
    shares: list[int] = []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        shares.append(torch.get_num_threads())
        number = int(pixels.flatten()[0])
        if number < at_once:
            together.wait()
            time.sleep(0.01 * (at_once - number))
        return pixels.float().mean((1, 2))

    batches = [Batch([i], torch.full((1, 2, 2, 3), i, dtype=torch.uint8), [True]) for i in range(9)]
    with torch_threads(threads):
        done = list(embed_batches(forward, batches, CPU, width=3, no_room="", at_once=at_once))
        assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == threads  # also of threads to come
    assert [embedded.embeddings.tolist() for embedded in done] == [[[i] * 3] for i in range(9)]
    assert shares == [share] * 9


def test_batches_in_use_stay_whole_while_others_are_read() -> None:
    """The forward pass dawdles, and finds what was read for its batch."""

    def read(row: int, out: np.ndarray) -> int:
        out[:] = row
        return row

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(0.002)
        return pixels.float().amax((1, 2))

    options: dict[str, Any] = {"patch_px": 2, "batch_size": 2, "workers": 2, "width": 3, "no_room": ""}
    rows = [[i, i + 1] for i in range(0, 120, 2)]
    options |= {"is_readable": lambda _: True, "at_once": 3}
    with torch_threads(3), read_and_embed(forward, one_by_one(read), rows, CPU, **options) as batches:
        assert [row for embedded in batches for row in embedded.embeddings[:, 0].tolist()] == list(range(120))


def test_leaving_ends_the_threads_that_compute() -> None:
    def computing() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("g2l-forward")]

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        if int(pixels.flatten()[0]) == 1:
            raise ValueError("of the model")
        return pixels.float().mean((1, 2))

    batches = [Batch([i], torch.full((1, 2, 2, 3), i, dtype=torch.uint8), [True]) for i in range(9)]
    some = embed_batches(forward, batches, CPU, width=3, no_room="", at_once=3)
    assert next(some).rows == [0]
    assert computing()
    with pytest.raises(ValueError, match="of the model"):
        next(some)
    assert not computing()
    others = embed_batches(forward, batches[2:], CPU, width=3, no_room="", at_once=3)
    next(others)
    others.close()
    assert not computing()


def test_a_cpu_computes_as_many_batches_as_torch_has_threads() -> None:
    for threads, at_once in ((1, 1), (2, 2), (64, MOST_AT_ONCE)):
        with torch_threads(threads):
            assert batches_at_once(CPU) == at_once
            assert batches_at_once(torch.device("cuda")) == 1


def test_threads_read_ahead_and_end_with_the_block() -> None:
    def reading() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("g2l-read")]

    def read(row: int, out: np.ndarray) -> bool:
        out[:] = row
        return row != 1

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean((1, 2))

    def write() -> None:
        options: dict[str, Any] = {"patch_px": 2, "batch_size": 2, "workers": 2, "width": 3, "no_room": ""}
        with read_and_embed(forward, one_by_one(read), [[0, 1], [2]], CPU, is_readable=bool, **options) as batches:
            first = next(batches)
            assert (first.rows, first.results, first.readable) == ([0, 1], [True, False], [0])
            assert reading()
            assert next(batches).embeddings.tolist() == [[2.0] * 3]
            raise RuntimeError("the writer fails")

    with pytest.raises(RuntimeError, match="the writer fails"):
        write()
    assert not reading()


def test_the_key_is_of_what_the_numbers_depend_on(tmp_path: Path) -> None:
    built = build_encoder(TEACHER, SCRATCH, PATCH_PX)
    key = model_key(built, "float32")
    assert key == model_key(replace(built, weights="elsewhere.safetensors"), "float32")
    assert key != model_key(built, "bfloat16")
    assert key != model_key(build_encoder(TEACHER, SCRATCH, PATCH_PX, seed=1), "float32")
    other_mean = replace(built, spec=replace(built.spec, mean=(0.1, 0.2, 0.3)))
    assert key != model_key(other_mean, "float32")


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_rows_are_embedded_in_their_order(tmp_path: Path, batch_size: int) -> None:
    weights = write_teacher(tmp_path / "t.safetensors")
    module = build_encoder(TEACHER, weights, PATCH_PX).module
    patches = noise(9, PATCH_PX, PATCH_PX, 3)

    def read(row: int, out: np.ndarray) -> None:
        out[:] = patches[row]

    rows = [4, 0, 8, 1, 2, 3, 5]
    found = embed_rows(
        module,
        one_by_one(read),
        rows,
        patch_px=PATCH_PX,
        batch_size=batch_size,
        workers=2,
        device=torch.device("cpu"),
        precision="float32",
        what="test",
    )
    with torch.inference_mode():
        expected = module(torch.from_numpy(patches[rows])).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_results_lie_in_pinned_memory_and_equal_those_without_the_loop(built: BuiltEncoder) -> None:
    device = torch.device("cuda")
    module = build_encoder(TEACHER, "scratch", PATCH_PX).module.to(device)
    batches = [Batch(range(4), patches(4, seed=seed), [True] * 4) for seed in range(5)]
    forward = EncoderForward(module, device, "float32")
    done = list(embed_batches(forward, batches, device, width=built.spec.width, no_room=""))
    for embedded, batch in zip(done, batches, strict=True):
        assert embedded.embeddings.is_pinned()
        assert torch.equal(embedded.embeddings, forward(batch.pixels.to(device)).cpu())
