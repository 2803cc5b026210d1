"""Gated-attention multiple-instance learning: one prediction from the embeddings of all patches of a bag.

Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning" (ICML 2018), equations 8 and 9:

    h_k = dropout(relu(W x_k + b))                                 (N, 256)  x standardised by the training part
    a_k = softmax over k of w' (tanh(V h_k) * sigmoid(U h_k))      (N,)
    y   = C sum_k a_k h_k + c                                      (classes,)

All folds are trained side by side, so that a bag is read once an epoch and not once an epoch and fold. Every fold has
its own weights, optimizer and random numbers. Left out: early stopping and any choice of settings by score; the
schedule is fixed, so that no training data need be held back for it. Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.draws import draw_seed
from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.folds import Fold
from pipeline.training.optim import build_optimizer, learning_rate, set_learning_rate

HIDDEN = 256
"""Width that patches are mapped to. Our choice: half of CLAM's 512 (Lu et al., 2021), for cohorts of hundreds."""
ATTENTION = 128
"""Width of the attention, half of `HIDDEN`. Ilse et al. use 128 as well."""
DROPOUT = 0.25
"""Share of `HIDDEN` that is dropped in training, as in CLAM (Lu et al., 2021)."""
PEAK_LR = 3e-4
"""Peak learning rate of AdamW for batches of one bag. Our choice, see docs/decisions/0017."""
WEIGHT_DECAY = 1e-2
"""AdamW's default (Loshchilov and Hutter, 2019, as torch has it)."""
EPOCHS, MIN_STEPS = 30, 1000
"""Epochs, and steps that they make at least: with few bags 30 epochs are so few steps that the network still says the
same of all. Our choice, see docs/decisions/0034.
"""
BAG_PATCHES = 4096
"""Patches of a bag that one step sees, drawn anew each epoch. Our choice: bounds a step's time and memory; bags of the
usual 1,000 to 4,000 sampled patches are seen whole.
"""
BLOCK_PATCHES = 8192
"""Patches in work at once where all of a bag are: 50 MB at a width of 1,536."""
CONSTANT_SPREAD = 1e-6
"""A column whose standard deviation is below this share of its mean is constant: float32 resolves 1e-7."""

ReadBag = Callable[[int], NDArray[np.float32]]
"""The embeddings of all patches of a bag, float32 (N, D), by the bag's index."""
Step = Callable[[], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean (D,) and sum of squared deviations from it (D,) of patches, in float64."""

    count: int
    mean: Floats
    squares: Floats

    @staticmethod
    def of(features: NDArray[np.float32]) -> "Moments":
        """Of the rows of (N, D)."""
        blocks = [features[start : start + BLOCK_PATCHES] for start in range(0, len(features), BLOCK_PATCHES)]
        parts = []
        for block in blocks:
            mean = block.mean(axis=0, dtype=np.float64)
            parts.append(Moments(len(block), mean, np.square(block - mean).sum(axis=0)))
        return Moments.merge(parts)

    @staticmethod
    def merge(parts: Sequence["Moments"]) -> "Moments":
        """Of all rows of `parts` together (Chan, Golub and LeVeque, 1979).

        `training.rows.statistics.teacher_statistics` does the same for the shards of a store, adding one shard at a
        time. The last digits of the two orders differ, and each is part of stored results, so that they stay apart.
        """
        count = sum(part.count for part in parts)
        mean = np.sum([part.mean * (part.count / count) for part in parts], axis=0)
        between = np.sum([part.count * np.square(part.mean - mean) for part in parts], axis=0)
        return Moments(count, mean, np.sum([part.squares for part in parts], axis=0) + between)

    @property
    def scale(self) -> Floats:
        """Standard deviation of each column; 1 for constant ones, which standardising then leaves at 0."""
        spread = np.sqrt(self.squares / self.count)
        return np.where(spread > CONSTANT_SPREAD * np.abs(self.mean), spread, 1.0)


class GatedAttention(nn.Module):
    """The network of the module's docstring for embeddings of width D, in float32."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, HIDDEN)
        self.content = nn.Linear(HIDDEN, ATTENTION)
        self.gate = nn.Linear(HIDDEN, ATTENTION)
        self.attend = nn.Linear(ATTENTION, 1)
        self.classify = nn.Linear(HIDDEN, num_classes)

    def hidden(self, patches: Tensor) -> Tensor:
        """Standardised patches (N, D) as h (N, 256), without dropout."""
        return F.relu(self.embed(patches))

    def scores(self, hidden: Tensor) -> Tensor:
        """Attention before the softmax, (N,), of h (N, 256)."""
        gated = torch.tanh(self.content(hidden)) * torch.sigmoid(self.gate(hidden))
        scores: Tensor = self.attend(gated)
        return scores.squeeze(1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (classes,) of the bag of h (N, 256)."""
        logits: Tensor = self.classify(torch.softmax(self.scores(hidden), dim=0) @ hidden)
        return logits


class _Learner:
    """The network of one fold, and all that trains it."""

    def __init__(
        self,
        fold: Fold,
        truth: NDArray[np.int64],
        moments: Sequence[Moments],
        epochs: int,
        seeds: tuple[int, int],
        device: torch.device,
    ) -> None:
        """Start from weights of the first of `seeds`, drop out by the second; `moments` are those of all bags."""
        self.train, self.test = frozenset(fold.train.tolist()), frozenset(fold.test.tolist())
        self.num_steps = epochs * len(fold.train)
        self.step = 0
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seeds[1])
        of_training = Moments.merge([moments[bag] for bag in fold.train])
        self.mean = torch.tensor(of_training.mean, dtype=torch.float32, device=device)
        self.scale = torch.tensor(of_training.scale, dtype=torch.float32, device=device)
        num_classes = int(truth.max()) + 1
        counts = np.bincount(truth[fold.train], minlength=num_classes)
        assert counts.all(), "a class without a training bag"
        self.class_weights = len(fold.train) / (num_classes * counts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds[0])
            self.model = GatedAttention(len(of_training.mean), num_classes).to(device)
        self.optimizer = build_optimizer([self.model], PEAK_LR, WEIGHT_DECAY)

    def learn(self, patches: Tensor, label: int) -> None:
        """One step on a bag (N, D)."""
        set_learning_rate(self.optimizer, learning_rate(self.step, self.num_steps, PEAK_LR, warmup=0.0))
        hidden = self.model.hidden((patches - self.mean) / self.scale)
        kept = torch.rand(hidden.shape, generator=self.generator, device=self.device) >= DROPOUT
        logits = self.model(hidden * kept / (1 - DROPOUT))
        target = torch.tensor(label, device=self.device)
        loss = F.cross_entropy(logits, target) * float(self.class_weights[label])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1

    @torch.inference_mode()
    def predict(self, patches: Tensor) -> Floats:
        """Probabilities (classes,) of a bag, from all of its patches (N, D)."""
        blocks = torch.split(patches, BLOCK_PATCHES)
        hidden = torch.cat([self.model.hidden((block - self.mean) / self.scale) for block in blocks])
        logits: Tensor = self.model(hidden)
        return torch.softmax(logits.cpu().double(), dim=0).numpy()


def default_epochs(folds: Sequence[Fold]) -> int:
    """Epochs for bags in these folds: `EPOCHS`, or as many as make `MIN_STEPS` in the smallest training part."""
    return max(EPOCHS, ceil(MIN_STEPS / min(len(fold.train) for fold in folds)))


def out_of_fold(
    read_bag: ReadBag,
    moments: Sequence[Moments],
    truth: NDArray[np.int64],
    folds: Sequence[Fold],
    *,
    epochs: int,
    seed: int,
    device: torch.device,
    done: Callable[[], None] = lambda: None,
) -> Floats:
    """Probabilities of every bag by the network of the fold that tests it, (N, classes); NaN for bags of no test part.

    `moments` and `truth` are by bag. `done` is called after each bag of each epoch and each bag that is predicted. On
    one machine the digits depend on the data and the seed alone, not on the number of threads.

    Raises:
        BenchmarkError: training diverged.
    """
    seeds = [(draw_seed("MIL weights", seed, i), draw_seed("MIL dropout", seed, i)) for i in range(len(folds))]
    learners = [_Learner(fold, truth, moments, epochs, own, device) for fold, own in zip(folds, seeds, strict=True)]
    with _side_by_side(device, len(folds)) as run_all:
        for epoch in range(epochs):
            for bag in np.random.default_rng(draw_seed("MIL order", seed, epoch)).permutation(len(truth)).tolist():
                taking = [learner for learner in learners if bag in learner.train]
                if taking:
                    patches = torch.from_numpy(
                        draw_patches(read_bag(bag), draw_seed("MIL patches", seed, epoch, bag))
                    ).to(device)
                    run_all([partial(learner.learn, patches, int(truth[bag])) for learner in taking])
                done()
        probabilities = np.full((len(truth), int(truth.max()) + 1), np.nan)
        for bag in range(len(truth)):
            for learner in learners:
                if bag in learner.test:
                    probabilities[bag] = learner.predict(torch.from_numpy(read_bag(bag)).to(device))
                    if not np.isfinite(probabilities[bag]).all():
                        raise BenchmarkError("the attention MIL diverged: look for features with extreme values")
            done()
    return probabilities


def draw_patches(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """At most `BAG_PATCHES` rows of (N, D), without replacement and in their order; a function of `seed`."""
    if len(features) <= BAG_PATCHES:
        return features
    rows = np.random.default_rng(seed).choice(len(features), BAG_PATCHES, replace=False, shuffle=False)
    return features[np.sort(rows)]


@contextmanager
def _side_by_side(device: torch.device, num_folds: int) -> Iterator[Callable[[Sequence[Step]], None]]:
    """A function that runs steps of different folds: on a CPU each in one thread and several at once, else in turn.

    A sum that several threads share is rounded by how they share it; a fold that has one thread has no such freedom.
    """
    if device.type != "cpu":

        def run_in_turn(steps: Sequence[Step]) -> None:
            for step in steps:
                step()

        yield run_in_turn
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, num_folds), initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def run_at_once(steps: Sequence[Step]) -> None:
                for future in [pool.submit(step) for step in steps]:
                    future.result()

            yield run_at_once
    finally:
        torch.set_num_threads(threads)
