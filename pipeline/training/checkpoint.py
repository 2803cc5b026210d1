"""Checkpoints of a run: complete or absent, and checked when read.

A checkpoint is `step-<n>.pt`, then `step-<n>.json` with its SHA-256 and the step of the best checkpoint so far. Loading
skips a truncated or damaged one and takes the one before. Saving keeps the last few, and the best that each names.
"""

from pathlib import Path
from typing import Any

import torch

from pipeline.base.console import say
from pipeline.base.errors import CheckpointError
from pipeline.base.outside import read_json, reading
from pipeline.disk.files import sha256_file, write_aside, write_json
from pipeline.training.run_folder import diverged

KEPT = 2
"""Checkpoints kept: the last one, and one to fall back on."""


def check_finite(step: int, state: dict[str, dict[str, torch.Tensor]]) -> None:
    """Check that all weights and statistics after `step` steps are finite; `state` has state dicts by module name.

    Raises:
        G2LError: one is NaN or infinite.
    """
    for part, tensors in state.items():
        for name, value in tensors.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise diverged(step, f"the {part}'s {name} is not finite")


def save_checkpoint(folder: Path, step: int, content: dict[str, Any], best: int | None = None) -> None:
    """Write the checkpoint of `step`, then delete old ones.

    Keeps the last `KEPT` up to `step` and the best that each of them names, so that a run that falls back on an earlier
    checkpoint finds the best of that time. Deletes later ones too: a run that reaches `step` again has skipped them as
    damaged. `best` is the step of the best checkpoint so far.

    Raises:
        CheckpointError: the disk is full, ...; earlier checkpoints are unchanged.
    """
    path = step_path(folder, step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        with write_aside(path) as f:
            torch.save(content, f)
        entry = {"step": step, "sha256": sha256_file(path), "bytes": path.stat().st_size}
        write_json(path.with_suffix(".json"), entry | ({} if best is None else {"best": best}))
        kept = [p for p in sorted(folder.glob("step-*.pt")) if p.name <= path.name][-KEPT:]
        pinned = {step_path(folder, number) for p in kept if (number := _best_up_to(p)) is not None}
        for old in folder.glob("step-*.pt"):
            if old not in kept and old not in pinned:
                old.with_suffix(".json").unlink(missing_ok=True)
                old.unlink()
    except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
        raise CheckpointError(
            f"cannot write the checkpoint {path} ({_cause(error)}). Earlier ones are safe: fix the cause, then run the "
            "same command again"
        ) from error


def step_path(folder: Path, step: int) -> Path:
    """Path of the checkpoint of `step`."""
    return folder / f"step-{step:09d}.pt"


def _best_up_to(path: Path) -> int | None:
    """The best step that a checkpoint names; `None` if it names none or is damaged."""
    try:
        with reading(path.with_suffix(".json"), "damaged", CheckpointError):
            best = read_json(path.with_suffix(".json")).get("best")
            return None if best is None else int(best)
    except CheckpointError:
        return None


def _cause(error: BaseException) -> str:
    """The message of the system error below `error`; its own first line if there is none."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__cause__ or inner.__context__
    return inner.strerror if isinstance(inner, OSError) and inner.strerror else str(error).splitlines()[0]


def load_last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Load the newest intact checkpoint onto the CPU; `None` if there is no checkpoint.

    Raises:
        CheckpointError: all are damaged.
    """
    num_damaged = 0
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        if not path.with_suffix(".json").exists():
            continue  # killed between the two files
        problem = _problem(path)
        if problem is None:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return content
        num_damaged += 1
        say(f"warning: {path}: damaged ({problem}); trying the checkpoint before it")
    if num_damaged:
        raise CheckpointError(f"{folder}: all checkpoints are damaged. Delete the folder to train from the start")
    return None


def load_checkpoint(folder: Path, step: int) -> dict[str, Any]:
    """Load the checkpoint of `step` onto the CPU.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = step_path(folder, step)
    if not path.exists() or not path.with_suffix(".json").exists():
        raise CheckpointError(
            f"{path}: the checkpoint of this step is missing; runs begun by version 0.1.0 keep only the last ones"
        )
    if problem := _problem(path):
        raise CheckpointError(f"{path}: damaged ({problem})")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint; `None` if it is intact."""
    try:
        with reading(path.with_suffix(".json").name, "unreadable", CheckpointError):
            entry = read_json(path.with_suffix(".json"))
            expected_bytes, expected_sha256 = int(entry["bytes"]), str(entry["sha256"])
    except CheckpointError as error:
        return str(error)
    if (num_bytes := path.stat().st_size) != expected_bytes:
        return f"{num_bytes:,} of {expected_bytes:,} bytes"
    return None if sha256_file(path) == expected_sha256 else "its bytes have changed (SHA-256 does not match)"
