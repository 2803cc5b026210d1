"""What a run starts from: published or random weights, a file, or the student and projectors of a finished run.

The cosine schedule spans all steps, so a finished run cannot take more epochs. To train longer, start a new run from
the old one's student and projectors; it has its own warm-up, schedule and optimizer.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.base.errors import ConfigError
from pipeline.config.model_names import PRETRAINED, SCRATCH, is_run
from pipeline.encoders.build import weights_hash
from pipeline.projector import Projector
from pipeline.report.content import AFTER
from pipeline.student.exported import is_student
from pipeline.student.resolve import NamedModel, name_model
from pipeline.training.run_folder import RunFolder


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        weights: what `build_encoder` takes.
        student: the student that it trains on, with its projectors; `None` for other weights.
        notes: for the user.
    """

    weights: str | Path
    student: NamedModel | None = None
    notes: tuple[str, ...] = ()

    def projectors(self, teachers: Sequence[tuple[str, str]]) -> tuple[dict[str, Projector], list[str]]:
        """Projectors of the student into the spaces of those of the `teachers` (names and hashes of their weights) that
        it was distilled from, by name; and a note on each of the others.
        """
        projectors: dict[str, Projector] = {}
        if self.student is None:
            return projectors, []
        notes = []
        for name, weights_sha256 in teachers:
            projector = self.student.projector_into(weights_sha256)
            if projector is None:
                notes.append(
                    f"note: the projector into the space of {name} starts anew: {self.student.label} was not distilled "
                    "from these weights, as far as is known"
                )
            else:
                projectors[name] = projector
        return projectors, notes


def find_start(weights: str) -> Start:
    """What the option `--weights` of a run names.

    Raises:
        ConfigError: a run that is not finished.
    """
    folder = Path(weights)
    if weights in (PRETRAINED, SCRATCH) or not folder.is_dir():
        return Start(weights)
    if is_run(folder) and not RunFolder(folder).student.is_dir():
        raise ConfigError(f"--weights {folder}: this run is not finished and has no student yet; continue it first")
    if not is_run(folder) and not is_student(folder):
        return Start(folder)
    model = name_model(str(folder), None, option="--weights")
    notes = (f"note: {model.note}",) if model.note else ()
    return Start(folder, model if model.role == AFTER else None, notes)


def projector_hash(projector: Projector) -> str:
    """Hex SHA-256 of the part of a projector that a run starts from."""
    return hashlib.sha256(weights_hash(projector.linear).encode()).hexdigest()


@torch.no_grad()
def continue_projector(projector: Projector, start: Projector) -> None:
    """Take the map and the running statistics of `start`; those of the teacher are the new run's own.

    Raises:
        ConfigError: it maps between other widths.
    """
    if projector.linear.weight.shape != start.linear.weight.shape:
        was, now = ("x".join(map(str, p.linear.weight.shape)) for p in (start, projector))
        raise ConfigError(
            f"--weights: its projector is of {was}, this run needs {now}; start from its weights alone, "
            "model.safetensors"
        )
    projector.linear.load_state_dict(start.linear.state_dict())
    projector.student_norm.load_state_dict(start.student_norm.state_dict())
