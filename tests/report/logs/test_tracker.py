"""A run and a report in tracking services, without a network: what is logged, what is not, and that nothing stops."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest
from support.commands import G2L, child_environment
from support.stores import dropping_cnn, flags, make_store, train_config
from support.wandb_files import read_wandb

from pipeline.base.errors import ConfigError
from pipeline.config.stages import TrainConfig
from pipeline.evaluate.options.config import evaluate_config
from pipeline.report.logs import tracker
from pipeline.report.logs.mlflow_log import LAST_STEP
from pipeline.report.logs.tracker import MODULES, Tracker, one_level, require_services, tracked

CURVES = {"train/loss", "train/lr", "train/grad_norm", "held-out/loss", "held-out/cka"}
ARTIFACTS = {"config.toml", "run.json", "metrics.jsonl", "curves.png", "README.md"}


class Noted:
    """A log that notes what it is told."""

    def __init__(self, fails: bool = False) -> None:
        self.said: list[object] = []
        self.fails = fails

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if self.fails:
            raise OSError("the server is gone")
        self.said.append((dict(values), step))

    def files(self, paths: Sequence[Path]) -> None:
        self.said.append([path.name for path in paths])

    def where(self) -> str:
        return "it is here; this sends it"

    def end(self, *, finished: bool) -> None:
        self.said.append(finished)


def test_every_log_is_told_and_files_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    logs = {"a": Noted(), "b": Noted()}
    told = Tracker(logs)
    (tmp_path / "x.png").touch()
    told.scalars({"loss": 1.0}, 3)
    told.files([tmp_path / "x.png", tmp_path / "none.png"])
    told.end(finished=True)
    assert logs["a"].said == logs["b"].said == [({"loss": 1.0}, 3), ["x.png"], True]


def test_the_end_says_where_each_run_is(capsys: pytest.CaptureFixture[str]) -> None:
    Tracker({"a": Noted(), "b": Noted()}).end(finished=False)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"note: --log {name}: it is here; this sends it" for name in ("a", "b")]


@pytest.mark.parametrize("words", [["tensorboard"], ["wandb", "TensorBoard"]])
def test_tensorboard_is_always_on(words: list[str]) -> None:
    for config in (TrainConfig, evaluate_config()):
        options = {"student": "vit"} if config is TrainConfig else {}
        with pytest.raises(ConfigError, match=r"need no --log: train-student writes them"):
            config.build({**options, "log": words})
    with pytest.raises(ConfigError, match="'wandb' or 'mlflow'"):
        TrainConfig.build({"student": "vit", "log": ["comet"]})


def test_a_service_that_fails_is_left_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Noted(), Noted(fails=True)
    told = Tracker({"bad": bad, "good": good})
    for step in (1, 2):
        told.scalars({"loss": 1.0}, step)
    told.end(finished=True)
    assert [step for _, step in good.said[:2]] == [1, 2]  # type: ignore[misc]
    assert bad.said == []
    said = capsys.readouterr().err
    assert said.count("warning: --log bad: OSError: the server is gone. The work goes on without it") == 1


def test_the_end_says_whether_the_work_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted()
    monkeypatch.setattr(tracker, "require_services", lambda services: None)
    monkeypatch.setattr(tracker, "import_module", lambda name: type("M", (), {"start": staticmethod(lambda *_: noted)}))
    with pytest.raises(RuntimeError), tracked(["wandb"], tmp_path, "train-student", {}):
        raise RuntimeError
    with tracked(["wandb"], tmp_path, "train-student", {}):
        pass
    with tracked(["wandb"], tmp_path, "train-student", {}, here=False) as told:
        told.scalars({"loss": 1.0}, 1)
    assert noted.said == [False, True]


def test_a_package_that_is_missing_is_told_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    for name in MODULES:
        with pytest.raises(ConfigError, match=rf"--log {name}: .*pip install 'g2l\[{name}\]'"):
            require_services([name])


def test_a_record_with_one_level() -> None:
    assert one_level({"a": 1, "b": {"c": [1, 2], "d": {"e": None}}}) == {"a": 1, "b.c": [1, 2], "b.d.e": None}


# --- the commands, with the libraries themselves ------------------------------------------------------------------


def at_home(home: Path) -> dict[str, str]:
    """The environment of a user who has set nothing, in an empty home; a network would not be reached."""
    home.mkdir(exist_ok=True)
    own = ("WANDB", "MLFLOW", "XDG_")
    variables = {name: value for name, value in child_environment().items() if not name.startswith(own)}
    dead = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    return variables | dead | {"HOME": str(home)}


def words(folder: Path, *more: object) -> list[object]:
    """Train a student of a small store in `folder`."""
    store = folder / "store.zarr"
    if not store.exists():
        make_store(store)
        dropping_cnn(folder / "cnn")
    config = train_config(f"local-dir:{folder / 'cnn'}", epochs=2, batch_size=8, checkpoint_every=4)
    return [G2L, "train-student", store, "--out", folder / "run", *flags(config), *more]


def train(folder: Path, *more: object) -> str:
    command = list(map(str, words(folder, *more)))
    done = subprocess.run(command, capture_output=True, text=True, env=at_home(folder / "home"), timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def metrics_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the database library, in MLflow
def test_a_run_is_logged_by_both_and_nothing_lands_in_the_home(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow.tracking")
    said = train(tmp_path, "--log", "wandb", "--log", "mlflow")
    assert "warning: --log" not in said
    assert "INFO" not in said  # MLflow's own words
    run, home = tmp_path / "run", tmp_path / "home"
    assert f"mlflow ui --backend-store-uri sqlite:///{run}/mlflow/mlflow.db shows it" in said
    (command,) = re.findall(r"; (wandb sync .*\S) sends it", said)
    assert [Path(command.split()[-1])] == list((run / "wandb").glob("offline-run-*"))
    assert not [path for path in home.rglob("*") if path.is_file()], list(home.rglob("*"))
    asked = [Path(sys.executable).with_name("wandb"), "sync", "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, env=at_home(home), timeout=120)
    dry = ["--dry-run"] if "--dry-run" in done.stdout else []  # earlier libraries get as far as asking for a login
    tried = [asked[0], *command.split()[1:], *dry]
    done = subprocess.run(tried, capture_output=True, text=True, env=at_home(home), timeout=120)
    assert done.returncode == 0 if dry else "api_key not configured" in done.stderr, done.stderr
    lines = metrics_of(run)

    (record,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    of_wandb = read_wandb(record)
    assert of_wandb.scalars >= CURVES
    assert of_wandb.config == json.loads((run / "run.json").read_text())
    assert of_wandb.artifacts == [sorted(ARTIFACTS)]
    assert sent_of(record.parent) == {record.name}

    found = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run}/mlflow/mlflow.db")
    (logged,) = found.search_runs([found.get_experiment_by_name("g2l").experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "run"
    assert logged.data.params["options.batch_size"] == "8"
    assert logged.data.metrics.keys() >= CURVES
    history = {each.step: each.value for each in found.get_metric_history(logged.info.run_id, "train/loss")}
    assert history == {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}
    artifacts = {each.path for each in found.list_artifacts(logged.info.run_id)}
    assert artifacts == ARTIFACTS


CALLER = """
import json, sys, time
from pathlib import Path
import mlflow, wandb
from pipeline.report.logs.tracker import tracked
folder, kept = Path(sys.argv[1]), Path(sys.argv[2])
mlflow.set_tracking_uri(f"sqlite:///{kept}/mine.db")
mlflow.set_experiment("theirs")
theirs = mlflow.start_run()
mine = wandb.init(project="theirs", dir=str(kept), id="theirs", settings=wandb.Settings(silent=True, console="off"))
for run, kind in (("run", "train-student"), ("run", "train-student"), ("report", "evaluate")):
    (folder / run).mkdir(exist_ok=True)
    (folder / run / "report.html").write_text("page")
    with tracked(["wandb", "mlflow"], folder / run, kind, {"options": {"seed": 3}}) as tracker:
        assert wandb.run is mine
        tracker.scalars({"loss": 1.0}, 1)
        tracker.files([folder / run / "report.html"])
    assert wandb.run is mine
    assert mlflow.active_run().info.run_id == theirs.info.run_id
    assert mlflow.get_tracking_uri() == f"sqlite:///{kept}/mine.db"
    time.sleep(1)  # the folder of an offline run is named by its second
    wandb.log({"own": 1})
    mlflow.log_metric("own", 1)
mine.finish()
client = mlflow.MlflowClient()
experiments = {each.name: each.experiment_id for each in client.search_experiments()}
runs = {name: [each.to_dictionary() for each in client.search_runs([experiments[name]])] for name in ("theirs", "g2l")}
print(json.dumps(runs))
"""
"""A notebook with runs of its own in both services, which calls G2L: two calls of one run, and a report."""


@pytest.mark.slow
def test_a_callers_own_runs_go_on_and_say_nothing_of_ours(tmp_path: Path) -> None:
    """Nor do ours hold the names of the host, the user or the home, or what is installed."""
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    kept = tmp_path / "kept"
    kept.mkdir()
    user = {"USER": "anna-the-user", "LOGNAME": "anna-the-user", "USERNAME": "anna-the-user"}
    done = subprocess.run(
        [sys.executable, "-c", CALLER, str(tmp_path), str(kept)],
        capture_output=True,
        text=True,
        env=at_home(tmp_path / "home") | user | {"WANDB_MODE": "offline"},
        cwd=kept,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "warning: --log" not in done.stderr

    (theirs,) = kept.glob("wandb/offline-run-*/run-theirs.wandb")
    assert "own" in read_wandb(theirs).scalars
    assert not read_wandb(theirs).scalars & {"loss", "step"}
    assert not read_wandb(theirs).artifacts
    ours = sorted(tmp_path.glob("*/wandb/offline-run-*/run-*.wandb"))
    ours.remove(theirs)
    assert len(ours) == 3
    assert len({path.name for path in ours}) == 2  # the run that was continued kept its id
    hidden = [word.encode() for word in ("anna-the-user", str(tmp_path / "home"))]
    for path in ours:
        logged = read_wandb(path)
        assert logged.config == {"options": {"seed": 3}}
        assert logged.artifacts == [["report.html"]]
        assert {"loss", "step"} <= logged.scalars
        assert "own" not in logged.scalars
        assert logged.about.host == ""
        assert not logged.about.git.ByteSize()
        assert not logged.kinds & {"environment", "files", "stats", "output", "output_raw", "alert"}
        assert sent_of(path.parent) == {path.name}
        assert not [word for word in hidden if word in path.read_bytes()]

    runs = json.loads(done.stdout.splitlines()[-1])
    (their_run,) = runs["theirs"]
    assert their_run["info"]["status"] == "RUNNING"
    assert their_run["data"]["metrics"] == {"own": 1.0}
    assert not their_run["data"].get("params")
    assert "anna-the-user" in str(their_run)  # so MLflow would say it
    assert [run["info"]["status"] for run in runs["g2l"]] == ["FINISHED"] * 2
    for run in runs["g2l"]:
        assert run["data"]["tags"].keys() == {"kind", "mlflow.runName"}
        assert run["data"]["metrics"] == {"loss": 1.0, LAST_STEP: 1.0}
        assert not [word for word in hidden if word.decode() in str(run)]


def sent_of(run: Path) -> set[str]:
    """Files of an offline run but its logs, which stay: the record, and what is sent beside it."""
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and path.parent.name != "logs"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the database library, in MLflow
def test_a_killed_run_goes_on_as_the_same_and_no_process_stays(tmp_path: Path) -> None:
    """The service's own process ends too. The run's bytes are those of one that logs nothing."""
    mlflow = pytest.importorskip("mlflow.tracking")
    command = list(map(str, words(tmp_path, "--log", "wandb", "--log", "mlflow")))
    run = tmp_path / "run"
    for number, stop in enumerate((signal.SIGKILL, signal.SIGTERM), start=1):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=at_home(tmp_path / "home"))
        wait_for(lambda number=number: len(list(run.glob("wandb/offline-run-*"))) == number)  # type: ignore[misc]
        wait_for(lambda: any(run.glob("checkpoints/*.pt")))
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(stop)
        process.wait(20)
        wait_for(lambda children=children: not any(each.is_running() for each in children))  # type: ignore[misc]
    train(tmp_path, "--log", "wandb", "--log", "mlflow")
    found = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/run/mlflow/mlflow.db")
    (logged,) = found.search_runs([found.get_experiment_by_name("g2l").experiment_id])
    steps = {each.step for each in found.get_metric_history(logged.info.run_id, "train/loss")}
    assert steps == {line["step"] for line in metrics_of(tmp_path / "run") if line["kind"] == "step"}
    logged_run = (tmp_path / "run").rename(tmp_path / "logged")
    train(tmp_path)
    for name in ("metrics.jsonl", "student/model.safetensors"):
        assert (logged_run / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def wait_for(what: object, seconds: float = 30) -> None:
    """Wait until it is so."""
    begun = time.monotonic()
    while not what():  # type: ignore[operator]
        assert time.monotonic() - begun < seconds
        time.sleep(0.05)


@pytest.mark.slow
def test_a_server_that_is_away_does_not_stop_a_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow.tracking")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    environment = at_home(tmp_path / "home") | away
    command = list(map(str, words(tmp_path, "--log", "mlflow")))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0
    assert "warning: --log mlflow" in done.stderr
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    assert os.listdir(tmp_path / "run" / "mlflow") == []
