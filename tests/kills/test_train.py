"""Stage two killed with SIGKILL and run again gives the bytes of a run that was never killed.

Two ways. The real command, killed while it trains: what a user's run meets. And stage two alone, killed at a given one
of its changes to the file system, so that every gap between two writes can be tried.
"""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.attempts import Attempts
from support.commands import start_g2l, without_leftovers
from support.extraction import PATCH_PX, extract, plan_cohort, write_cohort, write_teacher
from support.forked import ForkedCommands, ForkedRun, forked_commands
from support.stores import dropping_cnn, dropping_vit, flags, run_files, train_config

from pipeline.config.recipes import recipe_values
from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from pipeline.training.run_folder import RunFolder

Start = Callable[..., subprocess.Popen[str] | ForkedRun]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Batch norm, drop-path and dropout; 6 steps an epoch, with a checkpoint within each and one at its end."""
    source = dropping_cnn(tmp_path_factory.mktemp("source") / "cnn")
    return train_config(source, epochs=2, batch_size=8, checkpoint_every=4, augment="flips+jitter")


@pytest.fixture(scope="module")
def short(config: TrainConfig) -> TrainConfig:
    """The same writes in half as many steps: a checkpoint within each epoch and one at its end."""
    return config.model_copy(update={"batch_size": 16, "checkpoint_every": 2})


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """One epoch of three steps, with a checkpoint at each: every kind of write. The third removes the first."""
    source = dropping_vit(tmp_path_factory.mktemp("source") / "vit")
    return train_config(source, epochs=1, batch_size=16, checkpoint_every=1, augment="flips+jitter")


@pytest.fixture(scope="module")
def attempts(store: Store) -> Iterator[Attempts]:
    started = Attempts(store.folder)
    yield started
    started.close()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    with forked_commands(tmp_path_factory.mktemp("commands")) as started:
        yield started


@pytest.fixture(scope="module")
def whole(attempts: Attempts, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run of `config` that was never killed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert attempts.run(run, config) == 0
    return run_files(run)


@pytest.fixture(scope="module")
def whole_short(attempts: Attempts, short: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run of `short` that was never killed."""
    run = tmp_path_factory.mktemp("short") / "run"
    assert attempts.run(run, short) == 0
    return run_files(run)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores of the same tiles, of whose 40 rows to train on the teacher has embedded the paper's
    views: `turn.zarr` has them made at once, `fresh.zarr` in rounds.
    """
    folder = tmp_path_factory.mktemp("crops")
    weights = write_teacher(folder / "teacher.safetensors")
    plan = plan_cohort(write_cohort(folder / "slides"), patches_per_slide=40, tile_px=PATCH_PX + 8)
    extract(plan, folder / "turn.zarr", weights, views=4, views_strength="paper")
    extract(plan, folder / "fresh.zarr", weights, views=5, views_strength="paper", views_per_epoch="fresh")
    return folder


@dataclass(frozen=True)
class RecipeRun:
    """The paper's recipe over epochs of `EPOCH_STEPS`, with an early stop that ends it within one of them.

    Attributes:
        store: one of `crops`.
        files: of a run that was never killed.
        num_changes: its changes to the file system.
    """

    store: Path
    config: TrainConfig
    files: dict[str, bytes]
    num_changes: int


STOPS: dict[str, dict[str, Any]] = {
    "total": {"epochs": 3, "early_stop": "total", "early_stop_patience": 0},
    "consecutive": {"epochs": 4, "early_stop": "consecutive", "early_stop_patience": 1, "seed": 2},
    "fresh": {
        "epochs": 4,
        "early_stop": "consecutive",
        "early_stop_patience": 1,
        "seed": 2,
        "views_per_epoch": "fresh",
    },
}
"""Both readings of the early stop, and a new view in each epoch. The last one stops a step later than `total` would:
its count has gone back to 0 in between.
"""
STOP_STEPS = {"total": (4, 5), "consecutive": (4, 5), "fresh": (8,)}
"""Where they may stop: within an epoch, after the first one."""
EPOCH_STEPS = 3
KILLS_EACH = 17
"""Of each of the three, 51 in all."""


@pytest.fixture(scope="module", params=STOPS)
def recipe(
    request: pytest.FixtureRequest, attempts: Attempts, crops: Path, tmp_path_factory: pytest.TempPathFactory
) -> RecipeRun:
    """A run that was never killed."""
    folder = tmp_path_factory.mktemp("recipe")
    source = dropping_cnn(folder / "cnn")
    names = (*("weight_decay_schedule", "final_lr", "warmup", "clip"), *("loss", "alpha", "augment", "use_plain_view"))
    values = {name: value for name, value in recipe_values("paper", "train-student").items() if name in names}
    config = train_config(
        source, batch_size=13, checkpoint_every=2, recipe="paper", early_stop_window=2, **values, **STOPS[request.param]
    )
    store = crops / ("fresh.zarr" if config.views_per_epoch == "fresh" else "turn.zarr")
    run = folder / "run"
    assert attempts.run(run, config, store=store) == 0
    stop = RunFolder(run).stop()
    assert stop is not None
    assert stop.step in STOP_STEPS[request.param]
    assert stop.step % EPOCH_STEPS
    return RecipeRun(store, config, run_files(run), int(run.with_suffix(".count").read_text()))


def check_kills(attempts: Attempts, config: TrainConfig, whole: dict[str, bytes], run: Path, kills: list[int]) -> None:
    """Kill at each of `kills` in turn, then let it end."""
    for kill_at in kills:
        code = attempts.run(run, config, kill_at)
        assert code in (-signal.SIGKILL, 0), code
        if code == 0:
            break
    assert attempts.run(run, config) == 0
    assert run_files(run) == whole, kills
    without_leftovers(run)


@pytest.mark.slow
def test_killed_at_every_write(attempts: Attempts, brief: TrainConfig, tmp_path: Path) -> None:
    whole = tmp_path / "whole" / "run"
    assert attempts.run(whole, brief) == 0
    files, total = run_files(whole), int(whole.with_suffix(".count").read_text())
    assert total > 25
    kept = checkpoint_names(whole)
    for kill_at in range(1, total + 1):
        check_kills(attempts, brief, files, tmp_path / str(kill_at) / "run", [kill_at])
        assert checkpoint_names(tmp_path / str(kill_at) / "run") == kept, kill_at


@pytest.mark.slow
def test_the_recipe_killed_fifty_times(attempts: Attempts, recipe: RecipeRun, tmp_path: Path) -> None:
    """Crops, annealing and early stop: the last step and all bits are the same, whenever the run was killed. A run is
    killed until it gets through, at changes drawn anew; as many runs as it takes. Fifty kills over the three settings,
    some of each with a checkpoint within an epoch behind them.
    """
    draw, num_kills, num_within, num_runs = random.Random(4), 0, 0, 0
    while num_kills < KILLS_EACH:
        num_runs += 1
        run = tmp_path / str(num_runs) / "run"
        while (code := attempts.run(run, recipe.config, draw.randrange(1, recipe.num_changes), recipe.store)) != 0:
            assert code == -signal.SIGKILL, code
            num_kills += 1
            num_within += last_checkpoint(run) > 0 and last_checkpoint(run) % EPOCH_STEPS != 0
        assert run_files(run) == recipe.files
        without_leftovers(run)
    assert num_within >= 3


@pytest.mark.slow
def test_killed_at_some_writes(
    attempts: Attempts, short: TrainConfig, whole_short: dict[str, bytes], tmp_path: Path
) -> None:
    """Several in a row, in each run at others."""
    draw = random.Random(1)
    check_kills(attempts, short, whole_short, tmp_path / "first" / "run", [1, 6, 25, 17])
    for i in range(6):
        kills = [draw.randrange(1, 45) for _ in range(6)]
        check_kills(attempts, short, whole_short, tmp_path / f"many{i}" / "run", kills)


def checkpoint_names(run: Path) -> list[str]:
    """Names of the files of checkpoints."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def last_checkpoint(run: Path) -> int:
    """Step of the newest checkpoint, -1 without one."""
    return max((int(p.stem.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*.json")), default=-1)


def last_logged_step(run: Path) -> int:
    """The newest step in the metrics, -1 without one."""
    return max((line["step"] for line in RunFolder(run).metrics() if line["kind"] == "step"), default=-1)


def kill_the_command(
    start: Start, store: Store, config: TrainConfig, run: Path, ready: Callable[[], bool], wait_seconds: float
) -> tuple[int | None, str]:
    """Start `g2l train-student`, and kill it a while after `ready`; returns its exit code and what it said."""
    process = start("train-student", store.folder, "--out", run, *flags(config))
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if ready():
                time.sleep(wait_seconds)
                break
            time.sleep(0.002)
    finally:
        process.kill()
    said = process.communicate(timeout=60)
    return process.returncode, "".join(filter(None, said))


def kill_in_time(
    start: Start,
    store: Store,
    config: TrainConfig,
    run: Path,
    ready: Callable[[], bool],
    wait_seconds: float = 0,
    in_time: Callable[[], bool] = lambda: True,
) -> None:
    """Kill the command a while after `ready`; when it was further than that, again from where it began, and sooner."""
    before = run.with_name("before")
    if run.exists():
        shutil.copytree(run, before)
    for wait in (wait_seconds, wait_seconds / 4, 0, 0, 0):
        code, output = kill_the_command(start, store, config, run, ready, wait)
        assert code in (-signal.SIGKILL, 0), output
        if code == -signal.SIGKILL and in_time():
            shutil.rmtree(before, ignore_errors=True)
            return
        shutil.rmtree(run)
        if before.exists():
            shutil.copytree(before, run)
    pytest.fail("the command was never killed in time")


def check_killed_command(
    start: Start, whole: dict[str, bytes], store: Store, config: TrainConfig, run: Path, kills: list[tuple[int, float]]
) -> None:
    """Kill at each (checkpoint, seconds after it) in turn, then let it end."""
    for workers, (after_step, wait_seconds) in enumerate(kills, 1):
        other = config.model_copy(update={"workers": workers, "checkpoint_every": 2 + workers})
        kill_in_time(start, store, other, run, lambda s=after_step: last_checkpoint(run) >= s, wait_seconds)  # type: ignore[misc]
    finish(start, store, config, run, whole)


def finish(start: Start, store: Store, config: TrainConfig, run: Path, whole: dict[str, bytes]) -> None:
    """The same command once more, to its end."""
    process = start("train-student", store.folder, "--out", run, *flags(config))
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert run_files(run) == whole
    without_leftovers(run)


@pytest.mark.slow
def test_the_command_killed_while_it_trains(
    whole: dict[str, bytes], store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    """The installed one; also with another number of workers and another checkpoint interval at each start."""
    draw = random.Random(2)
    kills = [(4, draw.uniform(0, 0.05)), (8, draw.uniform(0, 0.05))]
    check_killed_command(start_g2l, whole, store, config, tmp_path / "run", kills)


@pytest.mark.slow
def test_the_command_killed_between_two_steps(
    commands: ForkedCommands, store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    """24 steps an epoch and no checkpoint within it: metrics at its 10th step, and no other file until its 20th."""
    config = config.model_copy(update={"batch_size": 2, "checkpoint_every": 99})
    undisturbed, run = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    process = commands.start("train-student", store.folder, "--out", undisturbed, *flags(config))
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    at_work = (commands.start, store, config, run)

    def logged_since_the_checkpoint() -> int:
        return last_logged_step(run) - last_checkpoint(run)

    kill_in_time(*at_work, lambda: last_logged_step(run) >= 10, in_time=lambda: last_checkpoint(run) == 0)
    assert logged_since_the_checkpoint() in (10, 20)  # of 24
    kill_in_time(*at_work, lambda: last_checkpoint(run) == 24)
    assert last_checkpoint(run) == 24
    kill_in_time(*at_work, lambda: last_logged_step(run) >= 34, in_time=lambda: last_checkpoint(run) == 24)
    assert logged_since_the_checkpoint() in (10, 20)
    finish(*at_work, run_files(undisturbed))


@pytest.mark.slow
def test_the_command_killed_at_random_moments(
    commands: ForkedCommands, whole: dict[str, bytes], store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    draw = random.Random(3)
    for i in range(5):
        kills = [(step, draw.uniform(0, 0.4)) for step in (0, 0, 4, 6, 12)]
        check_killed_command(commands.start, whole, store, config, tmp_path / str(i) / "run", kills)
