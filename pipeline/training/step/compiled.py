"""A student's training pass through `torch.compile`; its module and the names in its state dict stay what they are."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.base.errors import ConfigError, first_line

TrainingPass = Callable[[Tensor], Tensor]
"""uint8 (B, P, P, 3) on the device -> the student's embedding (B, S), in training."""

ADVICE = "Leave out --compile, or install what it needs: a C++ compiler for a CPU, Triton for a GPU"


def compiled_pass(module: nn.Module) -> TrainingPass:
    """Compile a student; its first pass takes the time, for each size of batch.

    The pass raises ConfigError where torch cannot compile the student.
    """
    return _named_failures(torch.compile(module, dynamic=False))


def require_compiler(device: torch.device) -> None:
    """Compile and run a sum of a few numbers, to see before anything else is done that torch can.

    Raises:
        ConfigError: it cannot.
    """
    compiled = _named_failures(torch.compile(_some_sum, dynamic=False))
    compiled(torch.arange(8.0, device=device))


def _some_sum(values: Tensor) -> Tensor:
    return (values * values + 1).sum()


def _named_failures(compiled: Callable[[Tensor], Tensor]) -> TrainingPass:
    """The same function; torch's failure to compile it is an error for users."""
    from torch._dynamo.exc import TorchDynamoException  # seconds, and only --compile needs it

    def call(values: Tensor) -> Tensor:
        try:
            return compiled(values)
        except TorchDynamoException as error:
            raise ConfigError(
                f"--compile: torch cannot compile this on {values.device} here ({_cause(error)}). {ADVICE}"
            ) from error

    return call


def _cause(error: BaseException) -> str:
    """What the innermost error says, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"
