"""Where and how to compute: device, arithmetic, batch size, reproducible kernels, versions."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from threadpoolctl import threadpool_limits

from pipeline.base.errors import ConfigError, first_line
from pipeline.base.versions import versions as versions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TF32 = "tf32"
"""Arithmetic of float32 stores and runs that an earlier version began on CUDA: TensorFloat-32 (10 bits of fraction) in
convolutions, torch's default. Nothing begins with it; they are continued in it.
"""
CPU_BATCH = 32
"""Patches a batch on a CPU. Our choice: larger ones are no faster."""
MAX_BATCH = 1024
MEMORY_SHARE = 0.6
"""Share of a GPU's free memory that a batch may take: activations are extrapolated from a small one. Our choice."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3), from glibc's malloc.h."""
KEPT_BYTES = 1 << 30


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU, keep the memory of freed tensors for the next ones instead of handing it back to the system each time.

    glibc maps and unmaps every tensor above 32 MB anew, and the kernel clears its pages: a CNN's forward pass takes 2.5
    times as long for it (benchmarks/memory_reuse.py). Process-wide; nothing on a GPU or without glibc.
    """
    if device.type != "cpu":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ConfigError(f"--device {name}: not usable here ({reason})") from None
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """The arithmetic of that name; "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        ConfigError: float16 on a CPU, which has no fast kernels for it.
    """
    if name == "float16" and device.type == "cpu":
        raise ConfigError("--precision float16 needs a GPU; use float32 or bfloat16")
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return name


def training_precision(name: str, device: torch.device) -> str:
    """The arithmetic of a student's passes, of that name; as `choose_precision`.

    Raises:
        ConfigError: float16, in which the loss's gradients, about 1 / (B * T) each, would vanish.
    """
    precision = choose_precision(name, device)
    if precision == "float16":
        raise ConfigError("--precision float16 is too narrow for gradients; use bfloat16 or float32")
    return precision


def continued_precision(precision: str, device: torch.device, *, full_float32: bool) -> str:
    """The arithmetic that something begun in `precision` is continued in: `TF32` where it was float32 on CUDA in name
    only, which a record without `full_float32` means.
    """
    return TF32 if precision == "float32" and device.type == "cuda" and not full_float32 else precision


def use_tf32(allowed: bool) -> None:
    """Whether float32 matrix products and convolutions on CUDA may be in TensorFloat-32; torch allows it in
    convolutions unless it is told otherwise. Process-wide.
    """
    torch.backends.cudnn.allow_tf32 = allowed  # both flags, for torch 2.6 has no others, and later ones follow them
    torch.backends.cuda.matmul.allow_tf32 = False


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Compute in `precision` on `device`: autocast, or float32 in full (`TF32`: as torch would by itself)."""
    if precision in ("float32", TF32):
        return _float32(tf32=precision == TF32)
    return torch.autocast(device.type, DTYPES[precision])


@contextmanager
def _float32(*, tf32: bool) -> Iterator[None]:
    """Inside, `use_tf32(tf32)`; then as it was."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    use_tf32(tf32)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def choose_batch_size(model: torch.nn.Module, patch_px: int, device: torch.device, precision: str) -> int:
    """A power of two that fits: on a GPU by the memory of a forward pass over 8 patches, on a CPU `CPU_BATCH`."""
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
    """Allow only kernels whose result does not depend on timing; the others raise. Process-wide."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS to be reproducible
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.benchmark = not enabled


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, linear algebra on the CPU has one thread: its last digits then do not follow the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def mark(device: torch.device) -> torch.cuda.Event | None:
    """An event behind all that the device was given so far; `None` where a call returns when its work is done."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))  # the current device may be another card
    return event


def describe_device(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
