"""A run of one epoch, one that has not begun, training that is stopped, and what is compared of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.draws import RunDraws
from pipeline.config.stages import TrainConfig
from pipeline.disk.files import write_bytes
from pipeline.encoders.build import build_encoder
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers
from pipeline.training.rows.choice import choose_rows
from stages import train_student as stage
from stages.training.run import Run, prepare_run
from support.stores import make_store, plain_vit, train_config


def train_once(folder: Path, student: Callable[[Path], str] = plain_vit, **options: Any) -> Path:
    """Write `store.zarr`, the `start` of a student, and a finished `run` of one epoch on them; returns the folder."""
    store = make_store(folder / "store.zarr")
    stage.train_student(store, folder / "run", train_config(student(folder / "start"), epochs=1, **options))
    return folder


def unbegun_run(store: Store, config: TrainConfig) -> Run:
    """A run of a student from scratch that has not begun, without a folder."""
    teachers = choose_teachers(store, None, None)
    built = build_encoder(config.student, "scratch", store.patch_px, seed=0)
    rows = choose_rows(teachers.stored, batch_size=8, val_rows=16, seed=0)
    return prepare_run(teachers, rows, built, config, RunDraws(0), torch.device("cpu"), "float32")


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states have the same names and values."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Raise in the place of step number `steps` + 1."""
    real, count = stage.train_step, [0]

    def counted(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] > steps:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(stage, "train_step", counted)


def plain_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """In place of `draw_curves`, where a run is killed hundreds of times: the same write, without half a second of
    drawing.
    """
    write_bytes(path, f"{len(lines)} lines".encode())
