"""One step of training: loss, gradient and update, of the whole batch at once or in parts.

The loss is of the whole batch: the projector's statistics and the logarithm join all rows, so that the gradients of the
losses of parts do not add up to its gradient. In parts (`--micro-batch`) the step is still that of the whole batch, as
in GradCache (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021):
    1. embed each part; keep the embeddings (B, S) only
    2. loss of the whole batch, and its gradient by the embeddings and by the projectors
    3. embed each part again, with the random numbers of the first time, and backpropagate its rows of that gradient
What it needs of memory is the activations of one part; what it takes is one more forward pass. Decision 0054.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base import distributed
from pipeline.base.devices import HostCopy, sent
from pipeline.base.distributed import GradientBuckets
from pipeline.base.errors import ConfigError
from pipeline.base.loader import Batch
from pipeline.distillation import Distillation, random_states, restore_random_states
from pipeline.encoders.build import BuiltEncoder
from pipeline.loss import Loss
from pipeline.training.early_stop import EarlyStop
from pipeline.training.sharded.split import require_shardable
from pipeline.training.sharded.update import clip_over_all
from pipeline.training.step.batch_norm import BatchNormOverAll, batch_norms, can_synchronise
from pipeline.training.step.compiled import TrainingPass, compiled_pass, require_compiler
from pipeline.training.step.room import told_of_room


@dataclass(frozen=True)
class HowToStep:
    """How the steps of a run are made.

    Attributes:
        share: rows of a batch in this process.
        world: the number of processes.
        micro_batch: rows in a pass of the student; `None` for all of the share.
        compiled: whether the student is compiled.
        synchronise: whether its own batch normalisation is over all processes.
        sharded: whether it is split over the processes.
    """

    share: int
    world: int = 1
    micro_batch: int | None = None
    compiled: bool = False
    synchronise: bool = True
    sharded: bool = False

    @classmethod
    def here(
        cls, batch_size: int, micro_batch: int | None, *, compiled: bool, synchronise: bool, shard: bool = False
    ) -> "HowToStep":
        """For batches of `batch_size` rows, with the processes that there are now; one process splits nothing."""
        world = distributed.world_size()
        return cls(batch_size // world, world, micro_batch, compiled, synchronise, shard and world > 1)

    @property
    def part(self) -> int | None:
        """Rows in a pass of the student, if that is less than all."""
        return self.micro_batch if self.micro_batch and self.micro_batch < self.share else None

    def require(self, student: BuiltEncoder, device: torch.device) -> None:
        """Check that the student can be trained so.

        Raises:
            ConfigError: it cannot, or torch cannot compile here.
        """
        if norms := len(batch_norms(student.module)):
            if self.part:
                raise ConfigError(
                    f"--micro-batch {self.micro_batch}: {student.spec.name} has {norms} layers of batch normalisation, "
                    f"whose statistics would be those of {self.micro_batch} rows, not of the batch. Leave it out, "
                    "train on more cards, or choose a student without them, such as a ViT"
                )
            if self.world > 1:
                self._require_norms(student)
        if self.sharded:
            require_shardable(student.spec.name, device, compiled=self.compiled)
        if self.compiled:
            require_compiler(device)

    def _require_norms(self, student: BuiltEncoder) -> None:
        """Check that several processes can train a student with batch normalisation."""
        if not self.synchronise and self.share < 2:
            raise ConfigError(
                f"a batch of {self.share * self.world} among {self.world} processes is one row for each, too few for "
                "the student's batch normalisation; use a --batch-size of at least "
                f"{2 * self.world}, or fewer processes"
            )
        if self.synchronise and not can_synchronise(student.module):
            raise ConfigError(
                f"{student.spec.name} normalises over the batch by layers of its own kind, which cannot be "
                f"synchronised over {self.world} processes; train it in one"
            )
        if self.synchronise and self.compiled:
            raise ConfigError(
                f"--compile: {student.spec.name} has batch normalisation, which is synchronised over processes and not "
                "compiled. Leave out --compile, or train in one process"
            )

    def training_pass(self, student: BuiltEncoder) -> TrainingPass:
        """The pass of a student, which is on its device, in training."""
        if self.compiled:
            return compiled_pass(student.module)
        if not (self.synchronise and self.world > 1 and batch_norms(student.module)):
            return student.module

        def synchronised(pixels: Tensor) -> Tensor:
            with BatchNormOverAll():
                embedding: Tensor = student.module(pixels)
            return embedding

        return synchronised


def train_step(
    distillation: Distillation,
    batch: Batch[NDArray[Any]],
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    clip: float,
    early_stop: EarlyStop | None = None,
    gradients: GradientBuckets | None = None,
) -> tuple[Tensor, Tensor]:
    """Train on one batch; returns loss and gradient norm, on the device.

    `clip` is the largest norm of the gradient; 0 for any. `gradients` averages them where there are several processes.

    Raises:
        ConfigError: the device has too little memory; says what to do.
    """
    assert gradients is not None or distributed.world_size() == 1, "who averages the gradients?"
    with told_of_room(distillation, len(batch.rows)):
        return _train_step(distillation, batch, loss_of, optimizer, clip, early_stop, gradients)


def _train_step(
    distillation: Distillation,
    batch: Batch[NDArray[Any]],
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    clip: float,
    early_stop: EarlyStop | None,
    gradients: GradientBuckets | None,
) -> tuple[Tensor, Tensor]:
    """`train_step`, with torch's own error where memory is short."""
    parts = distillation.parts(batch.pixels_on(distillation.device))
    teachers = sent(torch.from_numpy(np.stack(batch.results)), distillation.device).float()
    before = random_states(distillation.device) if len(parts) > 1 else {}
    embedding = distillation.embed(parts[0]) if len(parts) == 1 else embed_without_graph(distillation, parts)
    losses = [head.weight * loss_of(*head.projector(embedding, z)) for head, z in distillation.by_head(teachers)]
    loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
    if early_stop:
        early_stop.expect(HostCopy(distributed.leader_value(loss.detach())).read)
    optimizer.zero_grad(set_to_none=True)
    gradients = gradients or GradientBuckets([])
    with gradients.averaged():
        loss.backward()  # type: ignore[no-untyped-call]
        if len(parts) > 1:
            restore_random_states(before, distillation.device)
            backpropagate_parts(distillation, parts, embedding, gradients)
    clip_norm = clip_over_all if distillation.is_sharded else torch.nn.utils.clip_grad_norm_
    norm = clip_norm(distillation.parameters(), clip or math.inf)
    optimizer.step()
    return loss.detach(), norm.detach()


def embed_without_graph(distillation: Distillation, parts: list[Tensor]) -> Tensor:
    """Embeddings (B, S) of all parts, as if they were inputs: their gradient is kept.

    Each part makes its graph, which is thrown away: without one, torch may choose other kernels, and a compiled student
    other random numbers than in the pass that backpropagates.
    """
    return torch.cat([distillation.embed(part).detach() for part in parts]).requires_grad_()


def backpropagate_parts(
    distillation: Distillation, parts: list[Tensor], embedding: Tensor, gradients: GradientBuckets
) -> None:
    """Embed each part again and backpropagate the gradient of its rows of `embedding` (B, S).

    The random numbers must be those of the first time.
    """
    assert embedding.grad is not None
    of_parts = torch.split(embedding.grad, [len(part) for part in parts])
    for number, (part, gradient) in enumerate(zip(parts, of_parts, strict=True), 1):
        with gradients.more_to_come() if number < len(parts) else nullcontext():
            torch.autograd.backward(distillation.embed(part), gradient)
