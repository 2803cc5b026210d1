"""Tasks for probes, and embeddings that hold their classes as far as asked."""

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.folds import group_folds
from pipeline.evaluate.probes.linear_probe import ProbeTask, probe_task

Embeddings = NDArray[np.float32]


def make_task(seed: int = 0, num_rows: int = 240, num_classes: int = 3, num_groups: int = 24) -> ProbeTask:
    rng = np.random.default_rng(seed)
    groups = np.array([f"case {g}" for g in rng.integers(num_groups, size=num_rows)])
    labels = np.array([f"class {c}" for c in rng.integers(num_classes, size=num_rows)])
    return probe_task(labels, groups, group_folds(labels, groups, 4, seed), seed)


def make_embeddings(task: ProbeTask, signal: float, width: int = 16, seed: int = 5) -> Embeddings:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(len(task.classes), width)) * signal
    return (3 + (rng.normal(size=(len(task.truth), width)) + means[task.truth]) * rng.uniform(0.1, 9, width)).astype(
        np.float32
    )
