"""A library is a guest in the caller's process: what a call needs changed there is put back when the call ends.

The command has a process of its own and may set it up (decision 0029); a library must not (decision 0084). Importing
this module loads `pipeline`, whose settings of the environment are taken back at once. Left out: the memory of freed
tensors stays with the process (`pipeline.base.devices.keep_freed_memory`); it cannot be asked what was before.
"""

import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

LOGGER = "g2l"
"""Name of the logger that gets notes (INFO) and warnings (WARNING) of calls without `progress`."""
QUIETER = {"timm": logging.ERROR, "huggingface_hub": logging.CRITICAL, "tifffile": logging.CRITICAL}
"""Loggers of libraries that the commands keep quiet, since what they say is said better by an error or note."""

VARIABLES = (
    "ORT_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "MPLCONFIGDIR",
    "OMP_WAIT_POLICY",
    "CUBLAS_WORKSPACE_CONFIG",
    "WANDB_CONFIG_DIR",
    "WANDB_CACHE_DIR",
    "WANDB_DATA_DIR",
    "WANDB_ERROR_REPORTING",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
)
"""Variables of the environment that `pipeline` sets, if they are not set, when it is imported or trains."""

_one_at_a_time = threading.RLock()


@contextmanager
def environment_kept() -> Iterator[None]:
    """After the block, `VARIABLES` are what they were before."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


with environment_kept():
    from pipeline.base.console import said_to, without_bars
    from pipeline.base.errors import ConfigError
    from pipeline.base.privacy import SILENT


@contextmanager
def as_guest(*, progress: bool = False, computes: bool = False) -> Iterator[None]:
    """Do the work of a command within the caller's process. Environment, filters of warnings, levels of loggers and
    torch's flags, threads and random states are the caller's again afterwards. Calls of several threads take turns.

    Args:
        progress: whether progress and notes go to standard error, as those of the commands; else there are no bars, and
            notes go to the logger `LOGGER`.
        computes: whether torch is needed: it is loaded first, for what it is set to is noted before the work begins.
    """
    if computes:
        import torch  # noqa: F401  (only then: others answer in a second)
    with _one_at_a_time, ExitStack() as stack:
        stack.enter_context(environment_kept())
        for name, value in SILENT.items():
            os.environ.setdefault(name, value)
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_loggers_kept())
        stack.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            stack.callback(_numpy_as_it_is())
        if "torch" in sys.modules:
            stack.callback(_torch_as_it_is())
        if not progress:
            stack.enter_context(said_to(tell))
            stack.enter_context(without_bars())
        yield


def tell(text: str) -> None:
    """Hand a note or warning to the logger `LOGGER`."""
    level = logging.WARNING if text.startswith("warning") else logging.INFO
    logging.getLogger(LOGGER).log(level, "%s", text)


@contextmanager
def _loggers_kept() -> Iterator[None]:
    """The loggers of `QUIETER` are quiet inside the block, and have their own levels again after it."""
    before = {name: logging.getLogger(name).level for name in QUIETER}
    for name, level in QUIETER.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _numpy_as_it_is() -> Callable[[], None]:
    """Note the state of NumPy's global random numbers; the function that is returned restores it."""
    import numpy as np  # loaded already

    return partial(np.random.set_state, np.random.get_state())  # noqa: NPY002  (the caller's own)


def _torch_as_it_is() -> Callable[[], None]:
    """Note torch's flags, threads and random states; the function that is returned restores them."""
    import torch  # loaded already: it is asked what it is set to

    from pipeline.base.devices import float32_as_it_is  # it loads torch

    cuda, restore_float32 = torch.cuda, float32_as_it_is()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    cuda_states = cuda.get_rng_state_all() if cuda.is_initialized() else []  # type: ignore[no-untyped-call]

    def restore() -> None:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        restore_float32()
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        if cuda_states:
            cuda.set_rng_state_all(cuda_states)

    return restore


def given_path(path: str | os.PathLike[str]) -> Path:
    """A path from the caller. An empty one must not mean the working folder.

    Raises:
        ConfigError: it is empty or blank, bytes, or no path.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{path!r:.80} is no path. Give one as text")
    return Path(text)
