"""Where and how to compute: device, precision, batch size, reproducible kernels, versions."""

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from pipeline.base.errors import ConfigError, first_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TF32 = "tf32"
"""Precision of float32 stores and runs that an earlier version began on CUDA: TensorFloat-32 (10 bits of fraction) in
convolutions, torch's default. Used only to continue them.
"""
CPU_BATCH = 32
"""Patches a batch on a CPU. Our choice: as fast as any size for a small encoder (decision 0066)."""
MAX_BATCH = 1024
MEMORY_SHARE = 0.6
"""Share of a GPU's free memory that a batch may use, extrapolated from a small batch. Our choice."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3), from glibc's malloc.h."""
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Reuse the memory of freed arrays and tensors instead of returning it to the system.

    glibc maps and unmaps every tensor above 32 MB, and often each decoded tile of a slide (192 kB), and the kernel
    clears the pages each time. A CNN's forward pass on a CPU then takes 2.5 times as long, and reading patches, which a
    GPU waits for as well, 1.2 times (benchmarks/memory_reuse.py). Memory of other threads ends at 64 MB whatever the
    thresholds, so all share the main one's. Process-wide; does nothing without glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_ARENA_MAX, 1)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" prefers CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a number comes back: the device meta has none
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ConfigError(f"--device {name}: not usable here ({reason})") from None
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """The precision called `name`; "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        ConfigError: float16 on a CPU, which has no fast kernels for it.
    """
    if name == "float16" and device.type == "cpu":
        raise ConfigError("--precision float16 needs a GPU; use float32 or bfloat16")
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return name


def training_precision(name: str, device: torch.device) -> str:
    """The precision to train a student in; as `choose_precision`.

    Raises:
        ConfigError: float16, in which the loss's gradients, about 1 / (B * T) each, would vanish.
    """
    precision = choose_precision(name, device)
    if precision == "float16":
        raise ConfigError("--precision float16 is too narrow for gradients; use bfloat16 or float32")
    return precision


def continued_precision(precision: str, device: torch.device, *, full_float32: bool) -> str:
    """The precision in which to continue a store or run begun in `precision`.

    `TF32` for float32 on CUDA if its record lacks `full_float32`: convolutions were then computed in TensorFloat-32.
    """
    return TF32 if precision == "float32" and device.type == "cuda" and not full_float32 else precision


def use_tf32(allowed: bool) -> None:
    """Allow or forbid TensorFloat-32 in float32 convolutions on CUDA, which torch allows by default; forbid it, and
    bfloat16 on a CPU, elsewhere. Process-wide.
    """
    backends: Any = torch.backends
    torch.set_float32_matmul_precision("highest")  # torch's earlier settings first: later ones are set on top of them
    backends.cudnn.allow_tf32 = allowed
    backends.cuda.matmul.allow_tf32 = False
    for each in (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn):
        each.fp32_precision = "ieee"
    for each in (backends.cudnn.conv, backends.cudnn.rnn):  # else a general setting of the caller reaches them
        each.fp32_precision = "tf32" if allowed else "ieee"


def float32_as_it_is() -> Callable[[], None]:
    """Note how float32 is computed in this process, by torch's earlier settings and its present ones; the function that
    is returned restores both. An earlier one that contradicts a present one cannot be read, and is left.
    """
    backends: Any = torch.backends
    earlier: list[tuple[Callable[[Any], None], Any]] = [
        (partial(setattr, backends.cudnn, "allow_tf32"), _if_readable(lambda: backends.cudnn.allow_tf32)),
        (partial(setattr, backends.cuda.matmul, "allow_tf32"), _if_readable(lambda: backends.cuda.matmul.allow_tf32)),
        (torch.set_float32_matmul_precision, _if_readable(torch.get_float32_matmul_precision)),
    ]
    owners = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    owners += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    general, before = backends.fp32_precision, [each.fp32_precision for each in owners]

    def restore() -> None:
        for set_to, value in earlier:
            if value is not None:
                set_to(value)
        for owner, value in zip(owners, before, strict=True):
            owner.fp32_precision = "none" if value == general else value  # "none": as the general one says

    return restore


def _if_readable(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:  # the caller has set it in torch's present way
        return None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Context that computes in `precision` on `device`: autocast, full float32, or torch's default (`TF32`)."""
    if precision in ("float32", TF32):
        return _float32(tf32=precision == TF32)
    return torch.autocast(device.type, DTYPES[precision])


@contextmanager
def _float32(*, tf32: bool) -> Iterator[None]:
    """Apply `use_tf32(tf32)` inside the block, then restore the settings."""
    restore = float32_as_it_is()
    use_tf32(tf32)
    try:
        yield
    finally:
        restore()


def choose_batch_size(model: torch.nn.Module, patch_px: int, device: torch.device, precision: str) -> int:
    """A power of two that fits into memory, judged on a GPU by a forward pass over 8 patches; `CPU_BATCH` elsewhere."""
    if device.type != "cuda":
        return CPU_BATCH
    probe = torch.zeros((8, patch_px, patch_px, 3), dtype=torch.uint8, device=device)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode(), autocast(device, precision):
        model(probe)
    each = max(torch.cuda.max_memory_allocated(device) - before, 1) / len(probe)
    free, _ = torch.cuda.mem_get_info(device)
    fitting = max(int(free * MEMORY_SHARE / each), 1)
    return int(min(MAX_BATCH, 2 ** (fitting.bit_length() - 1)))


def use_deterministic_kernels(enabled: bool) -> None:
    """Allow only kernels whose results do not depend on timing; others raise. Process-wide."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS to be reproducible
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.benchmark = not enabled


@contextmanager
def one_thread() -> Iterator[None]:
    """Run linear algebra on the CPU in one thread, so that its last digits do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def mark(device: torch.device) -> torch.cuda.Event | None:
    """An event recorded after all work queued on the device so far; `None` for devices that run synchronously."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))  # the current device may be another card
    return event


def describe_device(device: torch.device) -> str:
    """The device's name for logs and reports."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of this process on the device. To CUDA it goes by pinned memory, so that the host does not wait for the
    work queued before it.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class HostCopy:
    """A scalar on its way to the host. On CUDA the copy waits for the work queued before it only: made before the
    backward pass and read after that was queued, it leaves the device busy.
    """

    def __init__(self, value: torch.Tensor) -> None:
        self._value = value
        if value.device.type == "cuda":
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
        self._copied = mark(value.device)

    def read(self) -> float:
        """The value; waits until it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._value)
