"""Patches with a class, centre and slide each, for the tests of the robustness index and its margins."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.robustness import index as robustness_index
from pipeline.evaluate.robustness import margins as robustness_margins
from pipeline.evaluate.robustness.index import RobustnessIndex
from pipeline.evaluate.robustness.margins import Margins

Names = NDArray[np.str_]


@dataclass(frozen=True)
class Patches:
    """A set of patches: embeddings (N, D), and a class, centre, slide and subset each."""

    embeddings: NDArray[np.floating]
    classes: Names
    centers: Names
    slides: Names
    subsets: Names | None = None

    def index(self, k: int | None = None) -> RobustnessIndex:
        return robustness_index.robustness_index(
            self.embeddings, self.classes, self.centers, self.slides, self.subsets, k
        )

    def margins(self, k: int, resamples: int = 100, seed: int = 0) -> Margins:
        return robustness_margins.robustness_margins(
            self.embeddings, self.classes, self.centers, self.slides, self.subsets, k, resamples, seed
        )

    def take(self, rows: NDArray[np.int64]) -> "Patches":
        subsets = None if self.subsets is None else self.subsets[rows]
        return Patches(self.embeddings[rows], self.classes[rows], self.centers[rows], self.slides[rows], subsets)


def draw(
    seed: int,
    num_rows: int = 60,
    num_classes: int = 3,
    num_centers: int = 3,
    slides_a_center: int = 4,
    biology: float = 0.5,
    center: float = 0.5,
    dim: int = 8,
) -> Patches:
    """Patches whose embeddings hold some of the class and some of the centre."""
    rng = np.random.default_rng(seed)
    of_class, of_center = rng.integers(num_classes, size=num_rows), rng.integers(num_centers, size=num_rows)
    slide = of_center * slides_a_center + rng.integers(slides_a_center, size=num_rows)
    values = rng.standard_normal((num_rows, dim))
    values += biology * rng.standard_normal((num_classes, dim))[of_class]
    values += center * rng.standard_normal((num_centers, dim))[of_center]
    names = np.array(["stroma", "Tumour", "normal", "fat", "necrosis"])
    return Patches(
        values.astype(np.float32),
        names[of_class],
        np.array([f"centre {i}" for i in of_center]),
        np.array([f"slide {i:02d}" for i in slide]),
    )


def draw_two_by_two(seed: int, num_subsets: int = 3, rows_a_cell: int = 9) -> Patches:
    """Subsets of two classes by two centres that share classes, centres and slides."""
    rng = np.random.default_rng(seed)
    parts = []
    for subset in range(num_subsets):
        chosen_classes, chosen_centers = rng.permutation(4)[:2], rng.permutation(4)[:2]
        for c in chosen_classes:
            for m in chosen_centers:
                for i in range(rows_a_cell):
                    parts.append((f"class {c}", f"centre {m}", f"{m} {i % 3}", f"subset {subset}", c, m))
    columns = [np.array(column) for column in zip(*parts, strict=True)]
    values = rng.standard_normal((len(parts), 6)) + rng.standard_normal((4, 6))[columns[4]]
    values += rng.standard_normal((4, 6))[columns[5]]
    return Patches(values, *columns[:4])


def known(of: str, noise: float = 1e-3) -> Patches:
    """Embeddings that hold the class or the centre and nothing else but a little noise."""
    patches = draw(11, num_rows=160, num_classes=2, num_centers=2, slides_a_center=8)
    names = patches.classes if of == "biology" else patches.centers
    codes = np.unique(names, return_inverse=True)[1]
    return replace(patches, embeddings=np.eye(2)[codes] + noise * np.random.default_rng(0).standard_normal((160, 2)))
