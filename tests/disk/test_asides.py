"""What is half written: its random names, whose it is, and what is cleared away of it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.base import interrupts
from pipeline.base.processes import ProcessIdentity
from pipeline.disk.asides import (
    ASIDE_SUFFIX,
    OLD_SECONDS,
    PROBE,
    aside_name,
    holds_nothing,
    is_aside_of,
    remove_asides,
    remove_asides_of,
    remove_probes,
    writer_of,
)
from pipeline.disk.files import make_output_folder, require_new_file
from pipeline.disk.locks import LOCK_SUFFIX, exclusive


def of_dead(name: str) -> str:
    """The name aside that a process gave which has ended."""
    code = f"from pipeline.disk.asides import aside_name; print(aside_name({name!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def of_living(name: str) -> str:
    """The name aside that the test's parent process would give."""
    own = aside_name(name)
    me, parent = ProcessIdentity.current(), os.getppid()
    started = Path(f"/proc/{parent}/stat").read_text().rpartition(") ")[2].split()[19]
    return own.replace(f"-{me.pid}-{me.started}-", f"-{parent}-{started}-")


def test_names_are_new_and_known() -> None:
    names = {aside_name("a.h5") for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert writer_of(name) == ProcessIdentity.current()
        assert is_aside_of(name, "a.h5")
        assert not is_aside_of(name, "a")
    assert is_aside_of("a.h5" + ASIDE_SUFFIX, "a.h5")  # of an earlier version
    assert is_aside_of("a.old" + ASIDE_SUFFIX, "a")
    assert writer_of("a.h5" + ASIDE_SUFFIX) is None


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\udcff" * 250, "日" * 85])
def test_long_names(tmp_path: Path, name: str) -> None:
    aside = aside_name(name)
    (tmp_path / aside).touch()
    assert is_aside_of(aside, name)
    key = interrupts.undo_at_end(lambda: None, tmp_path / aside)
    assert remove_asides(tmp_path) == 0  # this very process writes it
    interrupts.settled(key)
    assert remove_asides(tmp_path) == 1


def test_what_a_dead_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    dead, living, old = of_dead("a"), of_living("a"), "a" + ASIDE_SUFFIX
    for name in (dead, living, old, "sub/" + old, "sub/kept"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert remove_asides(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([living, "sub", "kept"])


def test_another_output_below_that_is_worked_on_is_left_alone(tmp_path: Path) -> None:
    """As of an evaluation within a folder of embeddings, on another machine perhaps: its lock counts."""
    below, plan = tmp_path / "below", tmp_path / "plan.h5"
    below.mkdir()
    parts = [below / ("x" + ASIDE_SUFFIX), tmp_path / ("plan.h5" + ASIDE_SUFFIX)]
    for part in parts:
        part.touch()
    with exclusive(below, "another"), exclusive(plan, "another"):
        assert remove_asides(tmp_path) == 0
        assert all(part.exists() for part in parts)
    assert remove_asides(tmp_path) == 2


def test_links_are_never_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    (victim / ("mine" + ASIDE_SUFFIX)).write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / ("a" + ASIDE_SUFFIX)).symlink_to(victim)
    (out / ("b" + ASIDE_SUFFIX)).symlink_to(victim / ("mine" + ASIDE_SUFFIX))
    (out / "folder").symlink_to(victim)
    assert remove_asides(out) == 2
    assert (victim / ("mine" + ASIDE_SUFFIX)).read_text() == "mine"
    assert [path.name for path in out.iterdir()] == ["folder"]


def test_of_one_file_alone(tmp_path: Path) -> None:
    for name in (of_dead("a"), "a" + ASIDE_SUFFIX, "b" + ASIDE_SUFFIX, of_dead("ab")):
        (tmp_path / name).touch()
    assert remove_asides_of(tmp_path / "a", locked=False) == 1
    assert remove_asides_of(tmp_path / "a") == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert remove_asides_of(tmp_path / "none" / "a") == 0


def probes_left_over(folder: Path) -> list[Path]:
    """What kills at the worst moment leave: of a process here, of one elsewhere a day ago, of a lock, of 0.1.0."""
    unknown = aside_name(PROBE).replace(ProcessIdentity.current().scope, "0" * 8)
    names = (of_dead(PROBE), unknown, "s.zarr.g2l-lock.0123abcd.g2l-part", PROBE + ASIDE_SUFFIX)
    for name in names:
        (folder / name).touch()
    for name in names[1:]:
        os.utime(folder / name, (0, time.time() - OLD_SECONDS - 60))
    return [folder / name for name in names]


def test_probes_of_killed_processes(tmp_path: Path) -> None:
    left = probes_left_over(tmp_path)
    unknown = aside_name(PROBE).replace(ProcessIdentity.current().scope, "0" * 8)
    kept = [of_living(PROBE), unknown, "s.zarr.g2l-lock.89abcdef.g2l-part", of_dead("a"), "mine.probe"]
    for name in kept:
        (tmp_path / name).touch()
    assert remove_probes(tmp_path) == len(left)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_only_has_the_name_of_a_probe_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    link, hard, folder, large = (tmp_path / of_dead(PROBE) for _ in range(4))
    link.symlink_to(victim)
    os.link(victim, hard)
    folder.mkdir()
    large.write_bytes(bytes(5000))
    assert remove_probes(tmp_path) == 0
    others = tmp_path / of_dead(PROBE)
    others.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # another user looks
        assert remove_probes(tmp_path) == 0
    assert remove_probes(tmp_path) == 1
    assert all(os.path.lexists(path) for path in (victim, link, hard, folder, large))


def test_the_next_call_on_an_output_removes_them(tmp_path: Path) -> None:
    left = probes_left_over(tmp_path)
    make_output_folder(tmp_path)
    assert not any(path.exists() for path in left)
    left = probes_left_over(tmp_path)
    require_new_file(tmp_path / "plan.h5", "")
    assert list(tmp_path.iterdir()) == []


def test_holds_nothing(tmp_path: Path) -> None:
    assert holds_nothing(tmp_path)
    for name in (LOCK_SUFFIX, "a" + ASIDE_SUFFIX, "lost+found"):  # a new volume has the last
        (tmp_path / name).mkdir()
    assert holds_nothing(tmp_path)
    (tmp_path / "thesis.txt").touch()
    assert not holds_nothing(tmp_path)
    assert holds_nothing(tmp_path, ["thesis.txt"])
