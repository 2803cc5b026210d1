"""Export: the trained student out of a finished run, proven to load with timm alone."""

import os
import shutil
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from torch import Tensor

from pipeline.checkpoint import load_last_checkpoint
from pipeline.errors import CheckpointError, G2LError, StoreError
from pipeline.export import same_embeddings
from pipeline.files import ASIDE_SUFFIX, exclusive, sync_folder
from pipeline.models import SCRATCH, Encoder, build_encoder
from pipeline.run_folder import RunFolder
from pipeline.shards import sync_tree

EXPORT_TOLERANCE = 1e-5
"""Largest difference between the exported and the trained student. Our choice: the same weights in the same code differ
by rounding at most."""


def export_student(run_path: Path, out: Path) -> str:
    """Copy a finished run's student to `out`, and prove that timm loads it to the embeddings of the last checkpoint.

    Copied aside, proven, then renamed: after any error there is nothing at `out`.

    Raises:
        G2LError: the run is not finished, or `out` exists or cannot be written.
        StoreError: timm loads it to other embeddings, or not at all.
    """
    run = RunFolder(run_path)
    record = run.read_identity()["student"]
    if not run.student.exists():
        raise CheckpointError(f"{run_path} is not finished. Run train-student again, then export")
    if run_path.resolve() in out.resolve().parents:
        raise G2LError(f"{out} lies inside the run. Choose another --out")
    if out.exists():
        raise G2LError(f"{out} exists and is not overwritten. Choose another --out")
    checkpoint = load_last_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise CheckpointError(f"{run_path} has no checkpoint to compare the student with")
    aside = out.with_name(out.name + ASIDE_SUFFIX)
    with exclusive(out, "g2l export"):
        try:
            _copy(run.student, aside, out)
            difference = _difference(aside, record, checkpoint["student"])
            try:
                os.rename(aside, out)
                sync_folder(out.parent)
            except OSError as error:
                raise G2LError(f"cannot write the student to {out}: {error.strerror}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return (
        f"{out}: timm.create_model('local-dir:{out}', pretrained=True) gives the run's embeddings "
        f"(largest difference {difference:.2g})"
    )


def _copy(student: Path, aside: Path, out: Path) -> None:
    """Copy the student's folder to `aside`, durably.

    Raises:
        G2LError: it cannot be read, or `aside` cannot be written; the first reason is told.
    """
    shutil.rmtree(aside, ignore_errors=True)  # what a killed export left
    try:
        shutil.copytree(student, aside)
        sync_tree(aside)
    except shutil.Error as error:  # a list of (from, to, why)
        raise G2LError(f"cannot copy the student to {out}: {error.args[0][0][2]}. Choose another --out") from error
    except OSError as error:
        raise G2LError(f"cannot copy the student to {out}: {error.strerror or error}. Choose another --out") from error


def _difference(folder: Path, record: dict[str, Any], state: dict[str, Tensor]) -> float:
    """Largest difference between the embeddings of the student in `folder`, as timm loads it, and of the trained one.

    Raises:
        StoreError: it is beyond `EXPORT_TOLERANCE`, or timm does not load the folder.
    """
    trained = build_encoder(record["name"], SCRATCH, record["patch_px"]).module
    trained.model.load_state_dict(state)
    try:
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise StoreError(f"timm does not load the run's student ({error})") from error
    taken = Encoder(loaded, trained.spec).embed if trained.spec.embedding == "cls+mean" else loaded
    images = torch.randn(4, 3, record["patch_px"], record["patch_px"], generator=torch.Generator().manual_seed(0))
    difference = same_embeddings(trained.eval().embed, taken, images)
    if not difference <= EXPORT_TOLERANCE:  # NaN is not good either
        raise StoreError(f"timm loads the student to other embeddings (largest difference {difference:g})")
    return difference
