"""Artefacts on disk are complete or absent: written aside, synced, renamed; and one writer at a time.

`write_aside` is the only way this project makes a file that another run may read. What it leaves out: atomic folders;
a folder is complete when its last file (a ledger, a config) is there.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import BusyError, G2LError

ASIDE_SUFFIX = ".g2l-part"
"""Ending of a file that is still being written; `remove_asides` deletes what a killed run left."""

LOCK_SUFFIX = ".g2l-lock"
"""Ending of the file that says who works on an output folder; it lies beside the folder."""

HASH_BLOCK_BYTES = 1 << 20


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def write_aside(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` when the block ends well, and vanishes when it does not.

    The bytes are synced before the rename and the folder after it. An existing `path` is replaced in one step.

    Raises:
        OSError: the disk is full, the folder is not writable, ...; `path` is then as it was.
    """
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    try:
        with open(aside, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def written_by_library(path: Path) -> Iterator[Path]:
    """A place aside for a library that takes a path; it is synced and becomes `path` when the block ends well.

    The file has the mode that the umask gives to any new file, whatever the library gave it (safetensors: only its
    owner may read).

    Raises:
        OSError: as `write_aside`.
    """
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    try:
        aside.unlink(missing_ok=True)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        mode = os.fstat(fd).st_mode & 0o777
        os.close(fd)
        yield aside
        os.chmod(aside, mode)
        with open(aside, "rb") as f:
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, complete or absent."""
    with write_aside(path) as f:
        f.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, complete or absent."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, complete or absent."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def remove_asides(folder: Path) -> int:
    """Delete what killed runs left half written anywhere below `folder`, files and folders; returns how many."""
    asides = list(folder.rglob("*" + ASIDE_SUFFIX))
    for aside in asides:
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)
    return len(asides)


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
    probe = folder / (".probe" + ASIDE_SUFFIX)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise G2LError(
            f"cannot write to {folder}: {error.strerror}. Choose another --out or mend its rights."
        ) from error


def require_new_file(path: Path, force_hint: str) -> None:
    """Refuse to overwrite `path`, and prove that its folder can be written.

    Raises:
        G2LError: it exists (with `force_hint` as the way out), or its folder cannot be written.
    """
    if path.exists():
        raise G2LError(f"{path} exists and is not overwritten. {force_hint}")
    make_output_folder(path.parent)


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` against any other G2L process while the block runs; a killed holder frees it at once.

    The folder need not exist yet: the lock is a file beside it.

    Raises:
        BusyError: another process holds it; the message names that process, its host and since when.
        G2LError: the place cannot be written.
    """
    make_output_folder(folder.parent)
    path = folder.with_name(folder.name + LOCK_SUFFIX)
    while True:
        f = open(path, "a+")  # noqa: SIM115  (lives as long as the lock)
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            holder = f.read().strip() or "another process"
            f.close()
            raise BusyError(f"{folder} is in use by {holder}. Wait for it to end, or stop it.") from None
        # A holder removes the file before it lets go: make sure that ours is the one that has the name.
        try:
            same = os.fstat(f.fileno()).st_ino == os.stat(path).st_ino
        except FileNotFoundError:
            same = False
        if same:
            break
        f.close()
    try:
        f.truncate(0)
        f.write(f"{what} (process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')})\n")
        f.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        f.close()
