"""Training of a student that is split over processes, killed with SIGKILL: `torchrun` starts it again, and it ends in
the same bits; in another number of processes, or whole, by the same batches.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import without_leftovers
from support.launched import ended, kill_worker, start_torchrun
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


def test_whole_then_in_two_of_which_one_is_killed_then_in_four_then_whole(
    store: Store, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start, whole, is that of all runs. `unbroken` and `replaced` go on in two processes; `changed`, a copy of
    `replaced` at the moment of the kill, in four and then whole, as `whole` does at once.
    """
    names = ("start", "unbroken", "replaced", "changed", "whole")
    start, unbroken, replaced, changed, whole = (tmp_path / name / "run" for name in names)
    plain = config.model_copy(update={"shard_student": False})
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, start, plain)
    assert last_checkpoint(start) == 3
    for run in (unbroken, replaced, whole):
        shutil.copytree(start, run)

    def words(run: Path) -> tuple[object, ...]:
        return "train-student", store.folder, "--out", run, *flags(config)

    code, said, err = ended(start_torchrun(*words(unbroken)))
    assert code == 0, said + err
    launcher = start_torchrun(*words(replaced), launcher=("--standalone", "--max-restarts", 1))
    held = kill_worker(launcher, 0, has_step(replaced, 6), signal.SIGSTOP)
    shutil.copytree(replaced, changed, ignore=shutil.ignore_patterns("*.g2l-lock"))
    kill_worker(launcher, 1, lambda: True)
    os.kill(held, signal.SIGCONT)
    code, said, err = ended(launcher)
    assert code == 0, said + err
    assert "exitcode: -9" in err
    assert run_files(replaced) == run_files(unbroken)
    without_leftovers(replaced)
    checkpoints = list((replaced / "checkpoints").glob("*.json"))
    assert checkpoints
    for checkpoint in checkpoints:
        parts = {path.name for path in checkpoint.with_suffix("").iterdir()}
        assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "rest.pt"} == parts

    begun = last_checkpoint(changed)
    assert 6 <= begun < 16
    launcher = start_torchrun(*words(changed), processes=4)
    kill_worker(launcher, 0, has_step(changed, begun + 4))
    code, said, err = ended(launcher)
    assert code != 0, said + err
    assert begun + 4 <= last_checkpoint(changed) < 24
    for run in (changed, whole):
        train_student(store, run, plain)
    lines = [RunFolder(run).metrics() for run in (whole, changed)]
    assert [(line["kind"], line["step"]) for line in lines[0]] == [(line["kind"], line["step"]) for line in lines[1]]
    for expected, line in zip(*lines, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    without_leftovers(changed)
