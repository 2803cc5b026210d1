"""Patch sets with known classes, cases and centres, and embeddings that hold some of the class."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.benchmark import Embeddings as OfModels
from pipeline.evaluate.patch_benchmark.data import PatchSet
from pipeline.evaluate.patch_benchmark.options import PatchOptions
from pipeline.evaluate.patch_benchmark.section import patch_bench, patch_section
from pipeline.report.content import Exclusion, Section

Embeddings = NDArray[np.float32]
ODD = '<script>alert("x")</script>'


def options(**values: Any) -> PatchOptions:
    return PatchOptions.build({"resamples": 200, "draws": 6, "knn": 5} | values)


def section_of(
    patch_set: PatchSet, embeddings: OfModels, reference: str, exclusions: Sequence[Exclusion] = (), **values: Any
) -> Section:
    """The section of models by label, by `options` with these values."""
    return patch_section(patch_bench(patch_set, options(**values)), embeddings, reference, exclusions)


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
