"""A run in words: whether it is finished, its loss, and its held-out figures."""

import re
import shutil
from pathlib import Path

import pytest

from pipeline.base.errors import CheckpointError
from pipeline.training.run_folder import RunFolder
from stages.inspecting.run import describe_run, loss_words


def test_a_run_says_whether_it_is_finished(trained: Path, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(trained / "run", tmp_path / "run")))
    shown = describe_run(run)
    assert re.search(r"finished +yes\n", shown)
    assert "held-out patches" in shown
    shutil.rmtree(run.student)
    assert "no: run train-student again to continue" in describe_run(run)
    run.identity_path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"run\.json: damaged"):
        describe_run(run)


def test_a_loss_has_its_exponent_if_there_is_one() -> None:
    assert loss_words("log-sum", 4.0) == "log-sum, alpha 4"
    assert loss_words("mse", None) == "mse"
