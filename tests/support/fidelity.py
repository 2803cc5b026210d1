"""Models whose embeddings are those of a store's teacher, changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluate.fidelity.options import FidelityOptions
from pipeline.evaluate.fidelity.score import StoreEmbeddings, StoreRows, choose_store_rows
from pipeline.evaluate.fidelity.section import fidelity_section
from pipeline.report.content import Section
from pipeline.store.store import Store, StoredTeacher
from pipeline.student.resolve import NamedModel

OPTIONS = FidelityOptions(resamples=200)


def chosen_rows(store: Store, most: int = OPTIONS.store_rows, seed: int = OPTIONS.seed) -> StoreRows:
    return choose_store_rows(store.first, most, seed)


def section_of(
    teacher: StoredTeacher, rows: StoreRows, models: Sequence[StoreEmbeddings], out: Path, reference: str | None = None
) -> Section:
    """The section by `OPTIONS`."""
    return fidelity_section(
        teacher,
        rows,
        models,
        out,
        reference=reference,
        most_rows=OPTIONS.store_rows,
        resamples=OPTIONS.resamples,
        seed=OPTIONS.seed,
    )


def teacher_embeddings(store: Store, rows: np.ndarray) -> np.ndarray:
    return np.stack([store.first.read_embedding(int(row)) for row in rows])


def scored(store: Store, label: str, change: Any = None, **options: Any) -> tuple[StoreRows, StoreEmbeddings]:
    """A model whose embeddings are those of the teacher, changed."""
    rows = chosen_rows(store)
    train, val = (teacher_embeddings(store, part) for part in (rows.train, rows.val))
    if change is not None:
        train, val = change(train).astype(np.float32), change(val).astype(np.float32)
    named = NamedModel(label, "any", "scratch", 32, **options.pop("named", {}))
    values = {"is_teacher": False, "projector": None, "named": named} | options
    return rows, StoreEmbeddings(label=label, train=train, val=val, **values)
