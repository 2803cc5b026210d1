"""A run in Weights & Biases keeps its id; its figures are placed by their step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.report.logs.wandb_log import RUN_THERE, WandbLog, run_id


def test_a_folder_keeps_the_id_of_its_first_call(tmp_path: Path) -> None:
    first = run_id(tmp_path)
    assert len(first) == 16
    assert run_id(tmp_path) == first
    (tmp_path / "other").mkdir()
    assert run_id(tmp_path / "other") != first


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"id": '])
def test_a_damaged_id_is_named(tmp_path: Path, damaged: str) -> None:
    (tmp_path / RUN_THERE).write_text(damaged)
    with pytest.raises(ConfigError, match=r"g2l-run\.json.*damaged.*begins another run"):
        run_id(tmp_path)


def test_figures_have_their_step_for_an_axis() -> None:
    said: list[Any] = []
    run = SimpleNamespace(
        define_metric=lambda name, step_metric: said.append((name, step_metric)),
        log=said.append,
        finish=lambda exit_code: said.append(exit_code),
    )
    log = WandbLog(run)
    log.scalars({"train/loss": 2.0}, 7)
    log.end(finished=False)
    log.end(finished=True)
    assert said == [("*", "step"), {"train/loss": 2.0, "step": 7}, 1, 0]


@pytest.mark.parametrize("option", ["--append", "--id"])
def test_where_a_run_is_names_the_command_that_sends_it(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a run are joined by an option, or by themselves where the library has none."""
    cli = pytest.importorskip("wandb.cli.cli")
    monkeypatch.setattr(cli, "sync", SimpleNamespace(params=[SimpleNamespace(opts=[option])]))
    run = SimpleNamespace(define_metric=lambda *_, **__: None, offline=True, dir="/a run/wandb/offline-run-1/files")
    by = "wandb sync --append" if option == "--append" else "wandb sync"
    assert f"; {by} '/a run/wandb/offline-run-1' sends it" in WandbLog(run).where()
    run.offline, run.url = False, "https://wandb/x"
    assert WandbLog(run).where() == "the run is at https://wandb/x"
