"""Patch sets with known classes, cases and centres, and embeddings that hold some of the class."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.patch_benchmark.data import PatchSet

Embeddings = NDArray[np.float32]
ODD = '<script>alert("x")</script>'


def config(**options: Any) -> EvaluateConfig:
    return EvaluateConfig.build({"models": ["a"], "resamples": 200, "draws": 6, "knn": 5} | options)


def make_set(seed: int = 0, num_rows: int = 240, num_groups: int = 24, **changes: Any) -> PatchSet:
    rng = np.random.default_rng(seed)
    groups = rng.integers(num_groups, size=num_rows)
    made = PatchSet(
        name="tiles",
        source=Path("tiles.csv"),
        paths=[Path(f"{i}.png") for i in range(num_rows)],
        labels=np.array([ODD, "stroma", "tumour"])[rng.integers(3, size=num_rows)],
        groups=np.array([f"case {g}" for g in groups]),
        group_column="case_id",
        centers=np.array(["north", "south"])[groups % 2],
    )
    return replace(made, **changes)


def embed(patch_set: PatchSet, signal: float, seed: int = 1, width: int = 12) -> Embeddings:
    """Random embeddings; each class has a mean, of length `signal` times the noise."""
    rng = np.random.default_rng(seed)
    truth = np.unique(patch_set.labels, return_inverse=True)[1]
    means = rng.normal(size=(truth.max() + 1, width)) * signal
    return (rng.normal(size=(len(truth), width)) + means[truth]).astype(np.float32)
