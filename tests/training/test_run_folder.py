"""The run directory: started once, continued under the same identity only; the metrics follow the checkpoints."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.draws import RUN_VERSION
from pipeline.base.errors import CheckpointError, G2LError
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.training.early_stop import Stop
from pipeline.training.run_folder import MetricsLog, RunFolder

IDENTITY: dict[str, Any] = {
    "store": "abc",
    "teacher": {"name": "t"},
    "options": {"lr": 0.1, "epochs": 3},
    "world_size": 1,
}


def step_line(step: int, loss: float = 0.5) -> dict[str, Any]:
    """A line of a step."""
    return {"kind": "step", "step": step, "epoch": 0, "loss": loss, "lr": 0.1}


LINE = json.dumps(step_line(1)).encode()


def test_a_run_is_started_and_continued(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep" / "run")
    run.start_or_continue(IDENTITY)
    run.start_or_continue(IDENTITY)
    assert run.read_identity() == IDENTITY
    assert run.metrics() == []


def test_another_identity_is_refused_with_what_differs(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.start_or_continue(IDENTITY)
    with pytest.raises(CheckpointError) as caught:
        run.start_or_continue({**IDENTITY, "options": {"lr": 0.2, "epochs": 3}, "world_size": 2})
    words = str(caught.value)
    assert "lr" in words
    assert "0.1" in words
    assert "0.2" in words
    assert "world_size" in words
    assert "epochs" not in words
    assert run.read_identity() == IDENTITY


def test_differences_that_are_allowed_are_not_blamed(tmp_path: Path) -> None:
    run, versioned = RunFolder(tmp_path / "run"), IDENTITY | {"version": RUN_VERSION, "versions": {"torch": "1"}}
    run.start_or_continue(versioned)
    other = {"world_size": 2, "versions": {"torch": "2"}, "options": {"lr": 0.2, "epochs": 3}}
    with pytest.raises(CheckpointError) as caught:
        run.start_or_continue(versioned | other)
    assert str(caught.value).splitlines()[1:-1] == ["  options.lr: 0.1 -> 0.2"]


def test_the_recipe_is_that_of_the_last_call_and_decides_nothing(tmp_path: Path) -> None:
    """Also of a run that an earlier version began, which recorded none."""
    run = RunFolder(tmp_path / "run")
    run.start_or_continue(IDENTITY)
    before = run.identity_path.read_bytes()
    departure = {"command": "train-student", "option": "epochs", "recipe": 10, "used": 3}
    for recorded in ({"name": "paper", "departures": [departure]}, {"name": "default", "departures": []}):
        assert run.start_or_continue(IDENTITY | {"recipe": recorded}) == []
        assert run.read_identity() == IDENTITY | {"recipe": recorded}
    with pytest.raises(CheckpointError, match=r"options\.lr: 0\.1 -> 0\.2"):
        run.start_or_continue(IDENTITY | {"options": {"lr": 0.2, "epochs": 3}, "recipe": {"name": "x"}})
    run.start_or_continue(IDENTITY)
    assert run.identity_path.read_bytes() == before


@pytest.mark.parametrize("recipe", [1, "paper", {}, {"name": "paper"}, {"name": "paper", "departures": [{"a": 1}]}])
def test_a_damaged_recipe_is_named(tmp_path: Path, recipe: object) -> None:
    run = RunFolder(tmp_path / "run")
    run.start_or_continue(IDENTITY)
    run.identity_path.write_text(json.dumps(IDENTITY | {"recipe": recipe}))
    with pytest.raises(CheckpointError, match=r"run\.json: damaged"):
        run.read_identity()


def test_weights_count_by_their_hash_and_not_by_their_name(tmp_path: Path) -> None:
    def identity(weights: str, sha: str) -> dict[str, Any]:
        encoder = {"name": "t", "weights": weights, "weights_sha256": sha}
        return {**IDENTITY, "student": encoder, "teacher": encoder}

    run = RunFolder(tmp_path / "run")
    run.start_or_continue(identity("a.safetensors", "1"))
    run.start_or_continue(identity("b.safetensors", "1"))
    assert run.read_identity() == identity("a.safetensors", "1")
    with pytest.raises(CheckpointError, match=r"student\.weights: 'a(.|\n)*student\.weights_sha256: '1' -> '2'"):
        run.start_or_continue(identity("b.safetensors", "2"))


@pytest.mark.parametrize("checkpoint", ["step-000000000.pt", "step-000000000"])
def test_a_random_start_may_come_out_otherwise_elsewhere(tmp_path: Path, checkpoint: str) -> None:
    """Other versions of torch and other processors draw other last bits; the checkpoint has the weights."""

    def identity(sha: str, weights: str = "scratch", name: str = "vit") -> dict[str, Any]:
        return {**IDENTITY, "student": {"name": name, "weights": weights, "weights_sha256": sha}}

    run = RunFolder(tmp_path / "run")
    run.start_or_continue(identity("1"))
    assert run.start_or_continue(identity("2")) == []  # no checkpoint yet: it begins with the weights of now
    assert run.read_identity() == identity("2")
    (run.checkpoints / checkpoint).mkdir(parents=True)  # of a file only the name counts here
    (note,) = run.start_or_continue(identity("3"))
    assert note.startswith("note: this seed gives other random weights here than where ")
    assert run.read_identity() == identity("2")
    for other in (identity("3", name="cnn"), identity("3", weights="w.pth")):
        with pytest.raises(CheckpointError, match="started from other inputs"):
            run.start_or_continue(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    for path in (tmp_path / "metrics.jsonl", None):  # the other processes do not write, but stop as well
        log = MetricsLog(path, 0)
        log.append(step_line(1))
        with pytest.raises(G2LError, match=rf"training has diverged: at step 2 loss is {value:g}\. Choose a smaller"):
            log.append({"kind": "step", "step": 2, "loss": value})
        log.close()
    assert [line["step"] for line in RunFolder(tmp_path).metrics()] == [1]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not empty and not a run"):
        RunFolder(tmp_path).start_or_continue(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_killed_before_its_identity_was_whole_starts_anew(tmp_path: Path) -> None:
    (tmp_path / ("run.json" + ASIDE_SUFFIX)).write_text('{"sto')
    run = RunFolder(tmp_path)
    run.start_or_continue(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    """Also a half-written student, which is a folder, with a half-written file in it."""
    run = RunFolder(tmp_path)
    run.start_or_continue(IDENTITY)
    for name in ("student", "student.old"):
        (tmp_path / (name + ASIDE_SUFFIX)).mkdir()
        (tmp_path / (name + ASIDE_SUFFIX) / ("config.json" + ASIDE_SUFFIX)).write_text("{")
    run.checkpoints.mkdir()
    (run.checkpoints / ("step-000000001.pt" + ASIDE_SUFFIX)).write_text("x")
    run.start_or_continue(IDENTITY)
    assert not list(tmp_path.rglob("*" + ASIDE_SUFFIX))


def test_no_run_and_a_damaged_run_have_clear_words(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such run. `g2l train-student` makes one"):
        RunFolder(tmp_path).read_identity()
    for damage in (b"{", b"\xff\xfe"):
        (tmp_path / "run.json").write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"run\.json: damaged"):
            RunFolder(tmp_path).read_identity()


def test_a_place_that_cannot_be_written_has_clear_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(G2LError, match=r"cannot write to .*file"):
        RunFolder(tmp_path / "file").start_or_continue(IDENTITY)


def test_metrics_are_cut_back_to_what_the_checkpoint_saw(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    log = MetricsLog(run.metrics_path, 0)
    log.append(step_line(1, loss=0.1 + 0.2))
    seen = log.sync()
    assert seen == run.metrics_path.stat().st_size
    log.append(step_line(2, loss=7))
    log.close()
    assert [line["loss"] for line in run.metrics()] == [0.30000000000000004, 7]
    log = MetricsLog(run.metrics_path, seen)
    assert log.sync() == seen  # nothing was written since
    log.append({"kind": "val", "step": 2, "epoch": 1, "rows": 9, "loss": 8})
    longer = log.sync()
    log.close()
    assert longer == run.metrics_path.stat().st_size
    assert [line["loss"] for line in run.metrics()] == [0.1 + 0.2, 8]
    log = MetricsLog(run.metrics_path, 0)
    assert len(run.metrics()) == 2, "a run that begins has nothing to put in their place yet"
    assert log.sync() == 0
    log.close()
    assert run.metrics() == []
    log = MetricsLog(run.metrics_path, 0)
    log.append(step_line(1))
    log.append(step_line(2))
    log.close()
    assert run.metrics() == [step_line(1), step_line(2)]


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    log = MetricsLog(run.metrics_path, 0)
    log.append(step_line(1))
    assert run.metrics() == [step_line(1)]
    log.close()


@pytest.mark.parametrize("left", [None, 5])
def test_metrics_that_are_shorter_than_the_checkpoint_saw_are_an_error(tmp_path: Path, left: int | None) -> None:
    path = tmp_path / "metrics.jsonl"
    if left is not None:
        path.write_text("x" * left)
    with pytest.raises(CheckpointError, match="it had 10 bytes at the checkpoint"):
        MetricsLog(path, 10)


@pytest.mark.parametrize("num_bytes", [0, 4])
@pytest.mark.parametrize("how", ["link", "link to nothing", "pipe"])
def test_metrics_are_never_written_through_a_link(tmp_path: Path, how: str, num_bytes: int) -> None:
    path, target = tmp_path / "metrics.jsonl", tmp_path / "target"
    if how == "link":
        target.write_text("mine, and long")
    if how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl(.* is a link, a pipe or a device|: missing)"):
        MetricsLog(path, num_bytes)
    assert target.exists() == (how == "link")
    assert how != "link" or target.read_text() == "mine, and long"


def test_a_half_written_line_is_left_out_and_a_damaged_one_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    whole = json.dumps(step_line(1)).encode() + b"\n"
    run.metrics_path.write_bytes(whole + b'{"step": 2')
    assert run.metrics() == [step_line(1)]
    for second, cause in (
        (b'{"st\xff\n', "it is not UTF-8 text from byte 5 on"),
        (whole.replace(b"0.5", b"x.5"), "it is not JSON from column 49 on: expecting value"),
        (whole.replace(b'"loss"', b'"koss"'), "no 'loss'"),
        (whole.replace(b'"kind"', b'"wind"'), "no 'kind'"),
        (whole.replace(b'"step", ', b'"stew", '), "of an unknown kind, 'stew'"),
        (whole.replace(b"0.5", b'"5"'), "its loss is '5'"),
        (b"[]\n", "holds a list, not an object"),
    ):
        run.metrics_path.write_bytes(whole + second)
        with pytest.raises(CheckpointError, match=rf"metrics\.jsonl: damaged \(line 2: {re.escape(cause)}"):
            run.metrics()


@pytest.mark.parametrize("kind", ["pipe", "device", "broken link", "folder", "sparse"])
def test_metrics_that_are_no_file_or_too_large_are_named(tmp_path: Path, kind: str) -> None:
    run = RunFolder(tmp_path)
    if kind == "pipe":
        os.mkfifo(run.metrics_path)
    elif kind == "folder":
        run.metrics_path.mkdir()
    elif kind == "sparse":
        with open(run.metrics_path, "wb") as f:
            f.truncate(3 << 30)
    else:
        run.metrics_path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    for read in (run.metrics, run.validations):
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged"):
            read()


@pytest.mark.parametrize("content", [b"", bytes(1000), LINE + b'\n{"st', LINE + b"\n\0\0"])
def test_the_metrics_of_a_finished_run_end_with_a_whole_line(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    run.metrics_path.write_bytes(content)
    assert run.metrics() == [step_line(1)] * content.count(b"\n")
    run.student.mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged .*its last line is not"):
        run.metrics()


def test_without_a_path_nothing_is_written() -> None:
    log = MetricsLog(None, 123)
    log.append({"step": 1})
    assert log.sync() == 0
    log.close()


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "val"}',
        '{"kind": "val", "step": 1, "epoch": 1, "rows": 9}',
        '{"kind": "val", "step": 1, "epoch": 1, "loss": 1}',
        '{"kind": "val", "step": "x", "epoch": 1, "rows": 9, "loss": 1}',
        '{"kind": "val", "step": 1, "epoch": Infinity, "rows": 9, "loss": 1}',
        '{"kind": "val", "step": 1, "epoch": 1, "rows": 9.5, "loss": 1}',
        '{"kind": "val", "step": 1, "epoch": 1, "rows": 9, "loss": 1, "cka": "x"}',
        '{"kind": "val", "step": 1, "epoch": 1, "rows": 9, "loss": 1, "teacher": ["uni"]}',
    ],
)
def test_a_damaged_line_of_a_validation_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    for read in (RunFolder(tmp_path).metrics, RunFolder(tmp_path).validations):
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged \(line 1: "):
            read()


@pytest.mark.parametrize("name", ["step", "loss"])
def test_a_damaged_line_of_an_early_stop_is_named(tmp_path: Path, name: str) -> None:
    line = Stop(4, 0, 7.5, 6.9, 1).line() | {name: 10**400 if name == "loss" else float("inf")}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged \(line 1: "):
        RunFolder(tmp_path).stop()


def test_a_finished_run_without_metrics_is_damaged(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).metrics() == []
    RunFolder(tmp_path).student.mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged \(No such file"):
        RunFolder(tmp_path).metrics()
