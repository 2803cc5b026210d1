"""The estimate before a run: of its own batches, said once, and without a trace."""

from pathlib import Path
from typing import Any

import pytest
from support.stores import dropping_cnn, make_store, run_files, train_config
from support.training import unbegun_run

from pipeline.base.loader import Batch
from pipeline.training.rows.order import epoch_order
from pipeline.training.step.rehearsal import load_timed
from stages import train_student as stage
from stages.training import cost

pytestmark = pytest.mark.usefixtures("one_thread")


def test_loading_is_that_of_the_runs_own_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = train_config(dropping_cnn(tmp_path / "cnn"), augment="none")
    run = unbegun_run(make_store(tmp_path / "store.zarr"), config)
    rehearsed: list[Batch[Any]] = []

    def rehearse_it(_: Any, batch: Batch[Any], *rest: Any) -> float:
        rehearsed.append(batch)
        return 0.25

    monkeypatch.setattr(cost, "rehearse", rehearse_it)
    monkeypatch.setattr(cost, "load_timed", lambda loader, *rows: (load_timed(loader, *rows)[0], 0.75))
    assert f"{run.num_steps} steps of 1,000 ms (250 to compute, 750 to load on the same cores)" in cost.cost_of(run)
    order = epoch_order(run.rows.train, run.config.seed, 0).tolist()
    assert rehearsed[0].rows == order[8:16]
    monkeypatch.setattr(cost, "batches_of", lambda *_: iter([order[:8]]))  # an epoch of one batch
    cost.cost_of(run)
    assert rehearsed[1].rows == order[:8]


@pytest.mark.slow
def test_a_run_is_the_same_to_the_bit_without_its_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store.zarr")
    config = train_config(dropping_cnn(tmp_path / "cnn"), epochs=1)
    stage.train_student(store, tmp_path / "with", config)
    monkeypatch.setattr(cost, "cost_of", lambda _: "")
    stage.train_student(store, tmp_path / "without", config)
    assert run_files(tmp_path / "with") == run_files(tmp_path / "without")


@pytest.mark.slow
def test_a_run_says_its_estimate_once_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store.zarr")
    config = train_config(dropping_cnn(tmp_path / "cnn"), epochs=1)
    stage.train_student(store, tmp_path / "run", config)
    said = capsys.readouterr().err
    assert said.count("estimate: 6 steps of ") == 1
    stage.train_student(store, tmp_path / "run", config)
    assert "estimate" not in capsys.readouterr().err
