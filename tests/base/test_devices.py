"""Choices of device, arithmetic and batch, and the words for those that cannot be had."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info

from pipeline.base.devices import (
    CPU_BATCH,
    MAX_BATCH,
    TF32,
    HostCopy,
    autocast,
    choose_batch_size,
    choose_device,
    choose_precision,
    continued_precision,
    describe_device,
    mark,
    one_thread,
    sent,
    use_deterministic_kernels,
    use_tf32,
)
from pipeline.base.errors import ConfigError, first_line
from pipeline.base.versions import versions
from pipeline.encoders.embed import EncoderForward

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "cpu:x", "meta"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {name}: not usable here"):
        choose_device(name)


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    ("name", "device", "chosen"),
    [
        ("auto", "cpu", "float32"),
        ("auto", "cuda", "bfloat16"),
        ("auto", "mps", "float32"),
        ("bfloat16", "cpu", "bfloat16"),
        ("float16", "cuda", "float16"),
    ],
)
def test_precision(name: str, device: str, chosen: str) -> None:
    assert choose_precision(name, torch.device(device)) == chosen


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="--precision float16 needs a GPU"):
        choose_precision("float16", CPU)


def test_autocast_changes_the_arithmetic() -> None:
    a = torch.ones(2, 2)
    with autocast(CPU, "float32"):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, "bfloat16"):
        assert (a @ a).dtype == torch.bfloat16


def test_a_cpu_has_a_fixed_batch_and_no_events() -> None:
    assert choose_batch_size(torch.nn.Identity(), 64, CPU, "float32") == CPU_BATCH
    assert mark(CPU) is None
    assert "CPU" in describe_device(CPU)


@needs_gpu
def test_a_gpus_batch_is_a_power_of_two_that_fits() -> None:
    class Hungry(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().repeat(1, 1, 1, 2000).sum((1, 2, 3), keepdim=True)

    size = choose_batch_size(Hungry(), 224, CUDA, "float32")
    assert 1 <= size <= MAX_BATCH
    assert size & (size - 1) == 0
    Hungry()(torch.zeros((size, 224, 224, 3), dtype=torch.uint8, device=CUDA))


@needs_gpu
def test_an_event_is_behind_what_was_given() -> None:
    torch.cuda._sleep(50_000_000)
    event = mark(CUDA)
    assert event is not None
    assert not event.query()
    event.synchronize()
    assert event.query()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_what_is_sent_arrives_whole(device: str) -> None:
    values = torch.arange(10**6).reshape(1000, 1000)
    arrived = sent(values, torch.device(device))
    assert arrived.device.type == device
    assert torch.equal(arrived.cpu(), values)


@needs_gpu
def test_sending_does_not_wait_for_the_device() -> None:
    device, values = torch.device("cuda"), torch.zeros(4 << 20)
    sent(values, device)
    torch.cuda.synchronize()
    torch.cuda._sleep(10**9)
    queued = mark(device)
    sent(values, device)
    assert queued is not None
    assert not queued.query()


def test_deterministic_kernels_go_on_and_off() -> None:
    use_deterministic_kernels(True)
    assert torch.are_deterministic_algorithms_enabled()
    use_deterministic_kernels(False)
    assert not torch.are_deterministic_algorithms_enabled()


FAULTS = """
import resource
import threading

import torch

from pipeline.base.devices import keep_freed_memory

keep_freed_memory()


def count() -> None:
    num_bytes = 64 << 20  # glibc maps what is above 32 MB by itself
    faults = num_bytes
    for _ in range(10):  # the heap grows until a block of this size stays free in it
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.ones(num_bytes, dtype=torch.uint8)
        faults = min(faults, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(faults * resource.getpagesize() / num_bytes)


count()
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


@pytest.mark.slow
def test_freed_memory_is_kept_for_the_next_tensor_in_every_thread() -> None:
    """Memory that went back to the system is cleared page by page when it is mapped anew, which counts as faults. In a
    process of its own: another's heap may have no room to grow.
    """
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    shares = [float(line) for line in ran.stdout.split()]
    assert len(shares) == 2
    assert max(shares) < 1


def test_words() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(AssertionError()) == "AssertionError"
    assert {"python", "torch", "timm", "g2l"} <= versions().keys()


def test_one_thread_is_for_the_block_only() -> None:
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# --- float32 in full ---------------------------------------------------------------------------------------------


def tf32_flags() -> tuple[bool, bool]:
    """Whether TensorFloat-32 is allowed in convolutions and in matrix products on CUDA."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def _tf32_allowed() -> Iterator[None]:
    """TensorFloat-32 allowed in both; then as torch has it by itself."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False


@pytest.mark.usefixtures("_tf32_allowed")
def test_float32_is_float32_in_convolutions_too() -> None:
    """torch allows TensorFloat-32 in convolutions by itself: `--precision float32` had ten bits of fraction."""
    with autocast(CUDA, "float32"):
        assert tf32_flags() == (False, False)
    assert tf32_flags() == (True, True)
    with pytest.raises(RuntimeError, match="inside"), autocast(CPU, "float32"):
        raise RuntimeError("inside")
    assert tf32_flags() == (True, True)
    use_tf32(False)  # as training does for its backward passes
    assert tf32_flags() == (False, False)


BACKENDS: Any = torch.backends
PLACES: dict[str, Any] = {
    "all": BACKENDS,
    "cuda.matmul": BACKENDS.cuda.matmul,
    "cudnn": BACKENDS.cudnn,
    "cudnn.conv": BACKENDS.cudnn.conv,
    "cudnn.rnn": BACKENDS.cudnn.rnn,
    "mkldnn": BACKENDS.mkldnn,
    "mkldnn.matmul": BACKENDS.mkldnn.matmul,
    "mkldnn.conv": BACKENDS.mkldnn.conv,
    "mkldnn.rnn": BACKENDS.mkldnn.rnn,
}
"""Where torch says how float32 is computed."""
BY_CALLERS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "all tf32": lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
    "all ieee": lambda: setattr(BACKENDS, "fp32_precision", "ieee"),
    "products tf32": lambda: setattr(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
    "convolutions ieee": lambda: setattr(BACKENDS.cudnn.conv, "fp32_precision", "ieee"),
    "recurrent ieee": lambda: setattr(BACKENDS.cudnn.rnn, "fp32_precision", "ieee"),
    "CPU bfloat16": lambda: setattr(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
    "products, as before 2.9": lambda: setattr(BACKENDS.cuda.matmul, "allow_tf32", True),
    "convolutions, as before 2.9": lambda: setattr(BACKENDS.cudnn, "allow_tf32", False),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
}
"""What a program may have set before it calls."""


def set_precisions() -> dict[str, str]:
    """What torch says of each place."""
    return {name: place.fp32_precision for name, place in PLACES.items()}


@pytest.fixture
def _as_torch_starts() -> Iterator[None]:
    yield
    BACKENDS.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32, BACKENDS.cuda.matmul.allow_tf32 = True, False
    for name, place in PLACES.items():
        if "." in name:  # torch sets all of them where a whole library is named
            place.fp32_precision = "tf32" if name.startswith("cudnn.") else "none"


@pytest.mark.usefixtures("_as_torch_starts")
@pytest.mark.parametrize("by_caller", BY_CALLERS)
@pytest.mark.parametrize("precision", ["float32", TF32])
def test_whatever_the_caller_has_set_float32_is_float32_and_the_setting_stays(by_caller: str, precision: str) -> None:
    BY_CALLERS[by_caller]()
    before = set_precisions()
    with autocast(CUDA, precision):
        inside = set_precisions()
        assert {inside[name] for name in ("cuda.matmul", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")} == {"ieee"}
        assert inside["cudnn.conv"] == inside["cudnn.rnn"] == ("tf32" if precision == TF32 else "ieee")
        assert tf32_flags() == (precision == TF32, False)  # libraries that ask as before 2.9 get an answer
        assert torch.get_float32_matmul_precision() == "highest"
    assert set_precisions() == before


@pytest.mark.usefixtures("_as_torch_starts")
def test_a_general_setting_reaches_everything_after_as_it_did_before() -> None:
    BACKENDS.fp32_precision = "tf32"
    with autocast(CUDA, "float32"):
        pass
    BACKENDS.fp32_precision = "ieee"
    assert set(set_precisions().values()) == {"ieee"}


@needs_gpu
@pytest.mark.usefixtures("_tf32_allowed")
@pytest.mark.parametrize(("precision", "exact"), [("float32", True), (TF32, False)])
def test_a_convolution_on_a_gpu_has_all_bits_of_float32(precision: str, exact: bool) -> None:
    """Against float64: 24 bits of fraction leave an error of about 1e-6, the 11 of TensorFloat-32 of about 1e-3."""
    generator = torch.Generator().manual_seed(0)
    pixels, weight = (torch.randn(shape, generator=generator) for shape in ((4, 64, 32, 32), (128, 64, 3, 3)))
    expected = torch.nn.functional.conv2d(pixels.double(), weight.double())
    with autocast(CUDA, precision):
        found = torch.nn.functional.conv2d(pixels.to(CUDA), weight.to(CUDA)).cpu().double()
    error = float((found - expected).norm() / expected.norm())
    assert (error < 1e-5) == exact, error


@pytest.mark.usefixtures("_tf32_allowed")
def test_an_encoder_in_float32_computes_in_float32_whatever_is_allowed() -> None:
    seen: list[tuple[bool, bool]] = []

    def model(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(tf32_flags())
        return pixels.float().mean((1, 2))

    EncoderForward(model, CPU, "float32")(torch.zeros(2, 4, 4, 3))  # type: ignore[arg-type]
    assert seen == [(False, False)]


@pytest.mark.usefixtures("_tf32_allowed")
def test_what_was_begun_in_tensor_float_32_is_continued_in_it() -> None:
    """A float32 store or run on CUDA of an earlier version: its bytes are of that arithmetic."""
    assert continued_precision("float32", CUDA, full_float32=False) == TF32
    assert continued_precision("float32", CUDA, full_float32=True) == "float32"
    assert continued_precision("float32", CPU, full_float32=False) == "float32"
    assert continued_precision("bfloat16", CUDA, full_float32=False) == "bfloat16"
    use_tf32(False)
    with autocast(CUDA, TF32):
        assert tf32_flags() == (True, False)
    assert tf32_flags() == (False, False)


@pytest.mark.parametrize("value", [1.5, -0.1, float("inf")])
def test_a_scalar_comes_to_the_host_as_it_is(value: float) -> None:
    scalar = torch.tensor(value)
    assert HostCopy(scalar).read() == float(scalar)


@needs_gpu
def test_a_scalar_on_a_gpu_is_read_before_later_work_is_done() -> None:
    """The event of the copy is earlier in the queue than a product that takes longer."""
    large = torch.ones(4096, 4096, device="cuda")
    copy = HostCopy(large.sum())
    for _ in range(50):
        large = large @ large * 1e-4
    later = mark(CUDA)
    assert copy.read() == 4096**2
    assert later is not None
    assert not later.query()
