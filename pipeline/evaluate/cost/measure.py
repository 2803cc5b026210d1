"""Measure what encoders cost: parameters, FLOPs, time and memory of a forward pass, each model beside the others.

Times of two models are comparable only if they are measured under the same conditions, and a machine drifts: it heats
up, and others use it. So each round times all models in turn, in another order than the round before, and a ratio is
taken within a round before the median is taken over rounds. Left out: reading and decoding images, and moving them to
the device; a pass starts with uint8 patches in the device's memory.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.base.devices import autocast, keep_freed_memory
from pipeline.base.memory import is_out_of_memory, named_tensors, peak_bytes
from pipeline.report.content import Interval

LEAST_SECONDS = {"cpu": 0.2, "mps": 0.2, "cuda": 0.05}
"""A measurement repeats the pass until it lasts about this long, so that the clock and a launch count for nothing. Our
choice."""
MAX_REPEATS = 1000
LONGEST_PASS_SECONDS = 30.0
"""A batch that is expected to take longer is not run: a giga-scale teacher on a CPU is not timed at leisure. Our
choice; the smallest batch is always run."""
CELL_SECONDS = 120.0
"""After this long the rounds of one precision and batch size end, once `LEAST_ROUNDS` are done. Our choice."""
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class CostRow:
    """One model at one precision and batch size; what was not measured is `None`, and `note` says why.

    Attributes:
        ms_per_patch: milliseconds a patch, median over rounds.
        patches_per_second: the same the other way round.
        times_faster: than the reference within the same round: median over rounds, with the least and the largest.
        peak_bytes: weights, input and activations at the fullest moment of one pass.
        rounds: how many rounds the medians are of.
    """

    label: str
    precision: str
    batch_size: int
    ms_per_patch: float | None = None
    patches_per_second: float | None = None
    times_faster: Interval | None = None
    peak_bytes: int | None = None
    rounds: int = 0
    note: str = ""


def num_params(module: nn.Module) -> int:
    """Number of parameters; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops_per_patch(module: nn.Module, patch_px: int) -> int:
    """Floating-point operations of one patch's forward pass, a multiply-add counted as two.

    Counted are matrix products, convolutions and attention, by torch's own counter; not the element-wise rest. The pass
    runs on the meta device, without memory or arithmetic: there attention is two plain matrix products, which the
    counter sees, while it does not know the CPU's fused kernel.
    """
    state = {name: torch.empty_like(t, device="meta") for name, t in named_tensors(module)}
    patches = torch.empty((1, patch_px, patch_px, 3), dtype=torch.uint8, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(module, state, (patches,))
    return int(counter.get_total_flops())


def time_passes(module: nn.Module, patches: Tensor, precision: str, repeats: int) -> float:
    """Seconds of one forward pass, as the mean of `repeats` in a row."""
    device = patches.device
    with torch.inference_mode(), autocast(device, precision):
        if device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            stream = torch.cuda.current_stream(device)
            start.record(stream)
            for _ in range(repeats):
                module(patches)
            stop.record(stream)
            stop.synchronize()
            return float(start.elapsed_time(stop)) / 1000 / repeats
        begun = time.perf_counter()
        for _ in range(repeats):
            module(patches)
        if device.type == "mps":
            torch.mps.synchronize()
        return (time.perf_counter() - begun) / repeats


def unable(device: torch.device, precision: str) -> str:
    """Why `device` is not timed at `precision`; empty if it is."""
    if precision == "float16" and device.type == "cpu":
        return "float16 has no fast kernels on a CPU"
    if (
        precision == "bfloat16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        return "this GPU has no bfloat16"
    return ""


def measure_cost(
    models: dict[str, nn.Module],
    patch_px: dict[str, int],
    reference: str,
    batch_sizes: Sequence[int],
    precisions: Sequence[str],
    rounds: int,
    device: torch.device,
    on_round: Callable[[], None] = lambda: None,
) -> list[CostRow]:
    """Time and memory of every model at every precision and batch size, by precision, batch size and model.

    Args:
        models: by label; forward: uint8 (B, P, P, 3) -> (B, D). They are moved to `device` and set to evaluation.
        patch_px: side of a patch by label, pixels.
        reference: label that the others are compared with; if it is none of `models` there are no ratios.
        rounds: how often each model is timed; fewer, but `LEAST_ROUNDS`, where a round takes long (`CELL_SECONDS`).
        on_round: called after each round, for a progress bar.

    A batch that does not fit the memory, or is expected to take too long, is a row with a note.
    """
    keep_freed_memory()
    for module in models.values():
        module.to(device).eval()
    rows: list[CostRow] = []
    for precision in precisions:
        per_patch: dict[str, float] = {}
        for batch_size in sorted(batch_sizes):
            ready: dict[str, _Ready] = {}
            notes: dict[str, str] = {}
            for label, module in models.items():
                expected = per_patch.get(label, 0.0) * batch_size
                prepared = _prepare(module, patch_px[label], batch_size, precision, device, expected)
                if isinstance(prepared, str):
                    notes[label] = prepared
                else:
                    ready[label] = prepared
            times = _time_in_turn(ready, rounds, on_round)
            per_patch |= {label: median(own) / batch_size for label, own in times.items()}
            for label in models:
                row = CostRow(label, precision, batch_size, note=notes.get(label, ""))
                rows.append(_measured(row, ready[label], times, reference) if label in ready else row)
    return rows


@dataclass(frozen=True)
class _Ready:
    """A model that has run once: its input, the bytes that it took, and how often it runs in a measurement."""

    module: nn.Module
    patches: Tensor
    precision: str
    peak_bytes: int
    repeats: int


def _prepare(
    module: nn.Module, patch_px: int, batch_size: int, precision: str, device: torch.device, expected: float
) -> _Ready | str:
    """Run a model once for its memory and once to learn how often to repeat it; or say why it cannot be timed.

    Args:
        expected: seconds that a pass will take by what smaller batches took, 0 if not known.
    """
    if reason := unable(device, precision):
        return reason
    if expected > LONGEST_PASS_SECONDS:
        return f"a pass would take about {expected:.0f} s, more than the {LONGEST_PASS_SECONDS:.0f} s that are waited"
    try:
        shape = (batch_size, patch_px, patch_px, 3)
        noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        patches = noise.to(device)
        peak = peak_bytes(module, patches, precision)
        seconds = time_passes(module, patches, precision, 1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return "out of memory"
    least = LEAST_SECONDS[device.type if device.type in LEAST_SECONDS else "cpu"]
    repeats = math.ceil(least / max(seconds, 1e-9))
    return _Ready(module, patches, precision, peak, min(repeats, MAX_REPEATS))


def _time_in_turn(ready: dict[str, _Ready], rounds: int, on_round: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of a pass by label, one a round. Each round starts with the next model."""
    labels = list(ready)
    times: dict[str, list[float]] = {label: [] for label in labels}
    begun = time.perf_counter()
    for done in range(rounds if labels else 0):
        if done >= LEAST_ROUNDS and time.perf_counter() - begun > CELL_SECONDS:
            break
        first = done % len(labels)
        for label in labels[first:] + labels[:first]:
            own = ready[label]
            times[label].append(time_passes(own.module, own.patches, own.precision, own.repeats))
        on_round()
    return times


def _measured(row: CostRow, ready: _Ready, times: dict[str, list[float]], reference: str) -> CostRow:
    """`row` with its figures, from the seconds of each round."""
    own = times[row.label]
    seconds = median(own)
    ratios = [theirs / mine for theirs, mine in zip(times.get(reference, []), own, strict=False)]
    return replace(
        row,
        ms_per_patch=1000 * seconds / row.batch_size,
        patches_per_second=row.batch_size / seconds,
        times_faster=Interval(median(ratios), min(ratios), max(ratios)) if ratios else None,
        peak_bytes=ready.peak_bytes,
        rounds=len(own),
    )
