"""Steps before a run leave no trace, and what is estimated follows from the ledger and the time of a step."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.stores import dropping_cnn, make_store, run_files, train_config
from support.training import same_state

from pipeline.base.loader import Batch
from pipeline.cohort.views import Views
from pipeline.distillation import build_loss, random_states
from pipeline.store.store import Store
from pipeline.training.step.rehearsal import cost_words, rehearse
from stages import train_student as stage

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path: Path) -> stage.Run:
    """A run that has not begun, of a student with drop-path, dropout and batch normalisation."""
    store = make_store(tmp_path / "store.zarr")
    config = train_config(dropping_cnn(tmp_path / "cnn"), augment="none")
    teachers = stage.choose_teachers(store, None, None)
    built = stage.build_encoder(config.student, "scratch", store.patch_px, seed=0)
    rows = stage.choose_rows(teachers.stored, batch_size=8, val_rows=16, seed=0)
    return stage.prepare_run(teachers, rows, built, config, stage.RunDraws(0), torch.device("cpu"), "float32")


def test_rehearsed_steps_leave_no_trace(run: stage.Run) -> None:
    distillation, pixels = run.distillation, torch.zeros((8, 32, 32, 3), dtype=torch.uint8)
    results = list(np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32))
    states = copy.deepcopy(distillation.state())
    random = random_states(distillation.device)
    arguments: Any = (build_loss("log-sum", 4.0), run.optimizer, 1.0, run.gradients)
    assert rehearse(distillation, Batch(range(8), pixels, results), *arguments) > 0
    assert all(same_state(states[part], each) for part, each in distillation.state().items())
    assert torch.equal(random["cpu"], random_states(distillation.device)["cpu"])
    assert not run.optimizer.state
    assert all(parameter.grad is None for parameter in distillation.parameters())


def test_a_run_is_the_same_to_the_bit_without_its_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store.zarr")
    config = train_config(dropping_cnn(tmp_path / "cnn"), epochs=1)
    stage.train_student(store, tmp_path / "with", config)
    monkeypatch.setattr(stage, "cost_of", lambda _: "")
    stage.train_student(store, tmp_path / "without", config)
    assert run_files(tmp_path / "with") == run_files(tmp_path / "without")


def test_the_estimate_follows_from_ledger_and_step(tmp_path: Path) -> None:
    teacher = make_store(tmp_path / "store.zarr").first
    for shard, entry in list(teacher.ledger.entries()):
        assert entry is not None
        teacher.ledger.write(shard, entry | {"seconds": 900.0})
    words = cost_words([teacher], 48, 10, 600, 1.0)
    assert "600 steps of 1000 ms take about 10 min 00 s" in words
    assert "Stage one took 1 h 00 min of one process, once, and " in words
    assert "each epoch would take about 45 min 00 s longer, all 10 epochs 7 h 40 min: the store pays after 1.3" in words


def test_processes_share_the_teacher_in_the_loop(tmp_path: Path) -> None:
    """The 45 min of one process are 15 min of three; what the store took is paid back after as many epochs."""
    teacher = make_store(tmp_path / "store.zarr").first
    for shard, entry in list(teacher.ledger.entries()):
        assert entry is not None
        teacher.ledger.write(shard, entry | {"seconds": 3600 / teacher.num_shards})
    words = cost_words([teacher], 48, 10, 600, 1.0, world=3)
    assert "Stage one took 1 h 00 min of one process, once, and " in words
    assert "shared by 3 processes, each epoch would take about 15 min 00 s longer, all 10 epochs 2 h 40 min" in words
    assert words.endswith("the store pays after 1.3 epochs")


@pytest.mark.parametrize("views", [2, 4])
def test_an_epoch_in_the_loop_makes_one_of_several_views(tmp_path: Path, views: int) -> None:
    """Of 64 rows 48 are trained on. An hour for K views of all rows is 60 / K min a view, 45 / K min for the rows of an
    epoch; ten epochs are ten times that and the 10 min of the steps, and the hour is back after 60 / (45 / K) epochs.
    """
    teacher = make_store(tmp_path / "store.zarr").first
    teacher.views = Views(views, 0)
    assert teacher.num_rows == 64
    shards = list(teacher.ledger.entries())
    for shard, entry in shards:
        assert entry is not None
        teacher.ledger.write(shard, entry | {"seconds": 3600 / len(shards)})
    words = cost_words([teacher], 48, 10, 600, 1.0)
    epoch, whole = {2: ("22 min 30 s", "3 h 55 min"), 4: ("11 min 15 s", "2 h 02 min")}[views]
    assert "Stage one took 1 h 00 min of one process, once, and " in words
    assert f"each epoch would take about {epoch} longer, all 10 epochs {whole}" in words
    assert words.endswith(f"the store pays after {60 / (45 / views):.1f} epochs")


def test_features_that_were_imported_say_nothing_of_a_teacher(tmp_path: Path) -> None:
    teacher = Store(make_store(tmp_path / "store.zarr").folder).first
    teacher.spec.settings["imported"] = {}
    assert cost_words([teacher], 48, 10, 600, 0.1) == "estimate: 600 steps of 100 ms take about 1 min 00 s"


def test_a_run_says_its_estimate_once_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store.zarr")
    config = train_config(dropping_cnn(tmp_path / "cnn"), epochs=1)
    stage.train_student(store, tmp_path / "run", config)
    said = capsys.readouterr().err
    assert said.count("estimate: 6 steps of ") == 1
    stage.train_student(store, tmp_path / "run", config)
    assert "estimate" not in capsys.readouterr().err
