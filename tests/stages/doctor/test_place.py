"""The folder of outputs: each finding when it should, and nothing left behind."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.base import interrupts
from pipeline.base.processes import ProcessIdentity
from pipeline.disk.asides import aside_name
from stages.doctor import place
from stages.doctor.findings import Finding


def found(folder: Path) -> dict[str, Finding]:
    return {each.subject: each for each in place.look_at_place(folder)}


@pytest.fixture(autouse=True)
def small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "PROBE_BYTES", 1 << 20)


def test_a_sound_folder_is_in_order_and_empty_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "SLOW_SYNC", 60.0)
    monkeypatch.setattr(place, "SLOW_BYTES", 1.0)
    monkeypatch.setattr(place, "LITTLE_ROOM", 1)
    assert {name: each.level for name, each in found(tmp_path).items()} == dict.fromkeys(
        ("room", "disk", "locks", "hard links"), "ok"
    )
    assert not list(tmp_path.iterdir())


def test_the_nearest_folder_is_where_commands_make_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "file").touch()
    for name, nearest in (("there", "there"), ("link", "link"), ("there/a/b", "there"), ("link/a", "there")):
        assert place.nearest_folder(tmp_path / name) == tmp_path / nearest
    assert found(tmp_path / "file" / "a")["folder"].level == "trouble"


def test_nothing_is_left_when_a_signal_ends_the_process(tmp_path: Path) -> None:
    findings = place.look_at_place(tmp_path)
    assert [next(findings).subject, next(findings).subject] == ["room", "disk"]
    (probe,) = tmp_path.iterdir()
    assert interrupts.is_being_written(probe)
    for undo in list(interrupts._undoings.values()):  # as `interrupts.end` does
        undo()
    assert not list(tmp_path.iterdir())
    findings.close()  # type: ignore[attr-defined]
    assert not interrupts.is_being_written(probe)


def test_what_a_killed_call_left_goes_with_the_next(tmp_path: Path) -> None:
    """And nothing else: what another call, which runs, is writing stays."""
    me = ProcessIdentity.current()
    name = aside_name(place.TRIED_FOLDER).replace(f"-{me.pid}-{me.started}-", f"-{me.pid}-1-")  # of an earlier process
    left = tmp_path / name
    left.mkdir()
    (left / "large").write_bytes(b"x")
    with place.probe_folder(tmp_path) as running:
        found(tmp_path)
        assert list(tmp_path.iterdir()) == [running]
    assert not list(tmp_path.iterdir())


def test_a_full_and_slow_disk_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    monkeypatch.setattr(place, "SLOW_SYNC", 0.0)
    seen = found(tmp_path)
    assert (seen["room"].level, seen["disk"].level) == ("note", "note")


def test_a_folder_that_cannot_be_written_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert found(tmp_path)["folder"].level == "trouble"
    assert found(tmp_path / "absent")["folder"].level == "trouble"


def test_locks_that_do_not_hold_are_trouble_and_absent_ones_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)
    assert place.look_at_locks(tmp_path).level == "trouble"

    def none(fd: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    assert place.look_at_locks(tmp_path).level == "note"


def test_a_file_system_without_hard_links_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*names: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", none)
    assert found(tmp_path)["hard links"].level == "note"
