"""Training in several processes that are killed with SIGKILL goes on in another number of them by the same batches."""

import time
from pathlib import Path

import pytest
from support.commands import without_leftovers
from support.forked import ForkedRun
from support.processes import finish_processes, start_processes
from support.stores import flags, make_store, plain_vit, student_folder, train_config

from pipeline.training.checkpoint import load_last_checkpoint
from pipeline.training.run_folder import RunFolder
from stages.train_student import train_student

pytestmark = pytest.mark.slow
STUDENTS = {"batch normalisation": "test_efficientnet", "in parts": "test_vit"}


def last_checkpoint(run: Path) -> int:
    return max((int(p.stem.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*.json")), default=-1)


def kill_after(step: int, run: Path, processes: list[ForkedRun]) -> None:
    """Kill all processes when the checkpoint of a step is there."""
    deadline = time.monotonic() + 120
    while last_checkpoint(run) < step and time.monotonic() < deadline and processes[0].poll() is None:
        time.sleep(0.002)
    for process in processes:
        process.kill()
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [-9] * len(processes), said


@pytest.mark.parametrize("kind", STUDENTS)
def test_killed_in_two_goes_on_in_four_and_ends_in_one(tmp_path: Path, kind: str) -> None:
    store = make_store(tmp_path / "store.zarr")
    source = (
        student_folder(tmp_path / "s", STUDENTS[kind]) if kind == "batch normalisation" else plain_vit(tmp_path / "s")
    )
    micro_batch = 1 if kind == "in parts" else None
    config = train_config(source, epochs=4, batch_size=8, checkpoint_every=1, lr=1e-4, micro_batch=micro_batch)
    whole, run = (RunFolder(tmp_path / name) for name in ("whole", "run"))
    train_student(store, whole.folder, config.model_copy(update={"micro_batch": None}))

    command = ["-m", "g2l", "train-student", store.folder, "--out", run.folder, *flags(config)]
    kill_after(4, run.folder, start_processes(2, command))
    first = last_checkpoint(run.folder)
    kill_after(first + 4, run.folder, start_processes(4, command))
    second = last_checkpoint(run.folder)
    assert 4 <= first < second < 24
    checkpoint = load_last_checkpoint(run.checkpoints)
    assert checkpoint is not None
    assert len(checkpoint["random"]) == 4
    finish_processes(start_processes(1, command))

    without_leftovers(run.folder)
    lines = [folder.metrics() for folder in (whole, run)]
    assert [(line["kind"], line["step"]) for line in lines[0]] == [(line["kind"], line["step"]) for line in lines[1]]
    for expected, line in zip(*lines, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert (run.student / "model.safetensors").is_file()
