"""The student and its projector, as one trainable thing that can be saved and put back to the bit."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compute import autocast
from pipeline.models import BuiltEncoder
from pipeline.projector import Projector


@dataclass
class Distillation:
    """Student, projector, and how they compute.

    Attributes:
        student: the encoder that is trained.
        projector: its map into the teacher's space.
        device: where both are.
        precision: arithmetic of the student's passes; the projector and the loss are float32.
    """

    student: BuiltEncoder
    projector: Projector
    device: torch.device
    precision: str

    def modules(self) -> list[nn.Module]:
        """All that is trained."""
        return [self.student.module, self.projector]

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of all that is trained."""
        return [p for module in self.modules() for p in module.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> None:
        """Training or evaluation mode for both."""
        for module in self.modules():
            module.train(mode)

    def embed(self, pixels: Tensor) -> Tensor:
        """uint8 (B, P, P, 3) on the device -> the student's embedding, float32 (B, S)."""
        with autocast(self.device, self.precision):
            embedding: Tensor = self.student.module(pixels)
        return embedding.float()

    def state(self) -> dict[str, Any]:
        """Weights and statistics of both."""
        return {"student": self.student.module.model.state_dict(), "projector": self.projector.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Put a `state` back."""
        self.student.module.model.load_state_dict(state["student"])
        self.projector.load_state_dict(state["projector"])


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
