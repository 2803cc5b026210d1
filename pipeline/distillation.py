"""The student with a projector for each teacher, trained, saved and restored as one; and the loss by its name."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.devices import autocast
from pipeline.config.losses import LOSSES
from pipeline.encoders.build import BuiltEncoder
from pipeline.loss import Loss, require_pairs
from pipeline.projector import Projector


@dataclass(frozen=True)
class Head:
    """The student's part for one teacher.

    Attributes:
        teacher: its name.
        projector: maps the student's embedding (B, S) into the teacher's space (B, T).
        weight: weight of this teacher's loss in the sum.
    """

    teacher: str
    projector: Projector
    weight: float = 1.0


@dataclass
class Distillation:
    """Student and heads, and how they compute.

    Attributes:
        student: the encoder to train.
        heads: one a teacher, in the order of teachers.
        device: the device of all modules.
        precision: arithmetic of the student's passes; projectors and losses are in float32.
        training_pass: the student in training, where that is not just its module: compiled, for example.
        micro_batch: rows in a pass of the student; `None` for any number.
        is_sharded: whether the student is split over the processes, all of which must then embed together.
    """

    student: BuiltEncoder
    heads: tuple[Head, ...]
    device: torch.device
    precision: str
    training_pass: Callable[[Tensor], Tensor] | None = None
    micro_batch: int | None = None
    is_sharded: bool = False

    @property
    def projectors(self) -> tuple[Projector, ...]:
        """The projectors of the heads, in order."""
        return tuple(head.projector for head in self.heads)

    def modules(self) -> list[nn.Module]:
        """All modules to train."""
        return [self.student.module, *self.projectors]

    def parameters(self) -> list[nn.Parameter]:
        """All parameters to train."""
        return [p for module in self.modules() for p in module.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> None:
        """Put all modules into training or evaluation mode."""
        for module in self.modules():
            module.train(mode)

    def embed(self, pixels: Tensor) -> Tensor:
        """uint8 (B, P, P, 3) on the device -> the student's embedding, float32 (B, S)."""
        with autocast(self.device, self.precision):
            if self.student.module.training:
                embedding: Tensor = (self.training_pass or self.student.module)(pixels)
            else:
                with self._evaluating():
                    embedding = torch.cat([self.student.module(part) for part in self.parts(pixels)])
        return embedding.float()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """No inference tensors where the student is split: what is gathered in a pass is used in training later."""
        if not self.is_sharded:
            yield
            return
        with torch.inference_mode(False), torch.no_grad():
            yield

    def parts(self, pixels: Tensor) -> list[Tensor]:
        """Split a batch into parts of `micro_batch` rows; the last may be smaller."""
        return list(torch.split(pixels, self.micro_batch or len(pixels)))

    def by_head(self, teachers: Tensor) -> Iterator[tuple[Head, Tensor]]:
        """Each head with its teacher's embeddings (B, T), split from all teachers' concatenated embeddings."""
        widths = [projector.linear.out_features for projector in self.projectors]
        return zip(self.heads, torch.split(teachers, widths, dim=1), strict=True)

    def state(self) -> dict[str, Any]:
        """State dicts of all modules; projectors are named `projector`, `projector-2` and so on."""
        return {"student": self.student.module.model.state_dict()} | {
            name: projector.state_dict() for name, projector in self._named_projectors()
        }

    def _named_projectors(self) -> Iterator[tuple[str, Projector]]:
        for number, projector in enumerate(self.projectors, start=1):
            yield "projector" if number == 1 else f"projector-{number}", projector

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a `state`."""
        self.student.module.model.load_state_dict(state["student"])
        for name, projector in self._named_projectors():
            projector.load_state_dict(state[name])


def build_projectors(student_width: int, teacher_widths: Sequence[int], seed: int) -> list[Projector]:
    """Build a projector into each teacher's space; adding teachers does not change the first one's weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [Projector(student_width, width) for width in teacher_widths]


def build_loss(name: str, alpha: float) -> Loss:
    """Build the loss of this name from `config.losses.LOSSES`; it raises `ValueError` as `require_pairs`."""
    entry = LOSSES[name]
    module, function = entry.function.split(":")
    loss: Callable[..., Tensor] = getattr(import_module(module), function)
    return partial(_loss_of_pairs, partial(loss, alpha=alpha) if entry.takes_alpha else loss)


def _loss_of_pairs(loss: Loss, projected: Tensor, teacher: Tensor) -> Tensor:
    require_pairs(projected, teacher)
    return loss(projected, teacher)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Torch's random states that a step depends on: of the CPU, and of `device` if it is an accelerator."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore `random_states`; states of another kind of accelerator are ignored."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
