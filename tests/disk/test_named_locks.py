"""Locks where there is no flock: one writer at a time all the same, and a dead holder's lock is free."""

import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.failing import failing, os_error
from support.locks import nothing_left, refused

from pipeline.base.errors import BusyError
from pipeline.base.processes import ProcessIdentity
from pipeline.disk import named_locks
from pipeline.disk.locks import LOCK_SUFFIX, exclusive, is_held


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fcntl, "flock", failing(os_error(request.param)))
    return os.strerror(request.param)


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("exists", [True, False])
def test_without_flock_one_writer_at_a_time_all_the_same(
    tmp_path: Path, exists: bool, no_flock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    if exists:
        store.mkdir()
    with exclusive(store, "first"):
        assert no_flock in capsys.readouterr().err
        assert is_held(tmp_path / ("store" + LOCK_SUFFIX))
        refused(store)
    assert nothing_left(tmp_path)
    with exclusive(store, "me"):
        pass


def test_a_file_system_that_really_has_no_flock(tmp_path: Path) -> None:
    """A library in front of the system's own answers as Lustre without `-o flock` does."""
    source, library = tmp_path / "noflock.c", tmp_path / "noflock.so"
    source.write_text("#include <errno.h>\nint flock(int fd, int how) { errno = ENOSYS; return -1; }\n")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler here")
    code = "import os, sys\nfrom pathlib import Path\nfrom pipeline.disk.locks import exclusive\n"
    code += "out = Path(sys.argv[1])\n"
    hold = code + "with exclusive(out, 'first'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    environment = os.environ | {"LD_PRELOAD": str(library)}
    command = [sys.executable, "-c", hold, str(tmp_path / "out")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as first:
        assert first.stdout
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, input="")
        assert "BusyError" in second.stderr
        assert f"in use by first (process {first.pid} on " in second.stderr
        refused(tmp_path / "out")  # by one that has flock, too
        first.kill()
    third = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, input="")
    assert (third.returncode, third.stdout) == (0, "held\n"), third.stderr
    assert "Function not implemented" in third.stderr
    assert nothing_left(tmp_path)


def lock_of(path: Path, identity: ProcessIdentity, kind: str = "name") -> Path:
    """A lock file that a process has written."""
    path.write_text(f"first (process {identity.pid} on there)\n{json.dumps({'kind': kind, **identity.record()})}\n")
    return path


ME = ProcessIdentity.current()
DEAD = dataclasses.replace(ME, started="1")
"""A process of this number that has ended since."""
ELSEWHERE = dataclasses.replace(ME, scope="0" * 8)


def test_a_lock_names_its_holder_for_people_and_for_programs(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(named_locks.describe_holder("g2l plan \udcff", "name"))
    text = named_locks.read_lock(tmp_path / "lock")
    assert named_locks.holder_of(tmp_path / "lock").startswith(f"g2l plan \\udcff (process {os.getpid()} on ")
    assert named_locks.record_of(text) == {"kind": "name", **ME.record()}


@pytest.mark.parametrize("text", ["", "words only\n", "words\n{", "words\n[1]\n", "words\n\n"])
def test_a_lock_without_a_line_for_programs_has_no_record(tmp_path: Path, text: str) -> None:
    assert named_locks.record_of(text) == {}
    (tmp_path / "lock").write_text(text)
    assert not named_locks.is_alive(tmp_path / "lock")


def test_what_cannot_be_read_is_nobody_s(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(lock_of(tmp_path / "lock", ME))
    for name in ("none", "link", "pipe", "."):
        assert named_locks.read_lock(tmp_path / name) == ""
        assert named_locks.holder_of(tmp_path / name) == "another process"


def test_a_holder_here_lives_as_long_as_its_process(tmp_path: Path) -> None:
    """However long ago it touched its file."""
    assert named_locks.is_alive(lock_of(tmp_path / "mine", ME))
    os.utime(tmp_path / "mine", (0, 0))
    assert named_locks.is_alive(tmp_path / "mine")
    assert not named_locks.is_alive(lock_of(tmp_path / "dead", DEAD))
    assert not named_locks.is_alive(lock_of(tmp_path / "flock", ME, kind="flock"))


@pytest.mark.parametrize(("age", "lives"), [(0.0, True), (0.9, True), (1.1, False)])
def test_a_holder_elsewhere_lives_as_long_as_it_touches_its_file(tmp_path: Path, age: float, lives: bool) -> None:
    touched = time.time() - age * named_locks.DEAD_SECONDS
    os.utime(lock_of(tmp_path / "lock", ELSEWHERE), (touched, touched))
    assert named_locks.is_alive(tmp_path / "lock") is lives
    seconds = named_locks.seconds_since_touched(tmp_path / "lock")
    assert seconds == pytest.approx(age * named_locks.DEAD_SECONDS, abs=30)
    assert named_locks.seconds_since_touched(tmp_path / "none") is None
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_whether_flock_may_hold_a_file(tmp_path: Path) -> None:
    for identity, kind, held in (
        (ME, "flock", True),
        (DEAD, "flock", False),
        (ELSEWHERE, "flock", True),
        (ME, "name", False),
    ):
        text = lock_of(tmp_path / "lock", identity, kind).read_text()
        assert named_locks.may_be_of_flock(text) is held
    assert named_locks.may_be_of_flock("words of an earlier version\n")
    assert not named_locks.may_be_of_flock("")


def taken(path: Path, *, is_new: bool, stack: ExitStack) -> bool:
    """Try to hold a lock file that has been opened."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        held = named_locks.take_named(fd, path, path.parent, "me", is_new, OSError(errno.ENOSYS, "no flock"), stack)
    except BaseException:
        os.close(fd)
        raise
    if not held:
        os.close(fd)
    return held


def test_a_dead_holder_s_file_goes_and_the_next_process_makes_its_own(tmp_path: Path) -> None:
    path = lock_of(tmp_path / "lock", DEAD)
    with ExitStack() as stack:
        assert not taken(path, is_new=False, stack=stack)
        assert not list(tmp_path.iterdir())
        assert taken(path, is_new=True, stack=stack)
        assert named_locks.is_alive(path)
        with pytest.raises(BusyError, match=r"in use by me \(process .*if it ended long ago, delete .*lock"):
            taken(path, is_new=False, stack=stack)
    assert not list(tmp_path.iterdir())


def test_a_file_whose_maker_has_not_written_yet_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with ExitStack() as stack, pytest.raises(BusyError, match="another process"):
        taken(path, is_new=False, stack=stack)
    long_ago = time.time() - 10 * named_locks.BEGUN_SECONDS
    os.utime(path, (long_ago, long_ago))
    with ExitStack() as stack:
        assert not taken(path, is_new=False, stack=stack)
    assert not path.exists()


def test_only_the_file_that_was_judged_is_removed(tmp_path: Path) -> None:
    """A new holder may have taken its place in between."""
    path = lock_of(tmp_path / "lock", DEAD)
    judged = path.read_text()
    lock_of(path, ME)
    named_locks.remove_holder(path, judged)
    assert named_locks.is_alive(path)
    named_locks.remove_holder(path, path.read_text())
    named_locks.remove_holder(path, "")  # gone already
    assert not list(tmp_path.iterdir())
