"""Write files that are complete or absent: written aside, synced, renamed.

Every file that another run may read is made by `write_aside`, every such folder by `folders.new_folder`. If a file
system cannot sync folders or rename over a file, a note says so once, and writing goes on without.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.base import interrupts
from pipeline.base.errors import G2LError
from pipeline.disk.asides import PROBE, aside_name, remove, remove_probes

HASH_BLOCK_BYTES = 1 << 20

NO_SYNC = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)
"""Errors of systems that cannot sync a folder, or cannot open one that is write-only."""
NO_REPLACE = (errno.EEXIST, errno.EPERM, errno.EACCES, errno.ENOTEMPTY, errno.ENOSYS)
"""Errors of file systems that cannot rename over an existing file; some may also mean missing permissions."""
NO_CHMOD = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY)
"""Errors of file systems without permissions: some FUSE, CIFS, exFAT mounted for another user."""

_shown_notes: set[str] = set()


def say_once(text: str) -> None:
    """Show a note to the user, once per process."""
    if text not in _shown_notes:
        _shown_notes.add(text)
        from pipeline.base.console import say  # tqdm is slow to import, and most commands have no such note

        say(f"note: {text}")


def sync_folder(folder: Path) -> None:
    """Make new and renamed entries of `folder` survive a power cut, if the file system can."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise name_path(error, folder) from None
        say_once(f"{folder} cannot be synced ({error.strerror}): a power cut may lose the last files")


def sync_file(fd: int) -> None:
    """Make an open file's bytes survive a power cut, if the file system can."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        say_once(f"files cannot be synced here ({error.strerror}): a power cut may lose the last files")


def sync_tree(folder: Path) -> None:
    """Make all files and folders below `folder` survive a power cut."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_folder(Path(place, name))  # works for files as well
        sync_folder(Path(place))


def bytes_below(folder: Path) -> int:
    """Sizes of all files below a folder, bytes; of those that go meanwhile, nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def name_path(error: OSError, path: Path, aside: Path | None = None) -> OSError:
    """The same error with the path that the user knows, if it names none or the half-written file."""
    if error.errno is not None and (error.filename is None or str(error.filename) == str(aside)):
        error.filename, error.filename2 = str(path), None
    return error


def replace(aside: Path, path: Path) -> None:
    """Rename `aside` to `path`: in one step, or in several if the file system cannot rename over a file.

    Raises:
        OSError: it cannot be renamed; the old `path` is kept.
    """
    with interrupts.guard:
        try:
            os.replace(aside, path)
        except OSError as error:
            if error.errno not in NO_REPLACE or not path.is_file():
                raise
            old = path.with_name(aside_name(path.name + ".old"))
            try:
                os.rename(path, old)
            except OSError:
                raise error from None  # missing permissions
            try:
                os.rename(aside, path)
            except OSError:
                os.rename(old, path)
                raise
            remove(old)
            say_once(
                f"{path.parent} is on a file system that cannot rename over a file ({error.strerror}): a kill "
                "during a rewrite may lose the file"
            )
        else:
            remove(aside)  # still there if both are names of one file: the system then does nothing, without an error


def open_aside(path: Path) -> tuple[Path, object]:
    """A name aside for `path`, removed if a signal ends the process, and the key for `interrupts.settled`.

    Open it with mode "xb", so that it is created anew and never through a link.
    """
    aside = path.with_name(aside_name(path.name))
    return aside, interrupts.undo_at_end(lambda: remove(aside), aside)


@contextmanager
def write_aside(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` if the block succeeds, and is removed if it fails.

    The bytes are synced before the rename, the folder after it. An existing `path` is replaced in one step. The file's
    permissions follow the umask.

    Raises:
        OSError: the disk is full, the folder is not writable, ...; it names `path`, which is unchanged.
    """
    with _becoming(path) as aside:
        with interrupts.guard:
            opened = open(aside, "xb")  # noqa: SIM115
        with opened as f:
            yield f
            f.flush()
            sync_file(f.fileno())


@contextmanager
def written_by_library(path: Path) -> Iterator[Path]:
    """A path aside for a library that writes to a path; synced and renamed to `path` if the block succeeds.

    The file's permissions follow the umask, whatever the library sets (safetensors: readable by the owner only), if the
    file system lets them be set. A hard link keeps those that it has, for they are its other names' as well.

    Raises:
        OSError: as `write_aside`.
    """
    with _becoming(path) as aside:
        with open(aside, "xb") as f:
            mode = os.fstat(f.fileno()).st_mode & 0o777
        yield aside
        _set_mode(aside, mode)
        with open(aside, "rb") as f:
            sync_file(f.fileno())


def _set_mode(path: Path, mode: int) -> None:
    """Set a file's permissions if they differ, the file system has any, and the file has no other name."""
    status = os.stat(path)
    if status.st_mode & 0o777 == mode or status.st_nlink > 1:
        return
    try:
        os.chmod(path, mode)
    except OSError as error:
        if error.errno not in NO_CHMOD:
            raise
        say_once(f"permissions cannot be set here ({error.strerror}): new files may be readable by their owner only")


@contextmanager
def _becoming(path: Path) -> Iterator[Path]:
    """A name aside whose file becomes `path` if the block succeeds, and is removed if it fails."""
    aside, key = open_aside(path)
    try:
        yield aside
        replace(aside, path)
    except OSError as error:
        remove(aside)
        raise name_path(error, path, aside)  # noqa: B904  (the same error)
    except BaseException:
        remove(aside)
        raise
    finally:
        interrupts.settled(key)
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a file, complete or absent."""
    with write_aside(path) as f:
        f.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, complete or absent.

    Raises:
        G2LError: the text contains a file name that is not UTF-8.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise G2LError(f"{path} cannot hold {odd_name(error)}, a name that is not UTF-8. Rename it") from None
    write_bytes(path, data)


def odd_name(error: UnicodeEncodeError) -> str:
    """The word that could not be encoded, in ASCII."""
    before, after = error.object[: error.start], error.object[error.start :]
    word = before.split("\n")[-1].split(",")[-1].split('"')[-1] + after.split("\n")[0].split(",")[0].split('"')[0]
    return ascii(word)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, complete or absent."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON: sorted keys, no spaces, no NaN."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def make_output_folder(folder: Path, option: str = "--out") -> None:
    """Create an output folder and check that it is writable; remove the proofs of that which killed runs left. `option`
    is the one that named it.

    Raises:
        G2LError: it cannot be created or written; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / aside_name(PROBE)
        with interrupts.guard:
            try:
                open(probe, "xb").close()
            finally:
                remove(probe)
        remove_probes(folder)
    except OSError as error:
        raise G2LError(
            f"cannot write to {folder}: {error.strerror}. Choose another {option} or fix its permissions."
        ) from error


def ignores_case(folder: Path) -> bool:
    """Whether `folder` ignores case in file names (macOS, exFAT, many file servers)."""
    probe = folder / aside_name(PROBE)
    with interrupts.guard:
        try:
            open(probe, "xb").close()
            return os.path.lexists(probe.with_name(probe.name.upper()))
        finally:
            remove(probe)


def require_names_apart(folder: Path, names: Iterable[str]) -> None:
    """Check that no two of these file names are the same file in `folder`.

    Raises:
        G2LError: the file system treats two of them as one; says which.
    """
    spellings: dict[str, str] = {}
    for name in names:
        other = spellings.setdefault(name.casefold(), name)
        if other != name and ignores_case(folder):
            raise G2LError(
                f"{folder} is on a file system that ignores case: {other} and {name} would be one file. "
                "Choose a folder on another file system, or rename one of them"
            )


def require_new_file(path: Path, force_hint: str) -> None:
    """Refuse to overwrite `path`, and check that its folder is writable.

    Raises:
        G2LError: it exists (`force_hint` says what to do), or its folder cannot be written.
    """
    if path.is_dir():
        raise G2LError(f"{path} is a folder. Give --out the name of a file in it")
    require_absent(path, force_hint)
    make_output_folder(path.parent)


def require_absent(path: Path, force_hint: str) -> None:
    """Refuse to overwrite `path`, of whose folder nothing is asked: for many files of one folder.

    Raises:
        G2LError: it exists; `force_hint` says what to do.
    """
    if os.path.lexists(path):
        raise G2LError(f"{path} exists and is not overwritten. {force_hint}")


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for temporary files, removed after the block or when a signal ends the process."""
    with interrupts.guard:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        key = interrupts.undo_at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        interrupts.settled(key)
