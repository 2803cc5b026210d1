"""Models whose embeddings are those of a store's teacher, changed."""

from typing import Any

import numpy as np

from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.fidelity.score import StoreEmbeddings, StoreRows, choose_store_rows
from pipeline.store.store import Store
from pipeline.student.resolve import NamedModel

CONFIG = EvaluateConfig(models=["x"], resamples=200)


def teacher_embeddings(store: Store, rows: np.ndarray) -> np.ndarray:
    return np.stack([store.first.read_embedding(int(row)) for row in rows])


def scored(store: Store, label: str, change: Any = None, **options: Any) -> tuple[StoreRows, StoreEmbeddings]:
    """A model whose embeddings are those of the teacher, changed."""
    rows = choose_store_rows(store.first, CONFIG)
    train, val = (teacher_embeddings(store, part) for part in (rows.train, rows.val))
    if change is not None:
        train, val = change(train).astype(np.float32), change(val).astype(np.float32)
    named = NamedModel(label, "any", "scratch", 32, **options.pop("named", {}))
    values = {"is_teacher": False, "projector": None, "named": named} | options
    return rows, StoreEmbeddings(label=label, train=train, val=val, **values)
