"""A run that stops early: where it stops, who says so, and that it is finished; and the schedules of the recipe."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import call_g2l
from support.stores import dropping_cnn, flags, plain_vit, run_files, train_config
from support.training import stop_after

from pipeline.base.errors import CheckpointError
from pipeline.config.recipes import recipe_values
from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from pipeline.student.student_json import read_student_json
from pipeline.training.early_stop import EarlyStop
from pipeline.training.held_out import vals_by_teacher
from pipeline.training.run_folder import RunFolder
from stages import train_student as stage
from stages.export import export_student
from stages.finished import finished_training
from stages.inspect import inspect_path
from stages.reports.train import Trained, train_report
from stages.train_student import train_student

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
RECIPE = {
    name: value
    for name, value in recipe_values("paper", "train-student").items()
    if name not in ("epochs", "batch_size", "use_plain_view")
}
"""The recipe's options, but for the numbers of epochs and rows, which a test makes smaller; the store has no views."""
WATCHED = {"early_stop_window": 4, "early_stop_patience": 2}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The recipe over 6 epochs of 6 steps; all steps above the mean count, so that it ends within an epoch."""
    source = dropping_cnn(tmp_path_factory.mktemp("source") / "cnn")
    return train_config(
        source, **RECIPE | {"epochs": 6, "checkpoint_every": 4, "lr": 1e-3, "early_stop": "total", **WATCHED}
    )


@pytest.fixture(scope="module")
def unstopped(store: Store, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    run = tmp_path_factory.mktemp("unstopped") / "run"
    return train_student(store, run, config.model_copy(update={"early_stop": "off"}))


@pytest.fixture(scope="module")
def stopped(store: Store, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_student(store, tmp_path_factory.mktemp("stopped") / "run", config)


def step_lines(run: RunFolder) -> list[dict[str, Any]]:
    return [line for line in run.metrics() if line["kind"] == "step"]


def counted(losses: list[float], config: TrainConfig) -> int:
    """The step after which a plain count over these losses ends the run."""
    window, times = config.early_stop_window, 0
    for step in range(window, len(losses)):
        is_above = losses[step] > sum(losses[step - window : step]) / window
        times = times + 1 if is_above else times if config.early_stop == "total" else 0
        if times > config.early_stop_patience:
            return step + 1
    raise AssertionError("it does not end")


def test_the_run_ends_where_a_count_of_its_losses_ends(
    stopped: Trained, unstopped: Trained, config: TrainConfig
) -> None:
    """And until then it is the run without an early stop, digit for digit."""
    whole, lines = step_lines(unstopped.run), step_lines(stopped.run)
    expected = counted([line["loss"] for line in whole], config)
    assert 0 < expected < unstopped.num_steps == 36
    assert expected % 6, "within an epoch"
    assert (stopped.num_steps, stopped.num_new_steps, stopped.step) == (expected, expected, expected)
    assert lines == whole[:expected]


@pytest.mark.usefixtures("undrawn")
def test_counted_in_consecutive_steps_it_ends_elsewhere(
    unstopped: Trained, store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    other = config.model_copy(update={"early_stop": "consecutive", "early_stop_patience": 1})
    expected = counted([line["loss"] for line in step_lines(unstopped.run)], other)
    assert train_student(store, tmp_path / "run", other).num_steps == expected


def test_metrics_report_card_and_records_say_when_and_why(stopped: Trained, tmp_path: Path) -> None:
    run, stop = stopped.run, stopped.run.stop()
    assert stop is not None
    lines = run.metrics()
    assert [line["kind"] for line in lines[-3:]] == ["step", "stop", "val"]
    assert {line["step"] for line in lines[-3:]} == {stop.step} == {stopped.num_steps}
    assert (lines[-2]["loss"], lines[-2]["times"]) == (lines[-3]["loss"], 3)
    assert lines[-2]["epoch"] == lines[-3]["epoch"] == lines[-1]["epoch"] - 1
    assert stop.words() in train_report(stopped)
    assert stop.words() in inspect_path(run.folder)
    card = (run.student / "README.md").read_text()
    assert f"{stop.step} steps. {stop.words(36)}" in card
    assert '"early_stop": "total"' in card
    assert run.read_identity()["options"]["weight_decay_schedule"] == "cosine"
    assert "gives the run's embeddings" in export_student(run.folder, tmp_path / "student")
    for folder in (run.student, tmp_path / "student"):
        training = read_student_json(folder).training
        assert (training.step, training.epoch) == (stop.step, stop.epoch + 1)
        assert training.stopped is not None
        assert (training.stopped.step, training.stopped.mean) == (stop.step, stop.mean)
        assert f"after step {stop.step}" in inspect_path(folder)


def test_a_run_that_chance_will_cut_off_says_so_before_it_starts(
    store: Store, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """36 steps are planned; all above the mean count, and with one allowed chance takes 4 + 2 x 2."""
    soon = config.model_copy(update={"early_stop_patience": 1})
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", soon)
    assert "stops after about 8 steps" in (said := capsys.readouterr().err)
    assert "36 are planned" in said


def test_a_run_that_did_not_stop_says_nothing_of_it(unstopped: Trained) -> None:
    run = unstopped.run
    assert run.stop() is None
    assert "topped early" not in train_report(unstopped) + inspect_path(run.folder)
    assert "topped early" not in (run.student / "README.md").read_text()
    assert "stopped" not in json.loads((run.student / "student.json").read_text())["training"]


def test_a_run_that_stopped_is_finished(stopped: Trained, store: Store, config: TrainConfig) -> None:
    before = run_files(stopped.run.folder)
    finished = finished_training(store, stopped.run.folder, config)
    assert finished is not None
    assert (finished.num_steps, finished.num_new_steps, finished.step) == (stopped.num_steps, 0, stopped.step)
    assert finished.held_out == stopped.held_out
    assert "nothing was left to do" in train_report(finished)
    again = train_student(store, stopped.run.folder, config)  # the stage itself
    assert (again.num_steps, again.num_new_steps) == (stopped.num_steps, 0)
    assert run_files(stopped.run.folder) == before


def test_an_export_that_is_lost_is_made_again(
    stopped: Trained, store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(stopped.run.folder, tmp_path / "run"))
    shutil.rmtree(run / "student")
    assert train_student(store, run, config).num_new_steps == 0
    assert run_files(run) == run_files(stopped.run.folder)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 6, 7, 8, 9, 10])
def test_a_killed_run_stops_after_the_same_step(
    stopped: Trained, store: Store, config: TrainConfig, tmp_path: Path, steps: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, min(steps, stopped.num_steps - 1))
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", config)
    torch.manual_seed(12345)
    assert train_student(store, tmp_path / "run", config).num_steps == stopped.num_steps
    assert run_files(tmp_path / "run") == run_files(stopped.run.folder)


@pytest.mark.usefixtures("undrawn")
def test_the_best_epoch_of_a_stopped_run_is_kept(store: Store, config: TrainConfig, tmp_path: Path) -> None:
    trained = train_student(store, tmp_path / "run", config.model_copy(update={"keep": "best"}))
    vals = vals_by_teacher(trained.run.metrics())[""]
    best = min(vals[1:], key=lambda line: line["loss"])
    assert trained.step == best["step"] <= trained.num_steps
    assert read_student_json(trained.run.student).training.step == best["step"]
    assert finished_training(store, trained.run.folder, config.model_copy(update={"keep": "best"})) is not None


@pytest.mark.parametrize("change", [{"step": "x"}, {"mean": None}])
def test_a_damaged_line_of_the_stop_is_named(stopped: Trained, tmp_path: Path, change: dict[str, Any]) -> None:
    run = RunFolder(Path(shutil.copytree(stopped.run.folder, tmp_path / "run")))
    lines = [line | change if line["kind"] == "stop" else line for line in run.metrics()]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged"):
        inspect_path(run.folder)


def test_rate_and_decay_fall_to_nothing_by_a_cosine(
    store: Store, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch's own schedule, seen in the optimiser at each step; also continued within the run."""
    real, seen = stage.train_step, []

    def step(*arguments: Any) -> Any:
        groups = arguments[3].param_groups
        seen.append([group[name] for name in ("lr", "weight_decay") for group in groups])
        return real(*arguments)

    monkeypatch.setattr(stage, "train_step", step)
    config = config.model_copy(update={"early_stop": "off", "epochs": 2, "checkpoint_every": 5})
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", config)
    train_student(store, tmp_path / "run", config)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    assert len(seen) == 12
    for lr, lr_of_vectors, decay, decay_of_vectors in seen:
        share = schedule.get_last_lr()[0]
        assert lr == lr_of_vectors == pytest.approx(1e-3 * share, rel=1e-9)
        assert decay == pytest.approx(0.05 * share, rel=1e-9)
        assert decay_of_vectors == 0
        optimizer.step()
        schedule.step()


def test_gradients_that_are_not_clipped_are_those_of_a_wide_bound(store: Store, tmp_path: Path) -> None:
    student = plain_vit(tmp_path / "vit")
    norms = []
    for clip in (0.0, 1e6, 1e-3):
        run = train_student(store, tmp_path / str(clip), train_config(student, epochs=1, clip=clip)).run
        norms.append([line["grad_norm"] for line in step_lines(run)])
    assert norms[0] == norms[1]
    assert norms[0] != norms[2]
    assert min(norms[0]) > 1e-3, "the narrow bound clips"


def test_a_run_begun_by_single_options_is_continued_by_the_recipe(store: Store, tmp_path: Path) -> None:
    """What was begun with the recipe's values is the recipe's run; its name stands in the record and in the card."""
    student = plain_vit(tmp_path / "vit")
    few = ["--weights", "scratch", "--device", "cpu", "--epochs", "1", "--batch-size", "8", "--use-plain-view"]
    config = train_config(student, **RECIPE | {"epochs": 1, "workers": None, "checkpoint_every": 500})
    command = ["train-student", store.folder, "--out", tmp_path / "run"]
    assert call_g2l(*command, *flags(config))[0] == 0
    code, said, errors = call_g2l(*command, "--student", student, "--recipe", "paper", *few)
    assert (code, errors) == (0, "")
    assert "nothing was left to do" in said
    shutil.rmtree(tmp_path / "run" / "student")
    assert call_g2l(*command, "--student", student, "--recipe", "paper", *few)[0] == 0
    assert 'recipe = "paper"' in (tmp_path / "run" / "config.toml").read_text()
    assert '"recipe": "paper"' in (tmp_path / "run" / "student" / "README.md").read_text()
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert recorded["name"] == "paper"
    assert {"command": "train-student", "option": "batch_size", "recipe": 32, "used": 8} in recorded["departures"]
    described = json.loads((tmp_path / "run" / "student" / "student.json").read_text())
    assert described["training"]["recipe"] == recorded
    assert "  - extract-teacher --views 1, not 11\n" in (tmp_path / "run" / "student" / "README.md").read_text()
    for path in (tmp_path / "run", tmp_path / "run" / "student"):
        _, said, _ = call_g2l("inspect", path)
        assert "train-student --batch-size 8, not 32" in said
    code, said, _ = call_g2l("train-student", "--config", tmp_path / "run" / "config.toml")
    assert (code, "nothing was left to do" in said) == (0, True)
    code, _, errors = call_g2l(*command, "--student", student, *few)
    assert (code, "options.early_stop: 'consecutive' -> 'off'" in errors) == (1, True)


def test_no_loss_is_fetched_without_an_early_stop(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EarlyStop, "expect", lambda *_: pytest.fail("a loss was fetched"))
    train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "vit"), epochs=1))


def test_that_chance_alone_may_end_the_run_is_said_before_it_starts(
    store: Store, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a rule that lasts a few steps, where many are planned; not where it is off."""
    soon = config.model_copy(update={"early_stop_window": 6, "early_stop_patience": 0, "early_stop": "consecutive"})
    expected = EarlyStop("consecutive", 6, 0).steps_by_chance()
    assert expected is not None
    train_student(store, tmp_path / "run", soon)
    said = capsys.readouterr().err
    assert "by chance" in said
    assert f"{expected:,.0f} steps" in said
    train_student(store, tmp_path / "off", soon.model_copy(update={"early_stop": "off", "epochs": 1}))
    assert "by chance" not in capsys.readouterr().err
