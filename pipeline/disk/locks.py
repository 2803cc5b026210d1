"""One writer at a time for an output, whichever way leads to it: through links, other mounts, other spellings.

The lock is a file that says who holds it: beside the output under its real name, and in the output where that is a
folder. It is locked with flock, which the system lets go when the holder dies. A file system without flock gets a lock
of another kind: who makes the file holds it, and shows that he lives by touching it (`named_locks`).
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pipeline.base import interrupts
from pipeline.base.errors import BusyError, G2LError
from pipeline.disk import named_locks
from pipeline.disk.named_locks import describe_holder, holder_of

LOCK_SUFFIX = ".g2l-lock"
"""Ending of the file that says who works on an output; beside it, with the output's name, and in it, without one."""

NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF)
"""What file systems without flock say: some FUSE, Lustre without `-o flock`, NFS whose lock service is gone."""
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)

_held: dict[str, tuple[ExitStack, str]] = {}


@contextlib.contextmanager
def exclusive(output: Path, what: str) -> Iterator[None]:
    """Hold `output`, a folder or a file, against any other G2L process while the block runs; a killed holder frees it.

    The output need not exist yet. A folder that exists is held also where nothing can be written beside it.

    Raises:
        BusyError: another process holds it; the message names that process, its host and since when.
        G2LError: the place cannot be written; the message says why.
    """
    real = Path(os.path.realpath(output))
    with ExitStack() as stack:
        hold_beside(output, real, what, stack)
        if os.path.isdir(real):
            hold(real / LOCK_SUFFIX, output, what, stack)
        _held[str(real)] = stack, what
        stack.callback(_held.pop, str(real), None)
        yield


def hold_beside(output: Path, real: Path, what: str, stack: ExitStack) -> None:
    """Hold the lock beside an output. There is none beside `/`, nor where only the output itself can be written."""
    if not real.name:
        return
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        hold(real.with_name(real.name + LOCK_SUFFIX), output, what, stack)
    except OSError as error:
        if error.errno in NOT_WRITABLE and os.path.isdir(real):
            return
        raise G2LError(
            f"cannot write to {real.parent}: {error.strerror}. Choose another --out or mend its rights."
        ) from error
    typed = output.absolute()  # earlier versions locked the name that was typed
    if typed.name not in ("", "..") and typed.with_name(typed.name + LOCK_SUFFIX).is_file():
        old = typed.with_name(typed.name + LOCK_SUFFIX)
        if not (os.path.realpath(old.parent) == str(real.parent) and old.name == real.name + LOCK_SUFFIX):
            hold(old, output, what, stack)


def hold_new_folder(folder: Path) -> None:
    """Where `exclusive` holds `folder`, which has just been made, hold it from within as well."""
    stack, what = _held.get(os.path.realpath(folder), (None, ""))
    if stack is not None:
        hold(folder / LOCK_SUFFIX, folder, what, stack)


def hold(path: Path, output: Path, what: str, stack: ExitStack) -> None:
    """Hold the lock file `path` until `stack` is left.

    Raises:
        BusyError: another process holds it.
        G2LError: something else has its name.
        OSError: it cannot be made.
    """
    while True:
        with interrupts.guard:
            try:
                fd, is_new = open_lock(path)
            except OSError as error:
                if error.errno in NOT_WRITABLE and is_held(path):
                    raise busy(path, output) from None
                raise
            try:
                kept = take(fd, path, output, what, is_new, stack)
            except BaseException:
                os.close(fd)
                raise
            if kept:
                return
            os.close(fd)


def open_lock(path: Path) -> tuple[int, bool]:
    """Open a lock file, or make it; its descriptor, and whether it is new. Never through a link, which another may have
    laid there to have its target written.

    Raises:
        G2LError: a link or something else that is no file of ours has its name.
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            pass
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:  # let go in between
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise G2LError(f"{path} is a link; a lock is never written through one. Delete it") from None
            if error.errno == errno.EISDIR:
                raise G2LError(f"{path} is a folder; it has the name of the lock. Rename it") from None
            raise
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            raise G2LError(f"{path} is no lock of G2L (a device, a pipe, or a file of two names). Delete it")
        return fd, False


def take(fd: int, path: Path, output: Path, what: str, is_new: bool, stack: ExitStack) -> bool:
    """Try to hold an opened lock file. False if it is no longer the one of that name: try again.

    Raises:
        BusyError: another process holds it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy(path, output) from None
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return named_locks.take(fd, path, output, what, is_new, error, stack)
    # A holder removes the file before it lets go: make sure that ours is the one that has the name.
    try:
        if not os.path.samestat(os.fstat(fd), os.lstat(path)):
            return False
    except FileNotFoundError:
        return False
    if named_locks.is_alive(path):  # of a machine whose client of this file system has no flock
        raise busy(path, output)
    key = interrupts.undo_at_end(lambda: path.unlink(missing_ok=True))
    stack.callback(release, fd, path, key)
    os.ftruncate(fd, 0)
    with contextlib.suppress(OSError):  # a full disk: it is held nevertheless
        os.pwrite(fd, describe_holder(what, "flock"), 0)
    return True


def release(fd: int, path: Path, key: object) -> None:
    """Let go: the name first, so that nobody takes a lock that has none."""
    with interrupts.guard:
        path.unlink(missing_ok=True)
        os.close(fd)
        interrupts.settled(key)


def busy(path: Path, output: Path) -> BusyError:
    """The error that names the holder."""
    return BusyError(f"{output} is in use by {holder_of(path)}. Wait for it to end, or stop it.")


def is_locked(output: Path) -> bool:
    """Whether a lock file of an output is there: of a process at work, or of one that was killed. `exclusive` waits for
    neither: it refuses the one, and clears away the other's.
    """
    real = Path(os.path.realpath(output))
    return any(os.path.lexists(path) for path in (real.with_name(real.name + LOCK_SUFFIX), real / LOCK_SUFFIX))


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file `path`; this one included."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        os.close(fd)
    return named_locks.is_alive(path)


def covers(lock_names: set[str], folder: str) -> bool:
    """Whether another output is worked on in the sub-folder `folder`, or beside it under its name, of whose parent the
    lock files are `lock_names`.
    """
    beside = os.path.basename(folder) + LOCK_SUFFIX
    return (beside in lock_names and is_held(Path(folder).with_name(beside))) or is_held(Path(folder, LOCK_SUFFIX))
