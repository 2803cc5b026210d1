"""The parts of a fidelity score: chosen rows, the teacher's space, and what each row adds, against plain loops."""

from pathlib import Path

import numpy as np
import pytest
from support.fidelity import CONFIG
from support.stores import make_store

from pipeline.base.errors import BenchmarkError
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.fidelity.score import (
    choose_store_rows,
)
from pipeline.store.store import Store


def test_the_rows_are_a_sample_by_hash(store: Store) -> None:
    few = choose_store_rows(store.first, EvaluateConfig(models=["x"], store_rows=10))
    assert len(few.train) == len(few.val) == 10
    assert set(few.val.tolist()) < set(choose_store_rows(store.first, CONFIG).val.tolist())
    assert (few.val == np.sort(few.val)).all()
    other = choose_store_rows(store.first, EvaluateConfig(models=["x"], store_rows=10, seed=1))
    assert few.val.tolist() != other.val.tolist()


def test_a_store_without_held_out_rows_has_no_fidelity(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(20,), val=())
    with pytest.raises(BenchmarkError, match=r"0 rows are held out.*--val-fraction"):
        choose_store_rows(store.first, CONFIG)
