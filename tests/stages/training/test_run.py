"""What a run is opened with: its share of rows and cores, and the views that it shows."""

import pytest
from support.stores import dropping_cnn, make_store, train_config
from support.training import unbegun_run

from pipeline.base import cores, distributed
from pipeline.base.errors import ConfigError
from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers
from stages.training.run import views_to_show


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "store.zarr")


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return train_config(dropping_cnn(tmp_path_factory.mktemp("source") / "cnn"), epochs=3)


def test_several_processes_of_a_machine_share_its_cores(
    store: Store, cnn: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    threads = []
    for processes, workers in (("1", None), ("4", None), ("4", 3)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        threads.append(unbegun_run(store, cnn.model_copy(update={"workers": workers})).workers)
    assert threads == [8, 2, 3]


def test_processes_share_each_batch_among_them(store: Store, cnn: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run = unbegun_run(store, cnn)
    size = run.rows.batch_size
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares += list(range(size))[run.own_share]
    assert shares == list(range(size))
    assert run.num_steps == run.steps_per_epoch * 3 == run.last_step


def test_fresh_views_of_a_teacher_that_made_none_are_refused(store: Store) -> None:
    teachers = choose_teachers(store, None, None)
    assert views_to_show(teachers, "one") == teachers.views
    with pytest.raises(ConfigError, match="--views-per-epoch fresh: the teacher has embedded no view but the patch"):
        views_to_show(teachers, "fresh")
