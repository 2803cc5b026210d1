"""Lock outputs: one writer at a time, by whatever path it is reached: links, other mounts, other spellings.

The lock is a file that names its holder. It lies beside the output under its real name, and also inside an output that
is a folder. It is locked with flock, which the system releases when the holder dies. A file system without flock gets
another kind of lock: the process that creates the file holds it, and touches it while it lives (`named_locks`).
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pipeline.base import interrupts
from pipeline.base.errors import BusyError, G2LError
from pipeline.disk import named_locks
from pipeline.disk.named_locks import describe_holder, holder_of

LOCK_SUFFIX = ".g2l-lock"
"""Ending of the lock file: after the output's name beside it, alone inside it."""
SPARE_LETTERS = 20
"""Bytes by which names of files beside an output may be longer than its own: of the lock, of a plan's audit and record.
"""

NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF)
"""Errors of file systems without flock: some FUSE, Lustre without `-o flock`, NFS without its lock service."""
TO_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""How a lock file that is only looked at is opened: never through a link, and without waiting at a pipe."""
NOT_ALLOWED = (errno.EACCES, errno.EPERM)
NOT_WRITABLE = (errno.EROFS, *NOT_ALLOWED)
RETRY_SECONDS = 0.01
"""Between two looks at a lock that is waited for."""

_held: dict[str, tuple[ExitStack, str]] = {}


@contextlib.contextmanager
def exclusive(output: Path, what: str, option: str = "--out") -> Iterator[None]:
    """Lock `output`, a folder or file that `option` names, against other G2L processes while the block runs. A killed
    holder's lock is free.

    The output need not exist yet. An existing folder can be locked even if nothing can be written beside it.

    Raises:
        BusyError: another process holds it; the message names the process, its host and when it started.
        G2LError: the lock cannot be written, or another user's cannot be removed; the message says why.
    """
    real = Path(os.path.realpath(output))
    with ExitStack() as stack:
        hold_beside(output, real, what, stack, option)
        if os.path.isdir(real):
            try:
                hold(real / LOCK_SUFFIX, output, what, stack)
            except OSError as error:
                raise _not_writable(output, real, error, option) from error
        _held[str(real)] = stack, what
        stack.callback(_held.pop, str(real), None)
        yield


@contextlib.contextmanager
def exclusive_soon(output: Path, what: str, seconds: float) -> Iterator[None]:
    """As `exclusive`, for locks that are held for moments: waits for up to so many seconds.

    Raises:
        BusyError: another process, or thread, holds it for longer.
        G2LError: as `exclusive`.
    """
    with ExitStack() as stack:
        give_up = time.monotonic() + seconds
        while True:
            try:
                stack.enter_context(exclusive(output, what))
                break
            except BusyError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(RETRY_SECONDS)
        yield


def hold_beside(output: Path, real: Path, what: str, stack: ExitStack, option: str = "--out") -> None:
    """Hold the lock beside an output. Skipped for `/`, and for an existing folder whose parent is not writable."""
    if not real.name:
        return
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        hold(real.with_name(real.name + LOCK_SUFFIX), output, what, stack)
    except OSError as error:
        if error.errno in NOT_WRITABLE and os.path.isdir(real):
            return
        raise _not_writable(output, real.parent, error, option) from error
    typed = output.absolute()  # earlier versions locked the name as typed
    if typed.name not in ("", "..") and typed.with_name(typed.name + LOCK_SUFFIX).is_file():
        old = typed.with_name(typed.name + LOCK_SUFFIX)
        if not (os.path.realpath(old.parent) == str(real.parent) and old.name == real.name + LOCK_SUFFIX):
            hold(old, output, what, stack)


def _not_writable(output: Path, folder: Path, error: OSError, option: str) -> G2LError:
    """The error that says why no lock can be written in a folder: the fault of the output's name, of the folder, or of
    a lock in it.
    """
    lock = Path(error.filename or folder)
    if error.errno == errno.ENAMETOOLONG:
        return G2LError(
            f"{option} {output}: a name in it is too long for this file system, or the path as a whole; files beside "
            f"the output have names that are some {SPARE_LETTERS} bytes longer. Choose a shorter {option}."
        )
    if lock.name.endswith(LOCK_SUFFIX) and error.errno in NOT_ALLOWED and _is_anothers(lock) and not is_held(lock):
        return G2LError(
            f"{lock} is left of another user's command, {holder_of(lock)}, which does not run here any more, and only "
            f"they may remove it. Let them delete it, or choose another {option}."
        )
    return G2LError(f"cannot write to {folder}: {error.strerror}. Choose another {option} or fix its permissions.")


def _is_anothers(path: Path) -> bool:
    """Whether a file is there that is another user's."""
    try:
        return os.lstat(path).st_uid != os.geteuid()
    except OSError:
        return False


def hold_new_folder(folder: Path) -> None:
    """If `exclusive` holds `folder`, which has just been created, hold the lock inside it as well."""
    stack, what = _held.get(os.path.realpath(folder), (None, ""))
    if stack is not None:
        hold(folder / LOCK_SUFFIX, folder, what, stack)


def hold(path: Path, output: Path, what: str, stack: ExitStack) -> None:
    """Hold the lock file `path` until `stack` is closed.

    Raises:
        BusyError: another process holds it, or is another user's and may.
        G2LError: something other than a lock file has its name.
        OSError: it cannot be created.
    """
    while True:
        with interrupts.guard:
            try:
                fd, is_new = open_lock(path)
            except OSError as error:
                if error.errno in NOT_WRITABLE and is_held(path):
                    raise busy(path, output) from None
                if error.errno in NOT_WRITABLE and is_unreadable(path):
                    raise BusyError(
                        f"{output} may be in use by another user, whose lock {path} cannot be read. Wait for their "
                        "command to end, or let them delete the lock if none runs."
                    ) from None
                if error.errno in NOT_ALLOWED and remove_left(path):
                    continue
                if error.errno in NOT_ALLOWED and is_held(path):  # somebody else has taken it over in between
                    raise busy(path, output) from None
                raise
            try:
                taken = take_lock(fd, path, output, what, is_new, stack)
            except BaseException:
                os.close(fd)
                raise
            if taken:
                return
            os.close(fd)


def open_lock(path: Path) -> tuple[int, bool]:
    """Open or create a lock file; returns its descriptor and whether it is new. Never opens it through a link, which
    somebody may have planted to have its target overwritten.

    Raises:
        G2LError: a link, folder, device, pipe or hard link has its name.
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
        except FileNotFoundError:  # released in between
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise G2LError(f"{path} is a link; a lock is never written through one. Delete it") from None
            if error.errno == errno.EISDIR:
                raise G2LError(f"{path} is a folder, but has the name of a lock file. Rename it") from None
            raise
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            raise G2LError(f"{path} is not a lock of G2L (a device, a pipe, or a file with two names). Delete it")
        return fd, False


def take_lock(fd: int, path: Path, output: Path, what: str, is_new: bool, stack: ExitStack) -> bool:
    """Try to lock an opened lock file. False if `path` is another file by now: try again.

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
        return named_locks.take_named(fd, path, output, what, is_new, error, stack)
    # A holder removes the file before it releases the lock: check that `path` is still the file we locked.
    try:
        if not os.path.samestat(os.fstat(fd), os.lstat(path)):
            return False
    except FileNotFoundError:
        return False
    if named_locks.is_alive(path):  # held by a machine that mounts this file system without flock
        raise busy(path, output)
    key = interrupts.undo_at_end(lambda: path.unlink(missing_ok=True))
    stack.callback(release, fd, path, key)
    os.ftruncate(fd, 0)
    with contextlib.suppress(OSError):  # the disk is full: we hold the lock anyway
        os.pwrite(fd, describe_holder(what, "flock"), 0)
    return True


def release(fd: int, path: Path, key: object) -> None:
    """Release a lock: remove the name first, so that nobody locks a file without a name. One that another user's killed
    process left in a sticky folder stays there, free.
    """
    with interrupts.guard:
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)
        os.close(fd)
        interrupts.settled(key)


def busy(path: Path, output: Path) -> BusyError:
    """The error that says who holds the lock."""
    return BusyError(f"{output} is in use by {holder_of(path)}. Wait for it to end, or stop it.")


def is_locked(output: Path) -> bool:
    """Whether an output has a lock file, of a running process or a killed one. `exclusive` waits for neither: it
    refuses if the holder runs, and takes over a killed one's lock.
    """
    real = Path(os.path.realpath(output))
    return any(os.path.lexists(path) for path in (real.with_name(real.name + LOCK_SUFFIX), real / LOCK_SUFFIX))


def is_held(path: Path) -> bool:
    """Whether a process, this one included, holds the lock file `path`."""
    try:
        fd = os.open(path, TO_LOOK)
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


def remove_left(path: Path) -> bool:
    """Remove the lock file of a killed process of another user, which this user may read and not write, as with a umask
    of 022; whether that could be done. As `release` does it holds the lock meanwhile, so that nobody else's goes.
    """
    try:
        fd = os.open(path, TO_LOOK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        is_lock = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and os.path.samestat(status, os.lstat(path))
        if not is_lock or named_locks.is_alive(path):
            return False
        path.unlink()
    except OSError:  # held, of a file system without flock, or in a folder where only its owner may remove it
        return False
    finally:
        os.close(fd)
    return True


def is_unreadable(path: Path) -> bool:
    """Whether a lock file is there that this user may not read: who holds it cannot be known. In a folder that they may
    not enter nothing is known to be there.
    """
    if not os.path.lexists(path):
        return False
    try:
        os.close(os.open(path, TO_LOOK))
    except OSError as error:
        return error.errno in NOT_WRITABLE
    return False


def covers(lock_names: set[str], folder: str) -> bool:
    """Whether a process holds the lock beside or inside the sub-folder `folder`; `lock_names` are the lock files in its
    parent.
    """
    beside = os.path.basename(folder) + LOCK_SUFFIX
    return (beside in lock_names and is_held(Path(folder).with_name(beside))) or is_held(Path(folder, LOCK_SUFFIX))
