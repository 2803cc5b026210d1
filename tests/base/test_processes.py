"""Whether a process still runs is known by more than its number."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.base import distributed
from pipeline.base.errors import ConfigError
from pipeline.base.processes import ProcessIdentity, launch_number, launched_processes, start_of
from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from stages.finished import finished_training
from stages.studies.runs import require_one_process


def test_this_process_runs() -> None:
    me = ProcessIdentity.current()
    assert me.is_running() is True
    assert ProcessIdentity.read(me.record()) == me


def test_one_that_has_ended_does_not() -> None:
    code = (
        "import json\nfrom pipeline.base.processes import ProcessIdentity\n"
        "print(json.dumps(ProcessIdentity.current().record()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    other = ProcessIdentity.read(json.loads(done.stdout))
    assert other is not None
    assert other.scope == ProcessIdentity.current().scope
    assert other.is_running() is False


def test_a_number_that_was_given_out_again_is_another_process() -> None:
    me = ProcessIdentity.current()
    assert dataclasses.replace(me, started=str(int(me.started) - 1)).is_running() is False
    assert dataclasses.replace(me, started="").is_running() is True  # a system that does not tell


def test_of_another_machine_nothing_is_known() -> None:
    assert dataclasses.replace(ProcessIdentity.current(), scope="0" * 8).is_running() is None


def test_what_is_no_record() -> None:
    for record in ({}, None, [], {"scope": "a", "pid": "x", "started": ""}):
        assert ProcessIdentity.read(record) is None


def test_a_name_with_brackets_and_spaces(tmp_path: Path) -> None:
    odd = tmp_path / "a) (b c"
    os.symlink(sys.executable, odd)
    with subprocess.Popen([odd, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = start_of(process.pid)
        assert started
        assert int(started) >= int(start_of(os.getpid()) or 0)
        process.kill()


def test_how_many_processes_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (launched_processes(), distributed.rank()) == (1, 0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert (launched_processes(), distributed.rank()) == (4, 3)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1.5", "\u0662", "9" * 5000])
def test_a_wrong_number_of_processes_is_refused_by_name(
    text: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    config = TrainConfig(student="s")
    calls = (distributed.rank, require_one_process, lambda: finished_training(store, tmp_path, config))
    for call in calls:
        with pytest.raises(ConfigError, match=r"WORLD_SIZE=.*unset WORLD_SIZE"):
            call()


def test_a_wrong_rank_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match="RANK=first: torchrun sets"):
        launch_number("RANK", 0)
