"""A loss is a function in a file and a line in a table: `--loss`, its help, training and scoring follow."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import run_g2l
from support.stores import make_store, plain_vit, train_config
from torch import Tensor

from pipeline.base.errors import ConfigError
from pipeline.config.losses import LOSSES, LossEntry
from pipeline.config.stages import TrainConfig
from pipeline.distillation import build_loss
from pipeline.loss import cosine_loss, log_sum_loss, mse_loss
from stages.train_student import train_student

TOY = '''
"""The mean absolute difference to a power."""

from pipeline.base.distributed import global_sum, world_size


def absolute_loss(projected, teacher, alpha):
    return global_sum((projected - teacher).abs().pow(alpha).sum()) / (projected.numel() * world_size())
'''


@pytest.mark.parametrize(
    ("name", "loss"), [("log-sum", partial(log_sum_loss, alpha=3.0)), ("mse", mse_loss), ("cosine", cosine_loss)]
)
def test_a_line_of_the_table_leads_to_the_function(name: str, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    projected, teacher = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.ones(6, 4)
    assert torch.equal(build_loss(name, 3.0)(projected, teacher), loss(projected, teacher))


@pytest.mark.parametrize("name", LOSSES)
def test_only_a_log_of_a_sum_grows_with_the_rows(name: str) -> None:
    """As the table says of it: scoring scales a small batch's value up by it."""
    projected, teacher = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)), torch.ones(8, 4)
    loss = build_loss(name, 4.0)
    once, twice = loss(projected, teacher), loss(projected.repeat(2, 1), teacher.repeat(2, 1))
    growth = float(np.log(2)) if LOSSES[name].is_log_of_sum else 0.0
    assert float(twice - once) == pytest.approx(growth, abs=1e-5)


@pytest.mark.slow
def test_a_new_loss_takes_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_loss.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.setitem(LOSSES, "absolute", LossEntry("toy_loss:absolute_loss", takes_alpha=True))

    store = make_store(tmp_path / "store.zarr")
    config = train_config(plain_vit(tmp_path / "vit"), loss="absolute", alpha=1.5, epochs=1)
    trained = train_student(store, tmp_path / "run", config)
    steps = [line for line in trained.run.metrics() if line["kind"] == "step"]
    assert len(steps) == trained.num_steps
    assert all(0 < line["loss"] < 10 for line in steps)  # a mean of standardised differences, not a log of a sum
    assert trained.run.read_identity()["options"]["loss"] == "absolute"
    assert '"loss": "absolute"' in (trained.run.student / "README.md").read_text()


def test_a_name_that_is_no_loss_is_refused_with_the_names_that_are() -> None:
    names = [repr(name) for name in LOSSES]
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    with pytest.raises(ConfigError, match=rf"{listed}.*got 'cosin'.*did you mean cosine\?"):
        TrainConfig.build({"student": "test_vit", "loss": "cosin"})


def test_the_help_names_all_losses() -> None:
    assert f"[{'|'.join(LOSSES)}]" in run_g2l("train-student", "--help").stdout
