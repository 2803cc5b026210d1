"""What the benchmarks share: inputs made from nothing, clocks that know how busy the machine was, rounds, tables.

Timings on a shared machine are fair only when nobody else had the cores. So every measurement notes the share of the
machine's CPU time that went to other processes, rounds that others disturbed are run again, and what is compared is
measured in turn within a round.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import safetensors.torch
import timm
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import slide_factory  # noqa: E402  (in the folder of the tests)

from pipeline.config import PlanConfig  # noqa: E402
from pipeline.manifest import Manifest, ManifestRow  # noqa: E402
from pipeline.plan import Plan  # noqa: E402
from stages.plan_slides import plan_slides  # noqa: E402

QUIET = 0.05
"""Share of the machine's CPU time that others may take in a round that counts. Our choice: half of the margin that
stage two is allowed.
"""
MIN_ROUNDS = 3
PATIENCE = 300.0
"""Seconds to wait for quiet rounds, for each thing measured."""


@dataclass(frozen=True)
class Measured:
    """One measurement: wall seconds, CPU seconds of this process, and the share of the machine that others had."""

    seconds: float
    cpu_seconds: float
    others: float


def _machine_busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def measure(work: Callable[[], object]) -> Measured:
    """Run `work` once."""
    busy, cpu, start = _machine_busy_seconds(), time.process_time(), time.perf_counter()
    work()
    seconds, own = time.perf_counter() - start, time.process_time() - cpu
    total = max(_machine_busy_seconds() - busy, own)
    return Measured(seconds, own, (total - own) / (seconds * (os.cpu_count() or 1)))


Round = dict[str, Measured]


def others_in(one: Round) -> float:
    """The share of the machine that others had in a round, weighted by time."""
    return sum(m.others * m.seconds for m in one.values()) / sum(m.seconds for m in one.values())


def wait_for_quiet(patience: float) -> None:
    """Wait until others leave the cores alone for a second, at most `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end and measure(lambda: time.sleep(1)).others > QUIET:
        pass


def quiet_rounds(
    parts: dict[str, Callable[[], object]], *, wanted: int, before: dict[str, Callable[[], object]] | None = None
) -> list[Round]:
    """Measure the parts in turn, round by round, until `wanted` rounds were quiet or `PATIENCE` is over.

    Every other round goes backwards, so that a machine that slows down or speeds up favours no part. `before` holds
    what is to be done, unmeasured, before a part. Returns the quiet rounds, or the `MIN_ROUNDS` least disturbed ones
    when there were fewer, and says so.
    """
    rounds: list[Round] = []
    end = time.monotonic() + PATIENCE
    while sum(others_in(r) <= QUIET for r in rounds) < wanted:
        if len(rounds) >= MIN_ROUNDS and time.monotonic() > end:
            break
        wait_for_quiet(end - time.monotonic())
        order = list(parts) if len(rounds) % 2 == 0 else list(reversed(parts))
        measured = {}
        for name in order:
            (before or {}).get(name, lambda: None)()
            measured[name] = measure(parts[name])
        rounds.append(measured)
        share = others_in(measured)
        note = "" if share <= QUIET else "; disturbed"
        print(f"round {len(rounds)}: others had {share:.0%} of the cores{note}", file=sys.stderr, flush=True)
    quiet = [r for r in rounds if others_in(r) <= QUIET]
    if len(quiet) >= MIN_ROUNDS:
        return quiet
    kept = sorted(rounds, key=others_in)[:MIN_ROUNDS]
    shares = ", ".join(f"{others_in(r):.0%}" for r in kept)
    print(f"warning: the machine was never quiet; these figures are from rounds where others had {shares} of it")
    return kept


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    """Median wall seconds of each part."""
    return {name: median(r[name].seconds for r in rounds) for name in rounds[0]}


def conclude(ratio: float, bound: float, *, at_least: bool) -> int:
    """Print the last line; the exit status is 1 when the need is not met."""
    sign = ">=" if at_least else "<="
    print(f"ratio: {ratio:.3f} (needs {sign} {bound:g})")
    return 0 if (ratio >= bound if at_least else ratio <= bound) else 1


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser of arguments whose help is the script's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def make_plan(
    folder: Path, num_rows: int, *, patch_px: int = 224, num_slides: int = 1, val_strip: float | None = None
) -> Plan:
    """A plan of `num_rows` patches on synthesised Aperio slides of tissue, JPEG tiles, 0.25 um/px, planned at 0.5.

    Raises:
        ValueError: the slides have too few patches.
    """
    rows = []
    for number in range(num_slides):
        path = slide_factory.make_big_slide(folder / f"slide{number}.svs", seed=number, block=4096)
        rows.append(ManifestRow(slide_id=f"slide{number}", path=path.name, case_id=f"case{number}"))
    config = PlanConfig(
        patches_per_slide=-(-num_rows // num_slides), val_fraction=0, val_strip=val_strip, patch_px=patch_px
    )
    plan = plan_slides(Manifest(tuple(rows), folder / "manifest.csv", folder), config, workers=2)
    if plan.num_rows != num_rows:
        raise ValueError(f"{plan.num_rows} patches where {num_rows} were asked for")
    return plan


def make_weights(folder: Path, name: str) -> Path:
    """Random weights of a timm model as a safetensors file: they cost what trained ones cost."""
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    safetensors.torch.save_file(timm.create_model(name, num_classes=0).state_dict(), path)
    return path


@contextmanager
def no_bars() -> Iterator[None]:
    """Progress bars off, as where standard error is no terminal: drawing them is no part of what is measured."""
    with open(os.devnull, "w") as nothing:
        before, sys.stderr = sys.stderr, nothing
        try:
            yield
        finally:
            sys.stderr = before
