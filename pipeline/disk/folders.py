"""Make new folders that are complete or absent: build them aside and rename; fill an empty folder in place.

An empty folder may be a mount point, or the only writable folder below a read-only parent; nothing can be renamed onto
it. Its entries are then built in a folder inside it and moved up one by one, the entry that completes it last. A list
of the entries lets the next run remove what a kill left in between. Its name can be guessed, so nothing is removed on
its word alone: the list must be a file of this user, and each entry must have the device and inode that were listed.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base import interrupts
from pipeline.base.outside import parse_object
from pipeline.disk.asides import ASIDE_SUFFIX, aside_name, holds_nothing, is_leftover_name, remove, remove_asides_of
from pipeline.disk.files import name_path, sync_file, sync_folder, sync_tree
from pipeline.disk.locks import hold_new_folder

FILLING = ".filling" + ASIDE_SUFFIX
"""The list of entries being moved up: `{"entries": [[name, device, inode], ...]}`. Earlier versions listed names only;
such a list removes nothing.
"""
MOST_NOTE_BYTES = 1 << 20
"""Our choice: a new folder has a dozen entries; a list of fifteen thousand still fits."""


def is_free(folder: Path) -> bool:
    """Whether `folder` does not exist or is empty, ignoring what a killed run began to put there."""
    if not os.path.lexists(folder):
        return True
    return folder.is_dir() and holds_nothing(folder, _begun(folder))


@contextmanager
def new_folder(folder: Path, last: str) -> Iterator[Path]:
    """The path of a folder to create and fill aside; synced and made `folder` if the block succeeds.

    The caller holds the lock of `folder`, which is free. `last` is the entry that makes the folder count as complete.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if os.path.islink(folder):
        folder = Path(os.path.realpath(folder))
    if folder.name:
        remove_asides_of(folder)
    in_place = folder.is_dir()
    if in_place:
        empty_folder(folder)
    aside = folder / aside_name("new") if in_place else folder.with_name(aside_name(folder.name))
    key = interrupts.undo_at_end(lambda: remove(aside), aside)
    try:
        yield aside
        sync_tree(aside)
        with interrupts.guard:
            if in_place:
                _move_up(aside, folder, last)
            else:
                os.rename(aside, folder)
                hold_new_folder(folder)
        sync_folder(folder if in_place else folder.parent)
    except BaseException as error:
        remove(aside)
        if isinstance(error, OSError):
            if _is_within(error.filename, aside):
                error.filename = None  # half-written, and gone
            name_path(error, folder)
        raise
    finally:
        interrupts.settled(key)


def _is_within(name: object, folder: Path) -> bool:
    """Whether an error's file name is that of a folder or of something in it."""
    return isinstance(name, str | os.PathLike) and Path(name).is_relative_to(folder)


def move(path: Path, to: Path) -> None:
    """Rename a file or folder. A folder of a lower layer of an overlay, such as one that the image of a container has,
    cannot be renamed: it is copied, then removed.

    Raises:
        OSError: it cannot be moved; `path` is as it was.
    """
    try:
        os.rename(path, to)
    except OSError as error:
        if error.errno != errno.EXDEV or path.is_symlink() or not path.is_dir():
            raise
        aside = to.with_name(aside_name(to.name))
        try:
            shutil.copytree(path, aside, symlinks=True)
            sync_tree(aside)
            os.rename(aside, to)
        except BaseException:
            remove(aside)
            raise
        remove(path)


def empty_folder(folder: Path) -> None:
    """Remove from a free folder what a killed run began to put there; files that this process writes stay."""
    for name in _begun(folder):
        remove(folder / name)
    for name in os.listdir(folder):
        if is_leftover_name(name) and not interrupts.is_being_written(folder / name):
            remove(folder / name)


def _move_up(aside: Path, folder: Path, last: str) -> None:
    """Move the entries of `aside` up into `folder`, its parent; after an error none of them is left there."""
    names = sorted(os.listdir(aside), key=lambda name: (name == last, name))
    note = folder / FILLING
    moved: list[str] = []
    try:
        with open(note, "x", encoding="utf-8") as f:
            f.write(json.dumps({"entries": [_identified(aside, name) for name in names]}))
            f.flush()
            sync_file(f.fileno())
        for name in names:
            os.rename(aside / name, folder / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            remove(folder / name)
        raise
    finally:
        remove(note)
        remove(aside)


def _begun(folder: Path) -> set[str]:
    """Entries of `folder` that a killed run has moved up into it: only those that its list identifies."""
    try:
        listed = parse_object(_read_note(folder / FILLING))["entries"]
        names = {entry[0] for entry in listed if isinstance(entry[0], str) and Path(entry[0]).name == entry[0]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()
    begun = set()
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            if _identified(folder, name) in listed:
                begun.add(name)
    return begun


def _identified(folder: Path, name: str) -> list[str | int]:
    """An entry's name, device and inode; a rename within a file system keeps them, a copy has others."""
    status = os.lstat(folder / name)
    return [name, status.st_dev, status.st_ino]


def _read_note(path: Path) -> bytes:
    """Read a list of entries.

    Raises:
        OSError: there is none, or a link has its name.
        ValueError: it is not a regular file of this user with one name, or it is too large.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as f:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink > 1:
            raise ValueError("not a list of this user's")
        data = f.read(MOST_NOTE_BYTES + 1)
    if len(data) > MOST_NOTE_BYTES:
        raise ValueError("too large")
    return data
