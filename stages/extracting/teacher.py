"""The teacher of stage one on its device, and the look at it before hours are spent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.base.console import say
from pipeline.base.devices import choose_device, choose_precision, keep_freed_memory
from pipeline.base.distributed import own_device
from pipeline.base.images import ImageFormat
from pipeline.base.units import resolution_note
from pipeline.cohort.plan import Plan
from pipeline.cohort.views.views import Views
from pipeline.config.model_names import PRETRAINED
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.hub import weights_here
from pipeline.slides.pool import Accepts
from pipeline.slides.staging.ahead import Copies
from pipeline.store.patches import PlannedPatches, StoredPatches, ViewedPatches
from pipeline.store.store import Store
from pipeline.training.preflight import TeacherWork, preflight


@dataclass(frozen=True, eq=False)
class RunningTeacher:
    """A teacher that is on its device, the arithmetic that the user asked for, and the file of its weights if they came
    from one.
    """

    encoder: BuiltEncoder
    device: torch.device
    precision: str
    weights: Path | None = None


def start_teacher(config: ExtractConfig, plan: Plan) -> RunningTeacher:
    """Build the teacher on its device; tell the user if the plan is not at its resolution.

    Raises:
        ConfigError: no such device here, or it cannot compute in the precision.
        EncoderError: the teacher cannot be built for the plan's patches.
    """
    device = own_device(choose_device(config.device))
    keep_freed_memory()
    precision = choose_precision(config.precision, device)
    encoder = build_encoder(config.teacher, config.weights or PRETRAINED, plan.config.patch_px)
    if encoder.note:
        say(encoder.note)
    if note := resolution_note(config.teacher, encoder.spec.mpp, plan.mpp, "the plan is at"):
        say(note)
    encoder.module.to(device)
    return RunningTeacher(encoder, device, precision, config.weights)


def look_at_teacher(
    plan: Plan,
    further_of: Store | None,
    running: RunningTeacher,
    settings: dict[str, Any],
    work: TeacherWork,
    slides_root: Path | None,
    *,
    accepts_changed: Accepts | None,
    copies: Copies | None = None,
) -> dict[str, Any]:
    """Run the preflight; returns its record, for the metadata.

    Args:
        further_of: the store that the teacher is a further one of; the patches are the store's, if it keeps pixels.
        work: what the call will embed.
        copies: of slides in a bucket.

    Raises:
        G2LError: no run can come of it; nothing was written.
    """
    seen: ImageFormat | None = "jpeg" if settings["pixels"] == "jpeg" else None  # lossless ones are seen as they are
    stored = StoredPatches(further_of) if further_of and further_of.has_pixels else None
    patches = stored or PlannedPatches(
        plan, seen, slides_root, tell=say, accepts_changed=accepts_changed, copies=copies
    )
    file = weights_here(running.encoder.spec, running.weights)
    seen_patches = ViewedPatches(patches.read_some, Views(patch_px=plan.config.patch_px), plan.config.read_px)
    return preflight(running.encoder, seen_patches.read, plan, settings, work, device=running.device, file=file)
