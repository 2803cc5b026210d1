"""Where memory is short, a run says what to do, and goes on when that is done."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.stores import dropping_cnn, make_store, plain_vit, run_files, train_config
from torch import Tensor

from pipeline.base.errors import ConfigError
from pipeline.distillation import Distillation
from stages.train_student import train_student

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


def room_for(monkeypatch: pytest.MonkeyPatch, rows: int, error: BaseException, *, training: bool = True) -> None:
    """Let passes of more rows fail, in training or in evaluation."""
    embed: Callable[[Distillation, Tensor], Tensor] = Distillation.embed

    def embed_some(self: Distillation, pixels: Tensor) -> Tensor:
        if self.student.module.training is training and min(self.micro_batch or len(pixels), len(pixels)) > rows:
            raise error
        return embed(self, pixels)

    monkeypatch.setattr(Distillation, "embed", embed_some)


@pytest.mark.parametrize("error", FULL)
def test_a_step_without_room_says_how_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    store = make_store(tmp_path / "s.zarr", train=(9,), val=(), rows_per_shard=9)
    room_for(monkeypatch, 4, error)
    with pytest.raises(ConfigError, match=r"no room for a pass of 8 rows\. Give --micro-batch 4, or less: .* goes on"):
        train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "vit"), epochs=1))


@pytest.mark.slow
def test_so_told_the_run_goes_on_as_if_it_had_begun_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, config = make_store(tmp_path / "s.zarr"), train_config(plain_vit(tmp_path / "vit"), epochs=1)
    room_for(monkeypatch, 4, FULL[0])
    with pytest.raises(ConfigError, match="Give --micro-batch 4"):
        train_student(store, tmp_path / "run", config)
    in_parts = config.model_copy(update={"micro_batch": 4})
    train_student(store, tmp_path / "run", in_parts)
    train_student(store, tmp_path / "other", in_parts)
    assert run_files(tmp_path / "run") == run_files(tmp_path / "other")


def test_batch_normalisation_needs_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s.zarr", train=(9,), val=(), rows_per_shard=9)
    room_for(monkeypatch, 4, FULL[0])
    with pytest.raises(ConfigError, match=r"no room for a pass of 8 rows\. .* another run .* smaller --batch-size"):
        train_student(store, tmp_path / "run", train_config(dropping_cnn(tmp_path / "cnn"), epochs=1))


def test_scoring_without_room_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s.zarr", train=(9,), val=(8,), rows_per_shard=17)
    room_for(monkeypatch, 4, FULL[0], training=False)
    config = train_config(plain_vit(tmp_path / "vit"), epochs=1)
    with pytest.raises(ConfigError, match=r"no room for batches of 8 patches\. Give --micro-batch 4"):
        train_student(store, tmp_path / "run", config, estimate=False)


def test_other_errors_of_a_step_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s.zarr", train=(9,), val=(), rows_per_shard=9)
    room_for(monkeypatch, 4, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "vit"), epochs=1))
