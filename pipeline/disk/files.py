"""Files on disk are complete or absent: written aside, synced, renamed.

`write_aside` is the only way this project makes a file that another run may read; `new_folder` makes a folder so. What
a file system lacks of it (syncing folders, renaming over a file) is said once, and done without.
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
from pipeline.disk.asides import aside_name, remove

HASH_BLOCK_BYTES = 1 << 20

NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM,
           errno.EROFS)  # fmt: skip
"""What systems say that cannot sync a folder, or do not let one be opened that may only be written."""
NO_REPLACE = (errno.EEXIST, errno.EPERM, errno.EACCES, errno.ENOTEMPTY, errno.ENOSYS)
"""What file systems say that cannot rename over a file that exists; some of it may mean missing rights as well."""

_said: set[str] = set()


def say_once(text: str) -> None:
    """A note to the user, once a process."""
    if text not in _said:
        _said.add(text)
        from pipeline.base.console import say

        say(f"note: {text}")


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in `folder` survive a power cut, where the file system can."""
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
    """Make an open file's bytes survive a power cut, where the file system can."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        say_once(f"files cannot be synced here ({error.strerror}): a power cut may lose the last ones")


def sync_tree(folder: Path) -> None:
    """Make all files and folders below `folder` survive a power cut."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_folder(Path(place, name))  # a file is synced in the same way
        sync_folder(Path(place))


def name_path(error: OSError, path: Path, aside: Path | None = None) -> OSError:
    """The same error with the path that the user knows: writing to an open file says none, a name aside says little."""
    if error.errno is not None and (error.filename is None or str(error.filename) == str(aside)):
        error.filename, error.filename2 = str(path), None
    return error


def replace(aside: Path, path: Path) -> None:
    """Give `aside` the name `path`, in one step; in several where the file system cannot rename over a file.

    Raises:
        OSError: it cannot; what was at `path` is there.
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
                raise error from None  # rights are missing
            try:
                os.rename(aside, path)
            except OSError:
                os.rename(old, path)
                raise
            remove(old)
            say_once(f"{path.parent} is on a file system that cannot rename over a file ({error.strerror}): a kill in "
                     "between may lose a file that is written again")  # fmt: skip


def open_aside(path: Path) -> tuple[Path, object]:
    """A name aside for `path`, which goes if a signal ends the process, and the key for `interrupts.settled`.

    The file is to be opened with mode "xb": made new, never through a link.
    """
    aside = path.with_name(aside_name(path.name))
    return aside, interrupts.undo_at_end(lambda: remove(aside), aside)


@contextmanager
def write_aside(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` when the block ends well, and vanishes when it does not.

    The bytes are synced before the rename and the folder after it. An existing `path` is replaced in one step. Its
    rights are those that the umask leaves.

    Raises:
        OSError: the disk is full, the folder is not writable, ...; it names `path`, which is then as it was.
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
    """A place aside for a library that takes a path; it is synced and becomes `path` when the block ends well.

    The file has the rights that the umask leaves, whatever the library gave it (safetensors: only its owner may read).

    Raises:
        OSError: as `write_aside`.
    """
    with _becoming(path) as aside:
        with open(aside, "xb") as f:
            mode = os.fstat(f.fileno()).st_mode & 0o777
        yield aside
        os.chmod(aside, mode)
        with open(aside, "rb") as f:
            sync_file(f.fileno())


@contextmanager
def _becoming(path: Path) -> Iterator[Path]:
    """A name aside whose file becomes `path` when the block ends well, and vanishes when it does not."""
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
    """Write a whole file, complete or absent."""
    with write_aside(path) as f:
        f.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, complete or absent.

    Raises:
        G2LError: the text has the name of a file that is not UTF-8.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise G2LError(f"{path} cannot hold {odd_name(error)}, a name that is not UTF-8. Rename it") from None
    write_bytes(path, data)


def odd_name(error: UnicodeEncodeError) -> str:
    """The word in which a text could not be encoded, in ASCII."""
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


def make_output_folder(folder: Path) -> None:
    """Create an output folder and prove that it can be written.

    Raises:
        G2LError: it cannot be created or written; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / aside_name(".probe")
        with interrupts.guard:
            try:
                open(probe, "xb").close()
            finally:
                remove(probe)
    except OSError as error:
        raise G2LError(
            f"cannot write to {folder}: {error.strerror}. Choose another --out or mend its rights."
        ) from error


def ignores_case(folder: Path) -> bool:
    """Whether names in `folder` that differ in capitals only are one (macOS, exFAT, many file servers)."""
    probe = folder / aside_name(".probe")
    with interrupts.guard:
        try:
            open(probe, "xb").close()
            return os.path.lexists(probe.with_name(probe.name.upper()))
        finally:
            remove(probe)


def require_names_apart(folder: Path, names: Iterable[str]) -> None:
    """See that files of these names in `folder` are as many files.

    Raises:
        G2LError: the file system takes two of them for one; says which.
    """
    spellings: dict[str, str] = {}
    for name in names:
        other = spellings.setdefault(name.casefold(), name)
        if other != name and ignores_case(folder):
            raise G2LError(f"{folder} is on a file system that takes {other} and {name} for one name. Choose a place "
                           "on another one, or rename one of them")  # fmt: skip


def require_new_file(path: Path, force_hint: str) -> None:
    """Refuse to overwrite `path`, and prove that its folder can be written.

    Raises:
        G2LError: it exists (with `force_hint` as the way out), or its folder cannot be written.
    """
    if path.is_dir():
        raise G2LError(f"{path} is a folder; a file is written. Give --out a file's name in it")
    if os.path.lexists(path):
        raise G2LError(f"{path} exists and is not overwritten. {force_hint}")
    make_output_folder(path.parent)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for temporary files that is gone after the block, and after a signal that ends the process."""
    with interrupts.guard:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        key = interrupts.undo_at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        interrupts.settled(key)
