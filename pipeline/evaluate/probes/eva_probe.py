"""The linear probe as kaiko-eva trains it on embeddings: one layer, AdamW, early stop by the validation accuracy.

Settings are those of eva's evaluation protocol for patch-level classification (kaiko-ai/eva, docs/leaderboards.md, and
configs/vision/pathology/offline/classification/breakhis.yaml; `protocols` says what differs). With two classes it has a
single output and the binary cross entropy, and the accuracy is the plain one; with more, the accuracy is torchmetrics'
macro accuracy. Left out: other devices. It runs on the CPU, one thread a fold, so that no digit depends on the machine.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from pipeline.base.draws import draw_seed
from pipeline.evaluate.folds import Rows
from pipeline.evaluate.probes.logistic import Floats

RUNS = 5
MAX_STEPS = 12_500
BATCH_SIZE = 256
PEAK_LR = 3e-4
DECAY = 0.01
"""torch's default of AdamW, which eva's configuration leaves as it is."""
PATIENCE = 0.2
"""Of the epochs that `MAX_STEPS` make; rounded down, at least one. The rounding is our choice."""


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """The checkpoint of the best validation accuracy, the first of several.

    Attributes:
        weights: (D, outputs).
        bias: (outputs,); with two classes there is one output, the logit of the second.
        steps: that it was trained for.
    """

    weights: Tensor
    bias: Tensor
    steps: int

    def log_probabilities(self, features: NDArray[np.float32]) -> Floats:
        """Of the classes, of `features` (N, D): (N, C)."""
        with torch.no_grad():
            logits = _logits(torch.from_numpy(features), self.weights, self.bias).double()
        return np.asarray(log_softmax(logits, dim=1).numpy())


def train_layer(
    train: tuple[NDArray[np.float32], Rows], val: tuple[NDArray[np.float32], Rows], num_classes: int, seed: int
) -> TrainedLayer:
    """Train on features (n, D) and classes (n,), and keep what tells the validation rows' classes best.

    Args:
        seed: of the weights at the start and of the order of rows; eva's own runs draw both anew.
    """
    generator = torch.Generator().manual_seed(draw_seed("eva probe", seed) % (1 << 62))
    features, truth = torch.from_numpy(train[0]), torch.from_numpy(train[1])
    val_features = torch.from_numpy(val[0])
    layer = torch.nn.Linear(features.shape[1], 1 if num_classes == 2 else num_classes)
    bound = features.shape[1] ** -0.5  # of torch's own start, drawn here from a generator of its own
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=PEAK_LR, weight_decay=DECAY)
    steps_an_epoch = -(-len(truth) // BATCH_SIZE)
    patience = max(1, int(PATIENCE * MAX_STEPS / steps_an_epoch))
    best, best_accuracy, waited, steps = None, -1.0, 0, 0
    while waited < patience and (steps < MAX_STEPS or best is None):
        order = torch.randperm(len(truth), generator=generator)
        for rows in torch.split(order, BATCH_SIZE)[: MAX_STEPS - steps]:
            optimizer.zero_grad()
            cross_entropy(_logits(features[rows], layer.weight.T, layer.bias), truth[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
        with torch.no_grad():
            predicted = _logits(val_features, layer.weight.T, layer.bias).argmax(1).numpy()
        accuracy = monitored_accuracy(val[1], predicted, num_classes)
        waited += 1
        if accuracy > best_accuracy:
            best_accuracy, waited = accuracy, 0
            best = TrainedLayer(layer.weight.detach().T.clone(), layer.bias.detach().clone(), steps)
    assert best is not None
    return best


def monitored_accuracy(truth: Rows, predicted: Rows, num_classes: int) -> float:
    """What eva chooses checkpoints by: with two classes the share that is right; with more the mean over classes of
    the share of their rows that is right, 0 for a class that is predicted and does not occur (torchmetrics' macro).
    """
    right = predicted == truth
    if num_classes == 2:
        return float(right.mean())
    support, named, hits = (np.bincount(rows, minlength=num_classes) for rows in (truth, predicted, truth[right]))
    return float((hits / np.maximum(support, 1))[support + named > 0].mean())


def _logits(features: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """(N, C) of `features` (N, D); the single output of two classes is beside a 0, as whose softmax it is a sigmoid."""
    outputs = features @ weights + bias
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1) if outputs.shape[1] == 1 else outputs
