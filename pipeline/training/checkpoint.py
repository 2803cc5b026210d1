"""Checkpoints of a run: complete or absent, checked when read; the last few are kept, and the best of each.

A checkpoint is `step-<n>.pt` and then `step-<n>.json` with its SHA-256 and the step of the best one up to it. One that
is cut short or damaged is passed over for the one before.
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
    """See that the weights and statistics after `step` steps, state dicts by name, can be kept.

    Raises:
        G2LError: one is NaN or infinite.
    """
    for part, tensors in state.items():
        for name, value in tensors.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise diverged(step, f"the {part}'s {name} is not finite")


def save_checkpoint(folder: Path, step: int, content: dict[str, Any], best: int | None = None) -> None:
    """Write the checkpoint of `step`, then delete all but the last `KEPT` up to it and the best of each of these: so a
    run that falls back on an earlier one finds the best of that time.

    `best` is the step of the best one up to now. Later ones are deleted as well: a run that comes to `step` again has
    passed them over as damaged.

    Raises:
        CheckpointError: the disk is full, ...; earlier checkpoints are as they were.
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
            f"cannot write the checkpoint {path} ({_cause(error)}). Earlier ones are safe: mend the cause, and run the "
            "same command again"
        ) from error


def step_path(folder: Path, step: int) -> Path:
    """File of the checkpoint of `step`."""
    return folder / f"step-{step:09d}.pt"


def _best_up_to(path: Path) -> int | None:
    """The best step that a checkpoint names; `None` for one that names none, or is damaged."""
    try:
        with reading(path.with_suffix(".json"), "damaged", CheckpointError):
            best = read_json(path.with_suffix(".json")).get("best")
            return None if best is None else int(best)
    except CheckpointError:
        return None


def _cause(error: BaseException) -> str:
    """The system's words for what went wrong, from under whatever was raised on top of it."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__cause__ or inner.__context__
    return inner.strerror if isinstance(inner, OSError) and inner.strerror else str(error).splitlines()[0]


def load_last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, on the CPU; `None` if there has been none.

    Raises:
        CheckpointError: there are some, and none is whole.
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
        say(f"warning: {path}: damaged ({problem}); looking for the checkpoint before it")
    if num_damaged:
        raise CheckpointError(f"{folder}: no checkpoint is whole. Delete the folder to train from the start")
    return None


def load_checkpoint(folder: Path, step: int) -> dict[str, Any]:
    """The checkpoint of `step`, on the CPU.

    Raises:
        CheckpointError: it is not there, or not whole.
    """
    path = step_path(folder, step)
    if not path.exists() or not path.with_suffix(".json").exists():
        raise CheckpointError(f"{path}: the checkpoint of this step is not there; runs that version 0.1.0 began keep "
                              "the last ones only")  # fmt: skip
    if problem := _problem(path):
        raise CheckpointError(f"{path}: damaged ({problem})")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint; `None` when it is as it was written."""
    try:
        with reading(path.with_suffix(".json").name, "unreadable", CheckpointError):
            entry = read_json(path.with_suffix(".json"))
            expected_bytes, expected_sha256 = int(entry["bytes"]), str(entry["sha256"])
    except CheckpointError as error:
        return str(error)
    if (num_bytes := path.stat().st_size) != expected_bytes:
        return f"{num_bytes:,} of {expected_bytes:,} bytes"
    return None if sha256_file(path) == expected_sha256 else "its bytes have changed (SHA-256 does not fit)"
