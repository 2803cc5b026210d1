"""Checkpoints of a run: complete or absent, and checked when read.

A checkpoint is `step-<n>.pt`, then `step-<n>.json` with its SHA-256 and the step of the best checkpoint so far. Where
the student is split over processes it is a folder `step-<n>`, to which each process writes its part (`sharded.parts`),
and the JSON has the SHA-256 of its files. Loading skips a truncated or damaged one and takes the one before. Saving
keeps the last few, and the best that each names. Either kind can be loaded whole, or split.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from pipeline.base import distributed, interrupts
from pipeline.base.console import say
from pipeline.base.errors import CheckpointError
from pipeline.base.outside import read_json, reading
from pipeline.disk.asides import aside_name, remove
from pipeline.disk.files import sha256_file, sync_folder, sync_tree, write_aside, write_json
from pipeline.training.run_folder import diverged, saved_steps
from pipeline.training.sharded.parts import Like, put_back, read_parts, tensors_and_rest, write_parts
from pipeline.training.sharded.split import local, take_part

KEPT = 2
"""Checkpoints kept: the last one, and one to fall back on."""
NOT_NEEDED = ("optimizer",)
"""What a checkpoint of parts has that the student does not need."""


def check_finite(step: int, state: dict[str, dict[str, torch.Tensor]], *, sharded: bool = False) -> None:
    """Check that all weights and statistics after `step` steps are finite; `state` has state dicts by module name.

    Where it is `sharded`, each process checks its part; all must call this, and all raise.

    Raises:
        G2LError: one is NaN or infinite.
    """
    wrong = [
        f"the {part}'s {name} is not finite"
        for part, tensors in state.items()
        for name, value in tensors.items()
        if value.is_floating_point() and not torch.isfinite(local(value)).all()
    ]
    if sharded:
        wrong = [each for process in distributed.gather(wrong) for each in process]
    if wrong:
        raise diverged(step, wrong[0])


def save_checkpoint(
    folder: Path, step: int, content: dict[str, Any], best: int | None = None, *, sharded: bool = False
) -> None:
    """Write the checkpoint of `step`, then delete old ones.

    See `delete_old` for what is kept. Deletes later ones too: a run that reaches `step` again has skipped them as
    damaged. `best` is the step of the best checkpoint so far. All processes write a `sharded` one together, on a file
    system that they share; of what is no tensor the first process's is written.

    Raises:
        CheckpointError: the disk is full, ...; earlier checkpoints are unchanged.
        GroupError: another process has ended.
    """
    path = step_path(folder, step)
    try:
        with distributed.lost_processes_told():
            facts = _write_folder(path.with_suffix(""), content) if sharded else _write_file(path, content)
        if not distributed.is_leader():
            return
        write_json(path.with_suffix(".json"), {"step": step} | facts | ({} if best is None else {"best": best}))
        delete_old(folder, step)
        for later in [number for number in saved_steps(folder) if number > step]:
            _delete(step_path(folder, later))
    except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
        raise CheckpointError(
            f"cannot write the checkpoint {path} ({_cause(error)}). Earlier ones are safe: fix the cause, then run the "
            "same command again"
        ) from error


def delete_old(folder: Path, step: int) -> None:
    """Delete the checkpoints before `step` that are no longer needed.

    Keeps the last `KEPT` up to `step` and the best that each of them names, so that a run that falls back on an earlier
    checkpoint finds the best of that time. A run calls this after each checkpoint, and again where it continues: it may
    have been killed between the two.

    Raises:
        OSError: one cannot be deleted.
    """
    earlier = [number for number in saved_steps(folder) if number <= step]
    kept = earlier[-KEPT:]
    pinned = {named for number in kept if (named := _best_up_to(folder, number)) is not None}
    for old in earlier:
        if old not in kept and old not in pinned:
            _delete(step_path(folder, old))


def _write_file(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write a checkpoint as one file; returns what its entry says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    with write_aside(path) as f:
        torch.save(content, f)
    if path.with_suffix("").is_dir():  # the run was continued otherwise than before
        shutil.rmtree(path.with_suffix(""))
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def _write_folder(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write a checkpoint as a folder, with all other processes; returns what its entry says of it.

    The folder has its name only when every file is on disk.
    """
    leads, aside = distributed.is_leader(), folder.with_name(aside_name(folder.name))
    key = interrupts.undo_at_end(lambda: remove(aside), aside) if leads else None
    try:
        if leads:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _delete(folder.with_suffix(".pt"))
            aside.mkdir()
        shared = distributed.gather(aside)[0]
        files = write_parts(shared, content)
        if leads:
            sync_tree(aside)
            with interrupts.guard:
                os.rename(aside, folder)
            sync_folder(folder.parent)
        return {"files": files}
    finally:
        if leads:
            remove(aside)
            interrupts.settled(key)


def _delete(path: Path) -> None:
    """Delete the checkpoint of the file `path`, in either form; its entry first."""
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    if path.with_suffix("").is_dir():
        shutil.rmtree(path.with_suffix(""))


def step_path(folder: Path, step: int) -> Path:
    """Path of the checkpoint of `step`; one of parts lies beside it, without the suffix."""
    return folder / f"step-{step:09d}.pt"


def _best_up_to(folder: Path, step: int) -> int | None:
    """The best step that the checkpoint of `step` names; `None` if it names none or is damaged."""
    path = step_path(folder, step).with_suffix(".json")
    try:
        with reading(path, "damaged", CheckpointError):
            best = read_json(path).get("best")
            return None if best is None else int(best)
    except CheckpointError:
        return None


def _cause(error: BaseException) -> str:
    """The message of the system error below `error`; its own first line if there is none."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__cause__ or inner.__context__
    return inner.strerror if isinstance(inner, OSError) and inner.strerror else str(error).splitlines()[0]


def find_last_checkpoint(folder: Path) -> int | None:
    """The step of the newest intact checkpoint; `None` if there is no checkpoint.

    Raises:
        CheckpointError: all are damaged.
    """
    num_damaged = 0
    for step in reversed(saved_steps(folder)):
        path = step_path(folder, step)
        if not path.with_suffix(".json").exists():
            continue  # killed between the two files
        problem = _problem(path)
        if problem is None:
            return step
        num_damaged += 1
        shown = path if path.exists() else path.with_suffix("")
        say(f"warning: {shown}: damaged ({problem}); trying the checkpoint before it")
    if num_damaged:
        raise CheckpointError(f"{folder}: all checkpoints are damaged. Delete the folder to train from the start")
    return None


def load_last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Load the newest intact checkpoint onto the CPU; `None` if there is no checkpoint.

    Raises:
        CheckpointError: all are damaged.
    """
    step = find_last_checkpoint(folder)
    return None if step is None else _read(step_path(folder, step))


def load_last_parts(folder: Path, like: Like) -> dict[str, Any] | None:
    """Load this process's part of the newest intact checkpoint, of either kind, into the tensors that `like` gives;
    `None` if there is no checkpoint. All processes must call this; the first one chooses the checkpoint.

    Raises:
        CheckpointError: all are damaged.
    """
    found = distributed.gather([find_last_checkpoint(folder)] if distributed.is_leader() else [])[0]
    if found[0] is None:
        return None
    path = step_path(folder, found[0])
    with reading(path, "damaged", CheckpointError):
        if path.with_suffix("").is_dir():
            return read_parts(path.with_suffix(""), like)
        whole: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        tensors, rest = tensors_and_rest(whole)
        parts = {name: take_part(value, like(name, value.shape, value.dtype)) for name, value in tensors.items()}
        return put_back(rest, parts)


def load_checkpoint(folder: Path, step: int) -> dict[str, Any]:
    """Load the checkpoint of `step` onto the CPU; one of parts without the optimiser's state.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = step_path(folder, step)
    if step not in saved_steps(folder) or not path.with_suffix(".json").exists():
        raise CheckpointError(
            f"{path}: the checkpoint of this step is missing; runs begun by version 0.1.0 keep only the last ones"
        )
    if problem := _problem(path):
        raise CheckpointError(f"{path}: damaged ({problem})")
    return _read(path, NOT_NEEDED)


def _read(path: Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read an intact checkpoint, in either form, onto the CPU; of parts all but what is left out."""
    if path.exists():
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    with reading(path.with_suffix(""), "damaged", CheckpointError):
        return read_parts(path.with_suffix(""), without=without)


def _problem(path: Path) -> str | None:
    """What is wrong with the checkpoint of the file `path`, in either form; `None` if it is intact."""
    try:
        with reading(path.with_suffix(".json").name, "unreadable", CheckpointError):
            entry = read_json(path.with_suffix(".json"))
            place, files = (
                (path.with_suffix(""), entry["files"]) if "files" in entry else (path.parent, {path.name: entry})
            )
            expected = {place / name: (int(facts["bytes"]), str(facts["sha256"])) for name, facts in files.items()}
    except CheckpointError as error:
        return str(error)
    for file, (expected_bytes, expected_sha256) in expected.items():
        if not file.is_file():
            return f"{file.name} is missing"
        if (num_bytes := file.stat().st_size) != expected_bytes:
            return f"{num_bytes:,} of {expected_bytes:,} bytes"
        if sha256_file(file) != expected_sha256:
            return "its bytes have changed (SHA-256 does not match)"
    return None
