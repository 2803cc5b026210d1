"""Locks for file systems without flock: the process that creates the file holds it, and touches it while it lives.

A holder on this machine is dead if its process is gone; one on another machine, container or boot if its file has not
been touched for `DEAD_SECONDS`. Left out: a holder that was suspended for longer and wakes up; it exits when it finds
another process in its place.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.base import interrupts
from pipeline.base.errors import BusyError
from pipeline.base.processes import ProcessIdentity

TOUCH_SECONDS = 20.0
DEAD_SECONDS = 600.0
"""Our choice: a file server may hang for minutes while its clients live."""
BEGUN_SECONDS = 10.0
"""Age at which an empty lock file counts as abandoned: its creator died before writing to it."""
MOST_BYTES = 4096


def describe_holder(what: str, kind: str) -> bytes:
    """A lock's content: one line for people and one for programs. `kind` is "flock" or "name"."""
    words = f"{what} (process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')})"
    record = {"kind": kind, **ProcessIdentity.current().record()}
    return f"{words}\n{json.dumps(record)}\n".encode("utf-8", "backslashreplace")


def read_lock(path: Path) -> str:
    """A lock's content; "" if it cannot be read or is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(fd, MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def holder_of(path: Path) -> str:
    """A lock's holder, in words."""
    return (read_lock(path).strip().splitlines() or ["another process"])[0]


def record_of(text: str) -> dict[str, Any]:
    """A lock's line for programs, parsed; empty for locks of earlier versions."""
    try:
        record = json.loads(text.splitlines()[1])
    except (IndexError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_alive(path: Path) -> bool:
    """Whether a lock of this kind is held; False for flock locks, which cannot be judged here."""
    record = record_of(read_lock(path))
    if record.get("kind") != "name":
        return False
    identity = ProcessIdentity.read(record)
    running = identity.is_running() if identity else False
    if running is not None:
        return running
    age = seconds_since_touched(path)
    return age is not None and age < DEAD_SECONDS


def may_be_of_flock(text: str) -> bool:
    """Whether a flock lock may be held, by a process here or by a machine that mounts the file system with flock."""
    record = record_of(text)
    if not text or record.get("kind") == "name":
        return False
    identity = ProcessIdentity.read(record)
    return identity is None or identity.is_running() is not False


def seconds_since_touched(path: Path) -> float | None:
    """Seconds since a file's last change, by the clock of its file system; `None` if it is gone."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}.g2l-part")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            now = os.lstat(probe).st_mtime
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        now = time.time()
    try:
        return now - os.lstat(path).st_mtime
    except OSError:
        return None


def take_named(fd: int, path: Path, output: Path, what: str, is_new: bool, why: OSError, stack: ExitStack) -> bool:
    """Hold a lock file without flock. `is_new` says that this process has just created it. False if a dead holder's
    file was removed and must be created again.

    Raises:
        BusyError: another process holds it.
    """
    if not is_new:
        text = read_lock(path)
        age = seconds_since_touched(path)
        begun = not text and age is not None and age < BEGUN_SECONDS
        if begun or is_alive(path) or may_be_of_flock(text):
            raise BusyError(
                f"{output} is in use by {holder_of(path)}. Wait for it to end, or stop it; if it ended "
                f"long ago, delete {path}"
            )
        remove_holder(path, text)
        return False
    content = describe_holder(what, "name")
    key = interrupts.undo_at_end(lambda: path.unlink(missing_ok=True))
    try:
        os.pwrite(fd, content, 0)
        os.fsync(fd)
    except OSError:
        interrupts.settled(key)
        path.unlink(missing_ok=True)
        raise
    from pipeline.base.console import say  # tqdm is slow to import, and most commands have no such note

    say(
        f"note: {path.parent} is on a file system without flock ({why.strerror}); the lock is a file that G2L touches "
        f"every {TOUCH_SECONDS:g} seconds"
    )
    stop = threading.Event()
    touch = threading.Thread(target=_keep_touching, args=(path, content, stop), name="g2l-lock", daemon=True)
    touch.start()
    stack.callback(_release, fd, path, content, stop, touch, key)
    return True


def remove_holder(path: Path, text: str) -> None:
    """Remove a dead holder's file. If several processes try, only one succeeds; one that has moved a live holder's file
    puts it back.
    """
    away = path.with_name(f"{path.name}.{secrets.token_hex(4)}.g2l-part")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, away)
        if read_lock(away) != text and not os.path.lexists(path):
            os.rename(away, path)
        else:
            away.unlink(missing_ok=True)


def _keep_touching(path: Path, content: bytes, stop: threading.Event) -> None:
    misses = 0
    while not stop.wait(TOUCH_SECONDS):
        misses = 0 if read_lock(path).encode("utf-8") == content else misses + 1
        if misses > 1:  # suspended for long: another process holds the output, and two must not write
            print(
                f"{path} is now held by {holder_of(path)}: this process exits, so that only one writes", file=sys.stderr
            )
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with contextlib.suppress(OSError):
            os.utime(path)


def _release(fd: int, path: Path, content: bytes, stop: threading.Event, touch: threading.Thread, key: object) -> None:
    stop.set()
    touch.join(1.0)
    with interrupts.guard:
        if read_lock(path).encode("utf-8") == content:
            path.unlink(missing_ok=True)
        os.close(fd)
        interrupts.settled(key)
