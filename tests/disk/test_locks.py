"""One writer at a time, by whichever path; also where another's file stands in the way."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.locks import nothing_left, refused
from support.mounts import mounted, needs_mounts

from pipeline.base.errors import BusyError, G2LError
from pipeline.disk import locks
from pipeline.disk.locks import LOCK_SUFFIX, exclusive, exclusive_soon, hold_new_folder


@pytest.mark.parametrize("exists", [True, False])
def test_through_links(tmp_path: Path, exists: bool) -> None:
    store, link = tmp_path / "a" / "store", tmp_path / "b" / "link"
    store.parent.mkdir()
    link.parent.mkdir()
    if exists:
        store.mkdir()
    link.symlink_to(store)
    (tmp_path / "c").symlink_to(store.parent)
    paths = [store, link, tmp_path / "c" / "store", tmp_path / "a" / ".." / "c" / "store"]
    for first in paths:
        with exclusive(first, "first"):
            for second in paths:
                refused(second)
        assert nothing_left(tmp_path)


@needs_mounts
def test_through_another_mount_of_the_folder(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with mounted("--bind", store, at=tmp_path / "other" / "name") as other:
        for first, second in ((store, other), (other, store)):
            with exclusive(first, "first"):
                refused(second)
        new = tmp_path / "store" / "new"
        with exclusive(new, "first"):
            refused(other / "new")
            new.mkdir()
            hold_new_folder(new)
            with mounted("--bind", new, at=tmp_path / "third") as third:
                refused(third)
    assert nothing_left(tmp_path)


@needs_mounts
def test_a_folder_below_one_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "below" / "out").mkdir(parents=True)
    with (
        mounted("-t", "tmpfs", "none", at=tmp_path / "writable") as writable,
        mounted("--bind", tmp_path / "below", at=tmp_path / "read-only") as place,
        mounted("--bind", writable, at=place / "out") as out,
    ):
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        with exclusive(out, "first"):
            refused(out)
        assert nothing_left(out)
        words = r"cannot write to .*read-only: Read-only file system"
        with pytest.raises(G2LError, match=words), exclusive(place / "new", "me"):
            pass


def test_the_folders_here_above_and_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with exclusive(Path("."), "first"):
        refused(tmp_path / "a" / "b")
    with exclusive(Path(".."), "first"):
        refused(tmp_path / "a")
    with exclusive(Path("/"), "first"):
        refused(Path("/"))
    assert nothing_left(tmp_path)
    assert not Path("/" + LOCK_SUFFIX).exists()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "store").mkdir()
    for lock in (tmp_path / ("store" + LOCK_SUFFIX), tmp_path / "store" / LOCK_SUFFIX):
        lock.symlink_to(victim)
        with pytest.raises(G2LError, match="is a link"), exclusive(tmp_path / "store", "me"):
            pass
        lock.unlink()
        os.link(victim, lock)
        with pytest.raises(G2LError, match="two names"), exclusive(tmp_path / "store", "me"):
            pass
        lock.unlink()
        os.mkfifo(lock)
        with pytest.raises(G2LError, match="not a lock of G2L"), exclusive(tmp_path / "store", "me"):
            pass
        lock.unlink()
    assert victim.read_text() == "mine"


def test_a_lock_of_an_earlier_version(tmp_path: Path) -> None:
    """It lay beside the name that was typed, with a line of words; held it counts, left over it goes."""
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    for typed in (tmp_path / "store", tmp_path / "link"):
        old = typed.with_name(typed.name + LOCK_SUFFIX)
        with open(old, "a+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            f.write("first (process 1 on there, since 2026-01-01 00:00:00)\n")
            f.flush()
            refused(typed, r"in use by first \(process 1 on there")
        with exclusive(typed, "me"):
            pass
        assert nothing_left(tmp_path)


STARTS = """
import sys
from pathlib import Path
from pipeline.base.errors import BusyError
from pipeline.disk.files import make_output_folder, write_bytes
from pipeline.disk.locks import exclusive
out, num_busy = Path(sys.argv[1]), 0
for i in range(int(sys.argv[2])):
    make_output_folder(out)
    with exclusive(out / f"own{sys.argv[3]}", "own"):
        pass
    try:
        with exclusive(out / "shared", "shared"):
            count = int((out / "count").read_text()) if (out / "count").exists() else 0
            write_bytes(out / "count", str(count + 1).encode())
    except BusyError:
        num_busy += 1
print(num_busy)
"""


@pytest.mark.slow
def test_commands_that_start_together(tmp_path: Path) -> None:
    """Of 6 processes none fails but by being told that another is at it, and no count is lost."""
    rounds = 150

    def run(number: int) -> int:
        command = [sys.executable, "-c", STARTS, str(tmp_path), str(rounds), str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    with ThreadPoolExecutor(6) as pool:
        num_busy = sum(pool.map(run, range(6)))
    assert int((tmp_path / "count").read_text()) == 6 * rounds - num_busy
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_lock_that_is_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    out, held, order = tmp_path / "notes", threading.Event(), list[str]()

    def hold() -> None:
        with exclusive(out, "g2l, noting"):
            held.set()
            time.sleep(0.05)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    with pytest.raises(BusyError, match="in use by g2l, noting"), exclusive_soon(out, "g2l", 0.0):
        pass
    with exclusive_soon(out, "g2l", 5.0):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_an_output_below_a_file_names_the_option_that_gave_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for option in ("--out", "--overlays"):
        with (
            pytest.raises(G2LError, match=rf"cannot write to .*file: .*Choose another {option} or fix"),
            exclusive(tmp_path / "file" / "x", "me", option),
        ):
            pass


def test_a_lock_of_another_user_that_cannot_be_read_may_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one made with a umask of 077: whether it is held cannot be known, so it is waited for like a held one."""
    lock, open_lock, calls = tmp_path / f"a{LOCK_SUFFIX}", locks.open_lock, 0
    lock.touch()

    def denied(path: Path) -> tuple[int, bool]:
        nonlocal calls
        calls += 1
        if calls > 3:  # its holder has released it
            lock.unlink(missing_ok=True)
            return open_lock(path)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(locks, "open_lock", denied)
    monkeypatch.setattr(locks, "is_unreadable", Path.exists)
    may_be = pytest.raises(BusyError, match="may be in use by another user")
    with may_be, exclusive(tmp_path / "a", "a test"):
        pass
    with exclusive_soon(tmp_path / "a", "a test", 10):
        assert calls == 4


def _output_with_lock(folder: Path, place: str) -> tuple[Path, Path]:
    """An output and the name of its lock, "beside" it or "inside"; then it is a folder."""
    out = folder / "out"
    if place == "inside":
        out.mkdir()
        return out, out / LOCK_SUFFIX
    return out, folder / f"out{LOCK_SUFFIX}"


def _of_another_user(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a lock that a killed process of another user left: it can be read and not opened for writing."""
    lock.write_text("g2l plan (process 1 on there, since 2026-01-01 00:00:00)\n")
    open_lock = locks.open_lock

    def denied(path: Path) -> tuple[int, bool]:
        if path == lock and path.exists() and "process 1" in path.read_text():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_lock(path)

    monkeypatch.setattr(locks, "open_lock", denied)


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_a_lock_that_a_killed_command_of_another_user_left_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """In a folder that both may write, with a umask of 022: it was "cannot write to" the folder, which can be."""
    out, lock = _output_with_lock(tmp_path, place)
    _of_another_user(lock, monkeypatch)
    with exclusive(out, "first"):
        refused(out)
    assert nothing_left(tmp_path)


def test_a_lock_of_another_user_that_is_held_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / f"out{LOCK_SUFFIX}"
    _of_another_user(lock, monkeypatch)
    with open(lock) as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        refused(tmp_path / "out", "in use by g2l plan")
        assert not locks.remove_left(lock)
    assert lock.exists()


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_a_lock_in_a_sticky_folder_that_only_its_owner_may_remove_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    out, lock = _output_with_lock(tmp_path, place)
    _of_another_user(lock, monkeypatch)
    monkeypatch.setattr(locks, "remove_left", lambda _: False)
    with pytest.raises(G2LError, match="cannot write to"), exclusive(out, "of one's own lock, nothing such is said"):
        pass
    monkeypatch.setattr(locks, "_is_anothers", Path.exists)
    words = rf"{lock} is left of another user's command, g2l plan \(process 1 .* Let them delete it"
    with pytest.raises(G2LError, match=words), exclusive(out, "second"):
        pass


def test_a_lock_that_somebody_takes_over_meanwhile_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a left lock and its removal."""
    lock = tmp_path / f"out{LOCK_SUFFIX}"
    _of_another_user(lock, monkeypatch)
    with open(lock) as f:

        def taken(_: Path) -> bool:
            fcntl.flock(f, fcntl.LOCK_EX)
            return False

        monkeypatch.setattr(locks, "remove_left", taken)
        refused(tmp_path / "out", "in use by g2l plan")


def test_the_end_of_a_command_whose_lock_only_its_first_owner_may_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a killed process of another user, in a sticky folder, with a umask of 002: it is locked, and stays, free."""
    lock = tmp_path / f"out{LOCK_SUFFIX}"
    lock.touch()
    unlink = Path.unlink

    def denied(path: Path, missing_ok: bool = False) -> None:
        if path == lock:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", denied)
        with exclusive(tmp_path / "out", "first"):
            refused(tmp_path / "out")
    assert lock.exists()
    with exclusive(tmp_path / "out", "next"):
        pass
    assert nothing_left(tmp_path)


def test_a_folder_that_may_not_be_entered_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colleague's with a umask of 077: it was "may be in use by another user", with a lock that is not there."""
    out, open_file = tmp_path / "out", os.open
    out.mkdir()

    def denied(path: Path, flags: int, *mode: int) -> int:
        if Path(path).parent == out:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, flags, *mode)

    monkeypatch.setattr(os, "open", denied)
    words = r"cannot write to .*out: Permission denied\. Choose another --out"
    with pytest.raises(G2LError, match=words), exclusive(out, "me"):
        pass


@pytest.mark.parametrize("name", ["x" * 250, "x" * 300, "x" * 300 + "/run"])
def test_a_name_that_is_too_long_is_named_itself(name: str, tmp_path: Path) -> None:
    """The error named the folder above it, and advised to mend its rights."""
    with (
        pytest.raises(G2LError, match=r"^--out .*x/?r?u?n?: a name in it is too long .* Choose a shorter --out"),
        exclusive(tmp_path / name, "g2l plan"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
