"""The student and its projectors, one a teacher, as one trainable thing that can be saved and put back to the bit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.devices import autocast
from pipeline.encoders.build import BuiltEncoder
from pipeline.loss import Loss
from pipeline.projector import Projector


@dataclass
class Distillation:
    """Student, projector, and how they compute.

    Attributes:
        student: the encoder that is trained.
        projector: its map into the teacher's space; the first teacher's, of several.
        device: where all are.
        precision: arithmetic of the student's passes; projectors and losses are float32.
        others: its maps into the spaces of further teachers.
        weights: of the teachers' losses.
    """

    student: BuiltEncoder
    projector: Projector
    device: torch.device
    precision: str
    others: tuple[Projector, ...] = ()
    weights: tuple[float, ...] = (1.0,)

    @property
    def projectors(self) -> tuple[Projector, ...]:
        """All projectors, in the order of their teachers."""
        return (self.projector, *self.others)

    def modules(self) -> list[nn.Module]:
        """All that is trained."""
        return [self.student.module, *self.projectors]

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of all that is trained."""
        return [p for module in self.modules() for p in module.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> None:
        """Training or evaluation mode for all."""
        for module in self.modules():
            module.train(mode)

    def embed(self, pixels: Tensor) -> Tensor:
        """uint8 (B, P, P, 3) on the device -> the student's embedding, float32 (B, S)."""
        with autocast(self.device, self.precision):
            embedding: Tensor = self.student.module(pixels)
        return embedding.float()

    def by_teacher(self, teachers: Tensor) -> tuple[Tensor, ...]:
        """Joined embeddings (B, T) as those of each teacher."""
        return torch.split(teachers, [projector.linear.out_features for projector in self.projectors], dim=1)

    def loss(self, pixels: Tensor, teachers: Tensor, loss_of: Loss) -> Tensor:
        """The weighted sum of the teachers' losses of a batch; a float32 scalar.

        Args:
            pixels: uint8 (B, P, P, 3) on the device.
            teachers: (B, T), the teachers' embeddings, joined.
        """
        embedding = self.embed(pixels)
        parts = zip(self.weights, self.projectors, self.by_teacher(teachers), strict=True)
        losses = [weight * loss_of(*projector(embedding, teacher)) for weight, projector, teacher in parts]
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def state(self) -> dict[str, Any]:
        """Weights and statistics of all; further projectors are `projector-2` and so on."""
        projectors = zip(self._projector_names(), self.projectors, strict=True)
        return {"student": self.student.module.model.state_dict(), **{name: p.state_dict() for name, p in projectors}}

    def _projector_names(self) -> list[str]:
        return ["projector", *(f"projector-{i}" for i in range(2, len(self.projectors) + 1))]

    def load_state(self, state: dict[str, Any]) -> None:
        """Put a `state` back."""
        self.student.module.model.load_state_dict(state["student"])
        for name, projector in zip(self._projector_names(), self.projectors, strict=True):
            projector.load_state_dict(state[name])


def build_projectors(student_width: int, teacher_widths: Sequence[int], seed: int) -> list[Projector]:
    """A projector into each teacher's space; the first one's weights do not depend on how many there are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [Projector(student_width, width) for width in teacher_widths]


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Torch's random states that a step depends on: of the CPU, and of `device` if that is an accelerator."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Put `random_states` back; those of an accelerator that is not used now are passed over."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
