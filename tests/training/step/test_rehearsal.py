"""Steps before a run leave no trace, and what is estimated follows from the ledger and the time of a step."""

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.stores import dropping_cnn, make_store, train_config
from support.training import same_state, unbegun_run

from pipeline.base.loader import Batch
from pipeline.cohort.views.views import Views
from pipeline.distillation import build_loss, random_states
from pipeline.store.create import open_round
from pipeline.store.store import Store, StoredTeacher
from pipeline.training.step.rehearsal import StepTime, cost_words, load_timed, rehearse

pytestmark = pytest.mark.usefixtures("one_thread")


STEP = StepTime(0.8, 0.2, on_same_cores=True)
"""A second a step."""


def enter_seconds(teacher: StoredTeacher, seconds: float) -> None:
    """Let the shards of a teacher have taken so long together."""
    for shard, entry in list(teacher.ledger.entries()):
        assert entry is not None
        teacher.ledger.write(shard, entry | {"seconds": seconds / teacher.num_shards})


def test_rehearsed_steps_leave_no_trace(tmp_path: Path) -> None:
    config = train_config(dropping_cnn(tmp_path / "cnn"), augment="none")
    run = unbegun_run(make_store(tmp_path / "store.zarr"), config)
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


def test_the_estimate_follows_from_ledger_and_step(tmp_path: Path) -> None:
    teacher = make_store(tmp_path / "store.zarr").first
    enter_seconds(teacher, 3600)
    words = cost_words([teacher], 48, 10, 600, STEP)
    assert "600 steps of 1,000 ms (800 to compute, 200 to load on the same cores) take about 10 min 00 s" in words
    assert "Stage one took 1 h 00 min of one process, once, and " in words
    assert "each epoch would take about 45 min 00 s longer, all 10 epochs 7 h 40 min: the store pays after 1.3" in words


def test_processes_share_the_teacher_in_the_loop(tmp_path: Path) -> None:
    """The 45 min of one process are 15 min of three; what the store took is paid back after as many epochs."""
    teacher = make_store(tmp_path / "store.zarr").first
    enter_seconds(teacher, 3600)
    words = cost_words([teacher], 48, 10, 600, STEP, world=3)
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
    enter_seconds(teacher, 3600)
    words = cost_words([teacher], 48, 10, 600, STEP)
    epoch, whole = {2: ("22 min 30 s", "3 h 55 min"), 4: ("11 min 15 s", "2 h 02 min")}[views]
    assert "Stage one took 1 h 00 min of one process, once, and " in words
    assert f"each epoch would take about {epoch} longer, all 10 epochs {whole}" in words
    assert words.endswith(f"the store pays after {60 / (45 / views):.1f} epochs")


def test_features_that_were_imported_say_nothing_of_a_teacher(tmp_path: Path) -> None:
    teacher = Store(make_store(tmp_path / "store.zarr").folder).first
    teacher.spec.settings["imported"] = {}
    assert cost_words([teacher], 48, 10, 600, StepTime(0.08, 0.02, on_same_cores=True)) == (
        "estimate: 600 steps of 100 ms (80 to compute, 20 to load on the same cores) take about 1 min 00 s"
    )


def test_loading_adds_to_a_step_on_the_same_cores_and_hides_behind_one_elsewhere(tmp_path: Path) -> None:
    """By stage two's benchmark a CPU takes the sum; an accelerator waits for the slower of the two. The teacher in the
    loop is told for the same steps.
    """
    teacher = make_store(tmp_path / "store.zarr").first
    enter_seconds(teacher, 3600)
    for step, each, steps, whole in (
        (
            StepTime(0.6, 0.4, on_same_cores=True),
            "1,000 ms (600 to compute, 400 to load on",
            "10 min 00 s",
            "7 h 40 min",
        ),
        (
            StepTime(1.0, 0.4, on_same_cores=False),
            "1,000 ms (1,000 to compute, 400 to load b",
            "10 min 00 s",
            "7 h 40 min",
        ),
        (
            StepTime(0.4, 1.0, on_same_cores=False),
            "1,000 ms (400 to compute, 1,000 to load b",
            "10 min 00 s",
            "7 h 40 min",
        ),
    ):
        words = cost_words([teacher], 48, 10, 600, step)
        assert f"600 steps of {each}" in words
        assert f"take about {steps}. " in words
        assert f"all 10 epochs {whole}: " in words


def test_the_second_batch_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading takes a second of a stand-in clock; the first batch is not in it."""
    asked: list[int] = []

    class Loader:
        def batches(self, row_batches: list[list[int]]) -> Iterator[Batch[Any]]:
            for rows in row_batches:
                asked.extend(rows)
                yield Batch(rows, torch.zeros(0), [])

    loader: Any = Loader()
    monkeypatch.setattr("pipeline.training.step.rehearsal.time", SimpleNamespace(monotonic=lambda: float(len(asked))))
    batch, seconds = load_timed(loader, [3, 1, 4], [1, 5])
    assert (batch.rows, seconds, asked) == ([1, 5], 2.0, [3, 1, 4, 1, 5])


def test_rounds_count_as_far_as_they_are_done(tmp_path: Path) -> None:
    """An hour for the patches, and half an hour for half of view 1: each row takes 60 / 64 min a view."""
    first = make_store(tmp_path / "store.zarr").first
    enter_seconds(first, 3600)
    made, entry = open_round(first, first.plan, 1, {"views_seed": 0}, {}), first.ledger.read(0)
    assert entry is not None
    for shard in (0, 1):
        made.ledger.write(shard, entry)
    words = cost_words([first], 48, 10, 600, STEP)
    assert "Stage one took 1 h 30 min of one process" in words
    assert "each epoch would take about 45 min 00 s longer" in words


def test_teachers_of_different_numbers_of_views_each_make_one_in_the_loop(tmp_path: Path) -> None:
    """A row takes 60 / 64 min of one teacher and, of ten views, a tenth of that of the other."""
    one, other = (make_store(tmp_path / name).first for name in ("a.zarr", "b.zarr"))
    for teacher in (one, other):
        enter_seconds(teacher, 3600)
    other.views = Views(10, 0)
    assert "each epoch would take about 49 min 30 s longer" in cost_words([one, other], 48, 10, 600, STEP)
