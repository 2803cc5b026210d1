"""What the benchmarks work on, made from nothing: a slide and its plan, a teacher's weights."""

# isort: off
import pipeline  # noqa: F401  (before torch, as in the command: it says how OpenMP's threads wait)

# isort: on
import argparse
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import timm
import torch

from pipeline.base.devices import choose_device, choose_precision, keep_freed_memory, use_deterministic_kernels
from pipeline.base.errors import ConfigError
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from stages.plan import plan_slides

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before tests/, which has folders of the same names

from support.slides import make_big_slide  # of the tests

DEVICE = torch.device("cpu")
"""Where models compute, unless --device says otherwise."""
PATCH_PX = 224


def device_option(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default=str(DEVICE), help="cpu, cuda, cuda:N, mps or auto [%(default)s]")


def slide_option(parser: argparse.ArgumentParser) -> None:
    """Add --slide."""
    parser.add_argument(
        "--slide", type=Path, metavar="FILE", help="a slide of 0.25 um/px to work on [a synthesised one]"
    )


def start_device(name: str, *, deterministic: bool = False) -> tuple[torch.device, str]:
    """The device of --device and the arithmetic that `g2l` takes there, after what the commands do before they use it;
    ends the script with a word if this machine has none of that name.
    """
    try:
        device = choose_device(name)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    keep_freed_memory()
    if deterministic:
        use_deterministic_kernels(True)
    return device, choose_precision("auto", device)


def finish(device: torch.device) -> None:
    """Wait until the device has done its work, which on a GPU goes on when a call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


SLIDE_PX, SLIDE_ROWS = 20_000, 600
"""Side of the slide, and how many patches it has at least (762); a larger one has about as many more as its area is
larger."""


def make_plan(
    folder: Path,
    num_rows: int,
    *,
    size_px: int | None = None,
    val_strip: float | None = None,
    slide: Path | None = None,
) -> Plan:
    """A plan of `num_rows` patches on `slide`, of 0.25 um/px, or on a synthesised Aperio slide of tissue, JPEG tiles;
    planned at 0.5 um/px.

    By default the synthesised slide is as large as the rows need.

    Raises:
        ValueError: the slide has too few patches.
    """
    if slide is None:
        size_px = size_px or max(SLIDE_PX, math.ceil(SLIDE_PX * math.sqrt(num_rows / SLIDE_ROWS) / 16) * 16)
        slide = make_big_slide(folder / "slide.svs", width=size_px, height=size_px)
    row = ManifestRow(slide_id="slide", path=str(slide.resolve()), case_id="case")
    config = PlanConfig(patches_per_slide=num_rows, val_fraction=0, val_strip=val_strip, patch_px=PATCH_PX)
    plan = plan_slides(Manifest((row,), folder / "manifest.csv", folder), config, workers=1)
    if plan.num_rows != num_rows:
        raise ValueError(f"the slide has {plan.num_rows} patches, {num_rows} were asked for")
    return plan


def make_weights(folder: Path, name: str) -> Path:
    """Random weights of a timm model as a safetensors file: they cost what trained ones cost."""
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    safetensors.torch.save_file(timm.create_model(name, num_classes=0).state_dict(), path)
    return path


@contextmanager
def silence() -> Iterator[None]:
    """No bars and notes: showing them is no part of what is measured."""
    with open(os.devnull, "w") as nothing:
        before, sys.stderr = sys.stderr, nothing
        try:
            yield
        finally:
            sys.stderr = before
