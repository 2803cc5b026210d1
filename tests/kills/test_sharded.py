"""Training of a student that is split over processes, killed with SIGKILL: it goes on to the same bits; in another
number of processes, or whole, by the same batches.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import without_leftovers
from support.launched import ended, kill_worker, start_torchrun
from support.processes import start_processes
from support.stores import flags, make_store, plain_vit, run_files, train_config
from support.training import stop_after

from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from pipeline.training.run_folder import RunFolder
from stages.train_student import train_student

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "store.zarr")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """24 steps in 4 epochs; the weight decay is annealed, and the best epoch is kept."""
    source = plain_vit(tmp_path_factory.mktemp("source") / "s")
    annealed = {"weight_decay_schedule": "cosine", "keep": "best"}
    return train_config(source, epochs=4, batch_size=8, checkpoint_every=1, lr=1e-4, shard_student=True, **annealed)


def last_checkpoint(run: Path) -> int:
    return max((int(p.stem.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*.json")), default=-1)


def has_step(run: Path, step: int) -> Callable[[], bool]:
    return lambda: last_checkpoint(run) >= step


def test_one_process_is_killed_and_the_same_command_ends_in_the_same_bits(
    store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    code, said, err = ended(start_torchrun("train-student", store.folder, "--out", whole, *flags(config)))
    assert code == 0, said + err
    words = ("train-student", store.folder, "--out", run, *flags(config))
    launcher = start_torchrun(*words)
    kill_worker(launcher, 1, has_step(run, 5))
    code, said, err = ended(launcher)
    assert code != 0, said + err
    assert 5 <= last_checkpoint(run) < 24
    code, said, err = ended(start_torchrun(*words))
    assert code == 0, said + err
    assert run_files(run) == run_files(whole)
    without_leftovers(run)
    for checkpoint in (run / "checkpoints").glob("*.json"):
        names = {path.name for path in checkpoint.with_suffix("").iterdir()}
        assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "rest.pt"} == names


def test_whole_then_in_two_then_in_four_then_whole(
    store: Store, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = (RunFolder(tmp_path / name / "run") for name in ("whole", "run"))
    plain = config.model_copy(update={"shard_student": False})
    train_student(store, whole.folder, plain)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, run.folder, plain)
    assert last_checkpoint(run.folder) == 3
    words = ("train-student", store.folder, "--out", run.folder, *flags(config))
    for processes in (2, 4):
        begun = last_checkpoint(run.folder)
        launcher = start_torchrun(*words, processes=processes, launcher=("--standalone", "--max-restarts", 0))
        kill_worker(launcher, 0, has_step(run.folder, begun + 4))
        code, said, err = ended(launcher)
        assert code != 0, said + err
        assert begun + 4 <= last_checkpoint(run.folder) < 24
        assert any(path.is_dir() for path in run.checkpoints.glob("step-*"))
    train_student(store, run.folder, plain)
    lines = [folder.metrics() for folder in (whole, run)]
    assert [(line["kind"], line["step"]) for line in lines[0]] == [(line["kind"], line["step"]) for line in lines[1]]
    for expected, line in zip(*lines, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    without_leftovers(run.folder)


def test_compiled_it_is_refused(store: Store, config: TrainConfig, tmp_path: Path) -> None:
    compiled = config.model_copy(update={"compile": True})
    words = ["-m", "g2l", "train-student", store.folder, "--out", tmp_path / "run", *flags(compiled)]
    for process in start_processes(2, words):
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 1, said
        assert "Leave out --compile or --shard-student" in said
    assert not (tmp_path / "run" / "run.json").exists()
