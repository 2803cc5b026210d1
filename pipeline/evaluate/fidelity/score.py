"""The parts of a fidelity score: the rows of a store that are scored, the teacher's space, each model's way into it,
and what each row adds to the figures.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pipeline.base.console import counted
from pipeline.base.errors import BenchmarkError
from pipeline.projector import EPSILON, Projector
from pipeline.report.content import Column
from pipeline.sampling import TRAIN, VAL
from pipeline.store.store import StoredTeacher
from pipeline.student.resolve import NamedModel
from pipeline.training.held_out import FIGURES as NAMES
from pipeline.training.held_out import MEANINGS
from pipeline.training.linear_map import LinearMap, fit_linear_map
from pipeline.training.rows.order import row_keys
from pipeline.training.rows.statistics import teacher_statistics
from pipeline.training.similarity import (
    NUM_NEIGHBOURS,
    debiased_linear_cka,
    linear_cka,
    neighbour_overlaps,
    retrieval_hits,
    shuffled_cka,
)

IDENTITY, OWN, FITTED = "none needed", "its own projector", "fitted linear map"
"""How a model's embeddings come into the teacher's space."""


def _described(*keys: str, more: str = "") -> dict[str, str]:
    """Names and meanings of figures that training reports too, of the one table of both; `more` goes below each."""
    return {NAMES[key]: f"{MEANINGS[key][0].upper()}{MEANINGS[key][1:]}.{more}" for key in keys}


R2_LINEAR = NAMES["r2_linear"]
OF_ANY_MAP = {
    **_described("cosine"),
    **_described("retrieval_top1", more=" Nearest by cosine."),
    "top-5": "The same, among the five nearest.",
    NAMES["neighbour_overlap"]: f"Mean share of a patch's {NUM_NEIGHBOURS} nearest patches that model and teacher have "
    "in common; needs no map.",
    "CKA": "Linear centred kernel alignment of model and teacher, debiased: by the unbiased estimator of HSIC (Song et "
    "al., 2012; Nguyen et al., 2021). 1 is the teacher itself, turned or scaled; about 0, a little above or below, has "
    "nothing in common with it, whatever the number of patches and of dimensions. Needs no map.",
}
"""Figures that every model has, in the order of the tables, and what each is."""
FITTED_FIGURES = (
    _described("r2_linear", more=" 1 is the teacher itself, 0 the mean of all patches; below 0 it is farther off.")
    | OF_ANY_MAP
)
"""Figures of a model with a fitted map."""
OWN_FIGURES = _described("correlation_mean", "correlation_median", "r2_scaled") | OF_ANY_MAP
"""Figures of a model as it is. R2 without the best scale is not among them: of a standardised projection it is 2 r - 1
for a correlation of r in every dimension, so that below r = 0.5 it is below 0 whatever was learnt (decision 0031).
"""
PLAIN_CKA = Column(
    NAMES["cka"],
    "The same without debiasing (Kornblith et al., 2019), as training logs it. The fewer patches and the more "
    "dimensions there are, the higher it is for nothing in common: a note below has its level by chance.",
)


@dataclass(frozen=True)
class StoreRows:
    """The rows of a store that are scored, and those that maps are fitted on; int64, ascending. `changed` are rows that
    were chosen and left out, because their slide's file is not one that the teacher has seen.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    changed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def all(self) -> NDArray[np.int64]:
        """Both, training rows first."""
        return np.concatenate([self.train, self.val])


def choose_store_rows(teacher: StoredTeacher, most: int, seed: int) -> StoreRows:
    """At most `most` held-out rows and as many training rows, by a hash of the row.

    Raises:
        BenchmarkError: fewer than two rows are held out, or fewer than three are to be trained on.
    """
    chosen = []
    for split in (TRAIN, VAL):
        rows = teacher.ok_rows(split)
        require_enough(teacher, split, len(rows), "Plan with --val-fraction or --val-strip")
        keys = row_keys(rows, seed, 0, "evaluate")
        chosen.append(np.sort(rows[np.argsort(keys, kind="stable")[:most]]))
    return StoreRows(*chosen)


def require_enough(teacher: StoredTeacher, split: int, num_rows: int, advice: str) -> None:
    """Check that a split has enough rows for fidelity; `advice` ends the error's message.

    Raises:
        BenchmarkError: it has not.
    """
    least, words = (3, "to train on") if split == TRAIN else (2, "held out")
    if num_rows < least:
        raise BenchmarkError(
            f"{teacher.folder}: {counted(num_rows, 'row is', 'rows are')} {words}, fidelity needs at least {least}. "
            f"{advice}"
        )


@dataclass(frozen=True)
class StoreEmbeddings:
    """One model's embeddings of a store's rows, float32, and how it reaches the teacher's space.

    Attributes:
        train, val: embeddings (M, S) and (N, S).
        is_teacher: it is the store's teacher; the embeddings are then the store's.
        projector: the student's own, if it was distilled from the store's teacher.
        named: the model as it was named: where a student comes from.
    """

    label: str
    train: NDArray[np.float32]
    val: NDArray[np.float32]
    is_teacher: bool
    projector: Projector | None
    named: NamedModel


class TeacherSpace:
    """The store's teacher on the chosen rows, plain and standardised by the statistics of all training rows."""

    def __init__(self, teacher: StoredTeacher, rows: StoreRows) -> None:
        mean, variance = teacher_statistics(teacher, TRAIN)
        self.mean, self.deviation = mean, np.sqrt(variance + EPSILON)
        self.plain = np.stack([teacher.read_embedding(int(row)) for row in rows.val])
        self.val = self.standardise(self.plain)
        self.train = self.standardise(np.stack([teacher.read_embedding(int(row)) for row in rows.train]))
        self.train_cases = teacher.plan.case_of_row()[rows.train]

    def standardise(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, T) in the standardised space."""
        standardised: NDArray[np.float64] = (embeddings - self.mean) / self.deviation
        return standardised

    def fit_map(self, model: StoreEmbeddings) -> LinearMap:
        """The linear map of a model's embeddings into this space, fitted on the training rows."""
        return fit_linear_map(model.train, self.train, self.train_cases)

    def project(self, model: StoreEmbeddings, fitted: LinearMap) -> dict[str, NDArray[np.float64]]:
        """A model's projections of the held-out rows, float64 (N, T), by how they are made; the fitted one last."""
        projections = {}
        if model.is_teacher:
            projections[IDENTITY] = self.standardise(model.val)
        elif model.projector is not None and model.projector.linear.out_features == len(self.mean):
            with torch.inference_mode():
                as_teacher = model.projector.as_teacher(torch.from_numpy(model.val))
            projections[OWN] = self.standardise(as_teacher.double().numpy())
        projections[FITTED] = fitted.predict(model.val)
        return projections


@dataclass(frozen=True)
class RowFigures:
    """What each held-out row adds to the figures of one projection; float64 (N,) each."""

    residual: NDArray[np.float64]
    total: NDArray[np.float64]
    cosine: NDArray[np.float64]
    top1: NDArray[np.float64]
    top5: NDArray[np.float64]
    overlap: NDArray[np.float64]


def row_figures(space: TeacherSpace, model: StoreEmbeddings, projected: NDArray[np.float64]) -> RowFigures:
    """The figures of all held-out rows; neighbours are searched among all of them."""
    target, made = torch.from_numpy(space.val), torch.from_numpy(projected)
    own, teacher = torch.from_numpy(model.val), torch.from_numpy(space.plain)
    values = [
        (target - made).square().sum(1),
        (target - target.mean(0)).square().sum(1),
        F.cosine_similarity(made, target, dim=1),
        retrieval_hits(made, target, 1),
        retrieval_hits(made, target, 5),
        neighbour_overlaps(own, teacher),
    ]
    return RowFigures(*(value.double().numpy() for value in values))


@dataclass(frozen=True)
class Alignment:
    """Linear CKA of a model with the teacher on held-out rows: debiased (NaN where it is not defined), plain, and the
    plain one's mean over all orders of the rows, which is its level by chance.
    """

    debiased: float
    plain: float
    by_chance: float


def alignment(space: TeacherSpace, model: StoreEmbeddings) -> Alignment:
    """Of all held-out rows."""
    both = torch.from_numpy(model.val), torch.from_numpy(space.plain)
    return Alignment(debiased_linear_cka(*both), linear_cka(*both), shuffled_cka(*both))
