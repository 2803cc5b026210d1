"""Export: the trained student out of a finished run, proven to load with timm alone."""

import shutil
from pathlib import Path

import timm
import torch

from pipeline.checkpoint import load_last_checkpoint
from pipeline.errors import CheckpointError, G2LError, StoreError
from pipeline.export import same_embeddings
from pipeline.files import make_output_folder
from pipeline.models import SCRATCH, Encoder, build_encoder
from pipeline.run_folder import RunFolder

EXPORT_TOLERANCE = 1e-5
"""Largest difference between the exported and the trained student. Our choice: the same weights in the same code differ
by rounding at most."""


def export_student(run_path: Path, out: Path) -> str:
    """Copy a finished run's student to `out`, and prove that timm loads it to the embeddings of the last checkpoint.

    Raises:
        G2LError: the run is not finished, or `out` exists or cannot be written.
        StoreError: timm loads it to other embeddings; `out` is removed again.
    """
    run = RunFolder(run_path)
    record = run.read_identity()["student"]
    if not run.student.exists():
        raise CheckpointError(f"{run_path} is not finished. Run train-student again, then export")
    if out.exists():
        raise G2LError(f"{out} exists and is not overwritten. Choose another --out")
    checkpoint = load_last_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise CheckpointError(f"{run_path} has no checkpoint to compare the student with")
    make_output_folder(out.parent)
    shutil.copytree(run.student, out)
    trained = build_encoder(record["name"], SCRATCH, record["patch_px"]).module
    trained.model.load_state_dict(checkpoint["student"])
    loaded = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    taken = Encoder(loaded, trained.spec).embed if trained.spec.embedding == "cls+mean" else loaded
    images = torch.randn(4, 3, record["patch_px"], record["patch_px"], generator=torch.Generator().manual_seed(0))
    difference = same_embeddings(trained.eval().embed, taken, images)
    if difference > EXPORT_TOLERANCE:
        shutil.rmtree(out)
        raise StoreError(f"timm loads the student to other embeddings (largest difference {difference:g})")
    return (
        f"{out}: timm.create_model('local-dir:{out}', pretrained=True) gives the run's embeddings "
        f"(largest difference {difference:.2g})"
    )
