"""What stage two says at its end: steps and their time, what was gained on held-out patches, which epoch was best."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.training.held_out import ONLY
from pipeline.training.run_folder import RunFolder
from stages.reports.train import Trained, train_report

BEFORE, AFTER = {"rows": 9, "loss": 5.0, "cosine": 0.1}, {"rows": 9, "loss": 2.5, "cosine": 0.6}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The record of a run of one teacher, with a validation an epoch: the second was best."""
    losses = {0: 5.0, 10: 3.0, 20: 2.0, 30: 2.5}
    lines = [
        {"kind": "val", "step": step, "epoch": step // 10, "rows": 9, "loss": loss} for step, loss in losses.items()
    ]
    write(tmp_path, {"teacher": {"name": "uni"}, "store": "s"}, lines)
    return RunFolder(tmp_path)


def write(folder: Path, identity: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    (folder / "run.json").write_text(json.dumps(identity))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_steps_and_their_time_are_told(run: RunFolder) -> None:
    first, second, *_ = train_report(Trained(run, 1200, 1000, {}, 50.0)).splitlines()
    assert first == f"{run.folder}: 1,200 steps, the student is in {run.student}"
    assert second.startswith("1,000 steps in ")
    assert second.endswith(", 50 ms each with validations and checkpoints")


def test_a_finished_run_says_how_to_train_longer(run: RunFolder) -> None:
    second = train_report(Trained(run, 30, 0, {}, 0.0)).splitlines()[1]
    assert second.startswith("nothing was left to do; to train longer, begin a new run from the student")
    assert f"--weights {run.folder} --out OTHER" in second


def test_gains_are_told_only_where_patches_are_held_out(run: RunFolder) -> None:
    shown = train_report(Trained(run, 30, 30, {ONLY: (BEFORE, AFTER)}, 1.0))
    assert "on 9 held-out patches" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith(("loss", "cosine"))] == [
        ["loss", "5.0000", "2.5000"],
        ["cosine", "0.1000", "0.6000"],
    ]
    write(run.folder, {"teacher": {"name": "uni"}, "store": "s"}, [])
    assert len(train_report(Trained(run, 30, 30, {}, 1.0)).splitlines()) == 2


@pytest.mark.parametrize(("step", "has_choice"), [(None, True), (30, True), (20, False)])
def test_the_best_epoch_is_offered_where_another_is_exported(
    run: RunFolder, step: int | None, has_choice: bool
) -> None:
    last = train_report(Trained(run, 30, 30, {ONLY: (BEFORE, AFTER)}, 1.0, step=step)).splitlines()[-1]
    assert last.startswith("The held-out loss was smallest after epoch 2 (2.0000; after the last, epoch 3, 2.5000); ")
    assert last.endswith(" --keep best exports that one.") == has_choice
    assert ("epoch 2 is exported" in last) != has_choice


def test_a_best_epoch_that_is_the_last_is_no_choice(run: RunFolder) -> None:
    lines = [{"kind": "val", "step": 10 * epoch, "epoch": epoch, "rows": 9, "loss": 5.0 - epoch} for epoch in range(4)]
    write(run.folder, {"teacher": {"name": "uni"}, "store": "s"}, lines)
    last = train_report(Trained(run, 30, 30, {ONLY: (BEFORE, AFTER)}, 1.0)).splitlines()[-1]
    assert last == "The held-out loss was smallest after epoch 3 (2.0000)."


def test_each_of_several_teachers_has_its_table(run: RunFolder) -> None:
    identity = {
        "teacher": {"name": "uni"},
        "store": "1",
        "further_teachers": [{"teacher": {"name": "virchow"}, "weight": 0.5, "content": "2"}],
    }
    write(run.folder, identity, [])
    held_out = {"uni": (BEFORE, AFTER), "virchow": (BEFORE, AFTER | {"loss": 1.5})}
    shown = train_report(Trained(run, 30, 30, held_out, 1.0))
    assert shown.index("on 9 held-out patches as uni") < shown.index("on 9 held-out patches as virchow")
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("loss")] == ["2.5000", "1.5000"]
