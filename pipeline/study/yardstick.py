"""Score the students of a study alike: the same held-out rows, the same rows for the linear map, the same teacher.

A run's own held-out figures rest on its loss, on its projector, and on the rows that it was trained on. Here each
exported student is embedded once more and compared with the teacher's embeddings of one store, case by case, as
`g2l evaluate --store` does. What is kept of a run are sums over the patches of each held-out case.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import say
from pipeline.base.devices import choose_batch_size, choose_precision, one_thread
from pipeline.base.errors import BenchmarkError
from pipeline.base.loader import one_by_one
from pipeline.base.outside import is_there, read_json, reading
from pipeline.disk.files import sha256_json, write_json
from pipeline.encoders.embed import embed_rows, model_key
from pipeline.evaluate.fidelity.score import StoreEmbeddings, TeacherSpace, choose_store_rows, row_figures
from pipeline.features.cache import cached, require_finite
from pipeline.store.store import StoredTeacher
from pipeline.student.resolve import name_models
from pipeline.study.compare import Scores
from pipeline.training.rows.reading import StoredRows

SCORE_DIGITS = 9
"""Significant digits kept of a sum: later ones depend on the threads of the linear algebra library. Our choice."""
FORMAT = 1
"""Of the files of sums."""


@dataclass(frozen=True)
class CaseSums:
    """A student's sums by held-out case, in the order of `Yardstick.cases`.

    Attributes:
        parts: numerators by score, float64 (C,) each.
        wholes: denominators by score, likewise; the same for all students.
    """

    parts: Mapping[str, NDArray[np.float64]]
    wholes: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Computing:
    """How students are embedded."""

    device: torch.device
    precision: str
    workers: int
    slides_root: Path | None


class Yardstick:
    """Scores students against one teacher of one store; `most` rows of each side are chosen by hash.

    Embeddings are kept in the folder `cache`.

    Raises:
        BenchmarkError: too few rows are held out, or to be trained on.
    """

    def __init__(self, teacher: StoredTeacher, most: int, cache: Path, computing: Computing) -> None:
        self.teacher, self._cache, self._computing = teacher, cache, computing
        self.rows = choose_store_rows(teacher, most, 0)
        self._content, self._rows_hash = teacher.content_hash(), sha256_json(self.rows.all.tolist())
        self.cases, self._case_of_row = np.unique(teacher.plan.case_of_row()[self.rows.val], return_inverse=True)

    def record(self) -> dict[str, Any]:
        """What scores depend on besides the student."""
        return {
            "teacher": self._content,
            "rows": self._rows_hash,
            "precision": choose_precision(self._computing.precision, self._computing.device),
            "format": FORMAT,
        }

    @cached_property
    def _space(self) -> TeacherSpace:
        return TeacherSpace(self.teacher, self.rows)

    def score(self, run: Path) -> CaseSums:
        """Score the exported student of a run.

        Raises:
            G2LError: it cannot be built, or an embedding is not finite.
        """
        (named,) = name_models([f"student={run}"], self.teacher.patch_px)
        built = named.build()
        how, rows = self._computing, self.rows.all.tolist()
        precision = choose_precision(how.precision, how.device)

        def compute() -> NDArray[np.float32]:
            module = built.module.to(how.device)
            stored = StoredRows([self.teacher], slides_root=how.slides_root, tell=say)
            return embed_rows(
                module,
                one_by_one(stored.read),
                rows,
                patch_px=named.patch_px,
                batch_size=choose_batch_size(module, named.patch_px, how.device, precision),
                workers=how.workers,
                device=how.device,
                precision=precision,
                what="scoring",
            )

        data = {"store": self._content, "rows": self._rows_hash, "patch_px": named.patch_px}
        embeddings = cached(self._cache, model_key(built, precision), data, compute)
        require_finite(str(run), embeddings, "the store")
        count = len(self.rows.train)
        with one_thread():
            student = StoreEmbeddings("student", embeddings[:count], embeddings[count:], False, None, named)
            figures = row_figures(self._space, student, self._space.fit_map(student).predict(student.val))
        ones = np.ones(len(self.rows.val))
        row_pairs = {
            "r2-linear": (figures.total - figures.residual, figures.total),
            "neighbour-overlap": (figures.overlap, ones),
            "retrieval": (figures.top1, ones),
            "cosine": (figures.cosine, ones),
        }
        sums = {name: [self._by_case(values) for values in pair] for name, pair in row_pairs.items()}
        return CaseSums({name: pair[0] for name, pair in sums.items()}, {name: pair[1] for name, pair in sums.items()})

    def _by_case(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of (N,) over each case, (C,)."""
        sums = np.bincount(self._case_of_row, weights=values, minlength=len(self.cases))
        return np.array([float(f"{value:.{SCORE_DIGITS}g}") for value in sums])


def write_sums(path: Path, sums: CaseSums, key: Mapping[str, Any]) -> None:
    """Write a run's sums, with the `key` of what they depend on (JSON)."""
    parts, wholes = ({name: values.tolist() for name, values in side.items()} for side in (sums.parts, sums.wholes))
    write_json(path, {"key": dict(key), "parts": parts, "wholes": wholes})


def read_sums(path: Path, key: Mapping[str, Any]) -> CaseSums | None:
    """Read a run's sums; `None` if there are none, or they depend on something else than `key`.

    Raises:
        BenchmarkError: the file is damaged.
    """
    if not is_there(path):
        return None
    with reading(path, "damaged", BenchmarkError, "Delete it; the same command makes it again"):
        record = read_json(path)
        if record["key"] != dict(key):
            return None
        sides = [
            {name: np.array(values, np.float64) for name, values in record[side].items()}
            for side in ("parts", "wholes")
        ]
        lengths = {values.shape for side in sides for values in side.values()}
        if sides[0].keys() != sides[1].keys() or len(lengths) != 1 or len(next(iter(lengths))) != 1:
            raise ValueError("its sums are not of the same cases")
        if not all(np.isfinite(values).all() for side in sides for values in side.values()):
            raise ValueError("a sum is not finite")
        return CaseSums(*sides)


def scores_by_case(runs: list[CaseSums], score: str) -> Scores:
    """The sums of a setting's runs, in the order of seeds, as `compare` takes them."""
    return Scores(np.stack([run.parts[score] for run in runs]), runs[0].wholes[score])
