"""Half-written files: name them so that nobody can plant a link there, and remove those that killed runs left.

A file or folder NAME is first written beside it as `NAME.SCOPE-PID-START-RANDOM.g2l-part` (see `processes` for the
middle part). Earlier versions wrote `NAME.g2l-part`; both end the same way, and both are removed.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Sequence, Set
from pathlib import Path

from pipeline.base import interrupts
from pipeline.base.processes import ProcessIdentity
from pipeline.disk.locks import LOCK_SUFFIX, covers, is_held

ASIDE_SUFFIX = ".g2l-part"
"""Ending of a file or folder that is still being written."""

AT_HAND = "slides-at-hand"
"""Name of the notes of which slides are being read (`at_hand`). A later call needs what a crash left of them, so that
only `at_hand` removes them.
"""
TAG = re.compile(rb"\.([0-9a-f]{8})-([0-9]+)-([0-9]*)-[0-9a-f]{8}\.g2l-part$")
MOST_NAME_BYTES = 180
"""Longest part of NAME kept in the half-written name: file systems allow 255 bytes in all."""
OLD_SECONDS = 86400.0
"""Age at which another machine's half-written file counts as left over: its writer cannot be checked from here."""
PROBE = ".probe"
"""Name of the empty file that proves a folder writable, or shows what it makes of capitals; always written aside."""
LOCK_PROBE = re.compile(rb"\.g2l-lock\.[0-9a-f]{8}\.g2l-part$")
"""What `named_locks` writes beside a lock for a moment. Such a name does not say whose it is."""
MOST_PROBE_BYTES = 4096
PART_OF_VOLUME = "lost+found"
"""A folder that new file systems come with: a mounted volume with nothing else counts as empty."""


def _shortened(name: str) -> bytes:
    data = os.fsencode(name)
    return data if len(data) <= MOST_NAME_BYTES else data[:MOST_NAME_BYTES].decode("utf-8", "ignore").encode()


def aside_name(name: str) -> str:
    """A new name under which to write the file or folder that becomes `name`."""
    me = ProcessIdentity.current()
    tag = f".{me.scope}-{me.pid}-{me.started}-{secrets.token_hex(4)}{ASIDE_SUFFIX}"
    return os.fsdecode(_shortened(name) + tag.encode())


def writer_of(name: str) -> ProcessIdentity | None:
    """The process that writes a half-written file; `None` if an earlier version named it."""
    tag = TAG.search(os.fsencode(name))
    return ProcessIdentity(tag[1].decode(), int(tag[2]), tag[3].decode()) if tag else None


def is_aside_of(aside: str, name: str) -> bool:
    """Whether `aside` is a half-written file of `name`."""
    tag = TAG.search(os.fsencode(aside))
    if tag:
        return os.fsencode(aside)[: tag.start()] in (_shortened(name), _shortened(f"{name}.old"))
    return aside in (name + ASIDE_SUFFIX, f"{name}.old{ASIDE_SUFFIX}")


def is_leftover_name(name: str) -> bool:
    """Whether a half-written file or folder of this name may be removed once its writer has gone."""
    is_note = name.startswith(f"{AT_HAND}.") or f".{AT_HAND}." in name
    return name.endswith(ASIDE_SUFFIX) and not is_note


def holds_nothing(folder: Path, beside: Collection[str] = ()) -> bool:
    """Whether a folder holds only locks, half-written files, a new volume's `lost+found`, and the names `beside`."""
    return all(
        name.endswith((ASIDE_SUFFIX, LOCK_SUFFIX)) or name == PART_OF_VOLUME or name in beside
        for name in os.listdir(folder)
    )


def remove(path: Path) -> None:
    """Delete a file, link or folder, but never a link's target. Failures are ignored."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_probes(folder: Path) -> int:
    """Delete the probes that killed processes left in `folder`; returns how many.

    Other processes may work in the folder, and other users. So only what is certainly left over goes: a small file of
    this user, not a link and without a second name, whose process has gone, or which is a day old if that is unknown.
    """
    count = 0
    try:
        names = os.listdir(folder)
    except OSError:  # one may write in a folder that one may not read
        return 0
    for name in names:
        path, is_of_lock = folder / name, LOCK_PROBE.search(os.fsencode(name)) is not None
        if not (is_of_lock or (name.endswith(ASIDE_SUFFIX) and is_aside_of(name, PROBE))):
            continue
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            is_small = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size <= MOST_PROBE_BYTES
            is_old = time.time() - status.st_mtime > OLD_SECONDS
            is_left = is_old if is_of_lock or writer_of(name) is None else is_left_over(path, locked=False)
            if is_small and status.st_uid == os.geteuid() and is_left:
                with interrupts.guard:
                    path.unlink()
                count += 1
    return count


def is_left_over(path: Path, locked: bool) -> bool:
    """Whether the writer of `path` has gone; `locked` says that this process holds the lock of its output."""
    writer = writer_of(path.name)
    if writer is None:
        return locked
    if writer == ProcessIdentity.current():
        return not interrupts.is_being_written(path)
    running = writer.is_running()
    if running is not None:
        return not running
    with contextlib.suppress(OSError):
        return locked or time.time() - os.lstat(path).st_mtime > OLD_SECONDS
    return False


def remove_asides(folder: Path, *, recursive: bool = True) -> int:
    """Delete half-written files and folders that killed runs left below `folder`, or directly in it if not `recursive`;
    returns how many.

    The caller holds the lock of `folder`. Keeps what other processes are writing below it. Does not follow links.
    """
    count = 0
    for place, folders, files in os.walk(folder):
        locks = {name for name in files if name.endswith(LOCK_SUFFIX)}
        for path in _left_overs(place, (*folders, *files), locks):
            with interrupts.guard:
                remove(path)
            count += 1
        folders[:] = [
            name
            for name in folders
            if recursive and not name.endswith(ASIDE_SUFFIX) and not covers(locks, os.path.join(place, name))
        ]
    return count


def _left_overs(place: str, names: Sequence[str], locks: Set[str]) -> Iterator[Path]:
    """Half-written files and folders of one folder whose writers have gone; `locks` are the names of locks in it."""
    outputs = (name.removesuffix(LOCK_SUFFIX) for name in sorted(locks) if name != LOCK_SUFFIX)
    busy = [name for name in outputs if is_held(Path(place, name + LOCK_SUFFIX))]
    for name in names:
        if is_leftover_name(name) and not any(is_aside_of(name, output) for output in busy):
            path = Path(place, name)
            if is_left_over(path, locked=True):
                yield path


def remove_asides_of(path: Path, *, locked: bool = True) -> int:
    """Delete half-written copies of `path` that killed runs left beside it; returns how many. Without `locked`, another
    process may be writing `path`: then only what is certainly left over.
    """
    count = 0
    try:
        names = os.listdir(path.parent)
    except OSError:
        return 0
    for name in names:
        if name.endswith(ASIDE_SUFFIX) and is_aside_of(name, path.name):
            aside = path.with_name(name)
            if is_left_over(aside, locked):
                with interrupts.guard:
                    remove(aside)
                count += 1
    return count
