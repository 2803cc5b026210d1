"""What goes to MLflow's client: every figure once, in parts that it takes, under names that it takes."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.report.logs.mlflow_log import BATCH, LAST_STEP, MlflowLog, logging_kept

pytest.importorskip("mlflow")


class Client:
    """Notes figures as (name, value, step), and how each run ended."""

    def __init__(self) -> None:
        self.parts: list[list[tuple[str, float, int]]] = []
        self.ends: list[tuple[str, str]] = []

    def log_batch(self, run: str, metrics: list[Any]) -> None:
        self.parts.append([(each.key, each.value, each.step) for each in metrics])

    def set_terminated(self, run: str, status: str) -> None:
        self.ends.append((run, status))

    @property
    def figures(self) -> list[tuple[str, float, int]]:
        return [each for part in self.parts for each in part]


@pytest.mark.parametrize("steps", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
def test_every_figure_is_logged_once(steps: int) -> None:
    client = Client()
    log = MlflowLog(client, "r", -1)
    for step in range(steps):
        log.scalars({"train/loss": step / 2, "held-out/top-1 (%)": 1.0}, step)
    log.end(finished=True)
    wanted = [
        (name, value, s) for s in range(steps) for name, value in (("train/loss", s / 2), ("held-out/top-1 ___", 1.0))
    ]
    assert [each for each in client.figures if each[0] != LAST_STEP] == wanted
    assert all(len(part) <= 1000 for part in client.parts)
    assert client.ends == [("r", "FINISHED")]
    if steps:
        assert client.figures[-1] == (LAST_STEP, steps - 1, steps - 1)


def test_a_run_that_goes_on_logs_from_its_last_step() -> None:
    """The last step itself again: of its figures some may be missing."""
    client = Client()
    log = MlflowLog(client, "r", 5)
    for step in range(4, 8):
        log.scalars({"loss": 1.0}, step)
    log.end(finished=False)
    assert [step for name, _, step in client.figures if name == "loss"] == [5, 6, 7]
    assert client.ends == [("r", "FAILED")]


def test_files_are_copied() -> None:
    copied: list[tuple[str, str]] = []
    client = SimpleNamespace(log_artifact=lambda run, path: copied.append((run, path)))
    MlflowLog(client, "r", -1).files(["a.png", "b.json"])  # type: ignore[list-item]
    assert copied == [("r", "a.png"), ("r", "b.json")]


def test_where_a_run_is_names_the_command_and_no_password() -> None:
    client: Any = Client()
    here = MlflowLog(client, "r", -1, "sqlite:////data/my run/mlflow/mlflow.db").where()
    assert "mlflow ui --backend-store-uri 'sqlite:////data/my run/mlflow/mlflow.db'" in here
    there = MlflowLog(client, "r", -1, "https://me:secret@tracking.lab").where()
    assert "run r" in there
    assert "secret" not in there


ANEW = """
[loggers]
keys = root,alembic
[handlers]
keys = console
[formatters]
keys =
[logger_root]
level = WARN
handlers = console
[logger_alembic]
level = INFO
handlers =
qualname = alembic
[handler_console]
class = StreamHandler
args = (sys.stderr,)
"""
"""What MLflow 3.1 makes of logging when it makes its tables."""


def test_a_library_that_configures_logging_anew_leaves_it_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As MLflow 3.1 does from within; Python's own then closes the files of all handlers."""
    (tmp_path / "alembic.ini").write_text(ANEW)
    anew = "from logging.config import fileConfig\nfileConfig(path, disable_existing_loggers=False)"
    root, handler = logging.getLogger(), logging.FileHandler(tmp_path / "mine.log", mode="w")
    root.addHandler(handler)
    try:
        root.warning("before")
        before = (root.level, root.handlers[:], logging.getLogger("alembic").level, logging.root.manager.disable)
        with logging_kept():
            exec(anew, {"path": tmp_path / "alembic.ini"})
            logging.getLogger("alembic").info("Running upgrade")
            logging.getLogger("alembic").warning("a warning")
        after = (root.level, root.handlers[:], logging.getLogger("alembic").level, logging.root.manager.disable)
        root.warning("after")
    finally:
        root.removeHandler(handler)
        handler.close()
    assert after == before
    lines = (tmp_path / "mine.log").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "Running upgrade" not in capsys.readouterr().err
