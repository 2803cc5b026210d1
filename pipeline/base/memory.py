"""Measure the peak memory of a forward pass, or of other work, on any device; and say where there is too little."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.base.devices import autocast
from pipeline.base.errors import ConfigError


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """A module's parameters and buffers by name."""
    return [*module.named_parameters(), *module.named_buffers()]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks every tensor created inside it, and how many bytes are alive at once.

    Does not see a kernel's temporary memory. `known` are tensors that already exist.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._storages: dict[int, Any] = {id(t.untyped_storage()): t for t in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return output

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._storages:
            self._storages[key] = weakref.finalize(storage, self._drop, key, storage.nbytes())
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)

    def _drop(self, key: int, num_bytes: int) -> None:
        del self._storages[key]
        self.live -= num_bytes


def peak_bytes(module: nn.Module, patches: Tensor, precision: str) -> int:
    """Peak bytes of weights, input and activations in one forward pass.

    On CUDA these are the allocator's figures, which include temporary memory of kernels; elsewhere the tensors alive at
    once. Weights of other models on the same device do not count.
    """
    known = [*(tensor for _, tensor in named_tensors(module)), patches]
    held = sum(tensor.numel() * tensor.element_size() for tensor in known)
    with torch.inference_mode(), autocast(patches.device, precision):
        return held + peak_bytes_beyond(known, patches.device, lambda: module(patches))


def peak_bytes_beyond(known: Sequence[Tensor], device: torch.device, work: Callable[[], object]) -> int:
    """Peak bytes on `device` that `work` needs beyond the tensors that exist, which `known` lists.

    On CUDA this is the allocator's figure; elsewhere the tensors alive at once.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before: int = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - before
    with _LiveBytes(known) as counted:
        work()
    return int(counted.peak)


@contextmanager
def told_if_no_room(words: Callable[[], str]) -> Iterator[None]:
    """Say so in `words` if the block finds too little memory.

    Raises:
        ConfigError: it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(words()) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. The CPU's allocator and MPS raise a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return any(words in text for words in ("can't allocate memory", "out of memory", "not enough memory"))
