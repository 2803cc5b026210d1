"""What is half written: its names, random, so that nobody can lay a link there; and taking away what killed runs left.

A file or folder NAME is written as `NAME.SCOPE-PID-START-RANDOM.g2l-part` beside it (`processes` has what the middle
says). Earlier versions wrote `NAME.g2l-part`; that ending is all that both have in common, and both are cleared away.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Collection
from pathlib import Path

from pipeline.base import interrupts
from pipeline.base.processes import ProcessIdentity
from pipeline.disk.locks import LOCK_SUFFIX, covers, is_held

ASIDE_SUFFIX = ".g2l-part"
"""Ending of a file or folder that is still being written."""

TAG = re.compile(rb"\.([0-9a-f]{8})-([0-9]+)-([0-9]*)-[0-9a-f]{8}\.g2l-part$")
MOST_NAME_BYTES = 180
"""Of the name in an aside's own: file systems allow 255 bytes in all."""
OLD_SECONDS = 86400.0
"""Age from which another machine's half-written file, whose writer cannot be seen, is taken for left over."""
PART_OF_VOLUME = "lost+found"
"""The one folder that a new file system has: a volume that was mounted is empty all the same."""


def _shortened(name: str) -> bytes:
    data = os.fsencode(name)
    return data if len(data) <= MOST_NAME_BYTES else data[:MOST_NAME_BYTES].decode("utf-8", "ignore").encode()


def aside_name(name: str) -> str:
    """A new name for what becomes `name`."""
    me = ProcessIdentity.own()
    tag = f".{me.scope}-{me.pid}-{me.started}-{secrets.token_hex(4)}{ASIDE_SUFFIX}"
    return os.fsdecode(_shortened(name) + tag.encode())


def writer_of(name: str) -> ProcessIdentity | None:
    """Who writes a half-written file; `None` of one by an earlier version."""
    found = TAG.search(os.fsencode(name))
    return ProcessIdentity(found[1].decode(), int(found[2]), found[3].decode()) if found else None


def is_aside_of(aside: str, name: str) -> bool:
    """Whether a half-written file is one of `name`."""
    found = TAG.search(os.fsencode(aside))
    if found:
        return os.fsencode(aside)[: found.start()] in (_shortened(name), _shortened(f"{name}.old"))
    return aside in (name + ASIDE_SUFFIX, f"{name}.old{ASIDE_SUFFIX}")


def holds_nothing(folder: Path, beside: Collection[str] = ()) -> bool:
    """Whether a folder has nothing in it but locks, what is half written, what a new volume has, and `beside`."""
    return all(
        name.endswith((ASIDE_SUFFIX, LOCK_SUFFIX)) or name == PART_OF_VOLUME or name in beside
        for name in os.listdir(folder)
    )


def remove(path: Path) -> None:
    """Delete a file, a link or a folder; never what a link leads to, and nothing is raised where it stays."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_left_over(path: Path, locked: bool) -> bool:
    """Whether nobody writes `path` any more; with `locked` its output is this process's own to write."""
    writer = writer_of(path.name)
    if writer is None:
        return locked
    if writer == ProcessIdentity.own():
        return not interrupts.is_being_written(path)
    running = writer.is_running()
    if running is not None:
        return not running
    with contextlib.suppress(OSError):
        return locked or time.time() - os.lstat(path).st_mtime > OLD_SECONDS
    return False


def remove_asides(folder: Path, *, recursive: bool = True) -> int:
    """Delete what killed runs left half written anywhere below `folder`, files and folders; returns how many. If not
    `recursive`, right in it only.

    The caller holds `folder`. What another process writes for an output of its own below it stays. Links are not
    followed.
    """
    count = 0
    for place, folders, files in os.walk(folder):
        locks = {name for name in files if name.endswith(LOCK_SUFFIX)}
        busy = [name.removesuffix(LOCK_SUFFIX) for name in sorted(locks) if name != LOCK_SUFFIX]
        busy = [name for name in busy if is_held(Path(place, name + LOCK_SUFFIX))]
        for name in [name for name in (*folders, *files) if name.endswith(ASIDE_SUFFIX)]:
            path = Path(place, name)
            if not any(is_aside_of(name, output) for output in busy) and _is_left_over(path, locked=True):
                with interrupts.guard:
                    remove(path)
                count += 1
        folders[:] = [
            name for name in folders
            if recursive and not name.endswith(ASIDE_SUFFIX) and not covers(locks, os.path.join(place, name))
        ]  # fmt: skip
    return count


def remove_asides_of(path: Path, *, locked: bool = True) -> int:
    """Delete what killed runs left of `path` alone, beside it; returns how many. Without `locked`, where others may be
    writing it, only what is surely left over.
    """
    count = 0
    try:
        names = os.listdir(path.parent)
    except OSError:
        return 0
    for name in names:
        if name.endswith(ASIDE_SUFFIX) and is_aside_of(name, path.name):
            aside = path.with_name(name)
            if _is_left_over(aside, locked):
                with interrupts.guard:
                    remove(aside)
                count += 1
    return count
