"""Checkpoints of a run: complete or absent, checked when read, the last few kept.

A checkpoint is `step-<n>.pt` and then `step-<n>.json` with its SHA-256. One that is cut short or damaged is passed over
for the one before.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import CheckpointError
from pipeline.files import sha256_file, write_aside, write_json
from pipeline.runlog import say

KEPT = 2
"""Checkpoints kept: the last one, and one to fall back on."""


def save_checkpoint(folder: Path, step: int, content: dict[str, Any]) -> None:
    """Write the checkpoint of `step`, then delete those older than the last `KEPT`.

    Raises:
        OSError: the disk is full, ...; earlier checkpoints are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.pt"
    with write_aside(path) as f:
        torch.save(content, f)
    write_json(path.with_suffix(".json"), {"step": step, "sha256": sha256_file(path), "bytes": path.stat().st_size})
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink()


def load_last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, on the CPU; `None` if there has been none.

    Raises:
        CheckpointError: there are some, and none is whole.
    """
    paths = sorted(folder.glob("step-*.pt"), reverse=True)
    for path in paths:
        try:
            entry = json.loads(path.with_suffix(".json").read_text())
        except FileNotFoundError:
            continue  # killed between the two files
        except (OSError, json.JSONDecodeError) as error:
            say(f"warning: {path.with_suffix('.json')}: damaged ({error}); using the checkpoint before it")
            continue
        data = path.read_bytes()
        if len(data) != entry["bytes"] or sha256_file(path) != entry["sha256"]:
            say(f"warning: {path}: damaged ({len(data)} of {entry['bytes']} bytes); using the checkpoint before it")
            continue
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return content
    if any(path.with_suffix(".json").exists() for path in paths):
        raise CheckpointError(f"{folder}: no checkpoint is whole. Delete the folder to train from the start")
    return None
