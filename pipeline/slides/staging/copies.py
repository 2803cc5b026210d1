"""Copy the files of a slide, and check the copy before anything reads it.

A copy counts only if no file changed in size or time while it was copied, if the bytes on the local disk, read back,
have the SHA-256 of those that came from the source, and if it is the slide that plan and manifest describe. Any other
copy is not used: the slide is then read in place, where the checks that always run say what is wrong with it. So a
staged run fails no slide that a plain run reads.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.disk.files import sync_file
from pipeline.slides.identity import SlideIdentity, parts_digest, series_digest
from pipeline.slides.staging.slide_files import NotStagedError, SlidePart

BLOCK_BYTES = 1 << 22
"""Bytes copied at once. Our choice: file servers like large requests, and Ctrl-C waits for one of them."""


@dataclass(frozen=True)
class ExpectedSlide:
    """A slide that will be read.

    Attributes:
        path: its named file.
        uses: how often it will be used; the copy is removed after the last time.
        identity: what the plan knows of it; `None` if nothing.
        sha256: hex digest of the named file, if the manifest gives it and it is to be compared.
    """

    path: Path
    uses: int = 1
    identity: SlideIdentity | None = None
    sha256: str | None = None


def copy_slide(parts: Sequence[SlidePart], into: Path, expected: ExpectedSlide, go_on: Callable[[], object]) -> Path:
    """Fill the files of the folder `into`, which `StageRoom.take` has made, from those of a slide; returns the copy of
    the named file.

    Args:
        go_on: is called before each block; may raise to stop.

    Raises:
        NotStagedError: a source cannot be read, or the copy differs.
        OSError: the copy cannot be written.
    """
    digests = [_copy_file(part, into / part.name, go_on) for part in parts]
    for part, digest in zip(parts, digests, strict=True):
        if read_back(into / part.name, go_on) != digest:
            raise NotStagedError("the copy differs from what was read; is the local disk sound?")
    copy = into / parts[0].name
    if expected.sha256 is not None and digests[0] != expected.sha256.lower():
        raise NotStagedError("the copy has not the manifest's sha256")
    if expected.identity is not None and not _is_identical(copy, expected.identity):
        raise NotStagedError("the copy is not the slide that was planned")
    return copy


def _copy_file(part: SlidePart, target: Path, go_on: Callable[[], object]) -> str:
    """Copy one file over `target`, which has its size; returns the hex SHA-256 of what was read.

    Raises:
        NotStagedError: the source cannot be read, or it changes meanwhile.
        OSError: the copy cannot be written.
    """
    digest, left = hashlib.sha256(), part.num_bytes
    with open(target, "r+b", buffering=0) as out:
        try:
            source = os.open(part.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            raise NotStagedError("") from None
        try:
            before = os.fstat(source)
            while left:
                go_on()
                block = _read_source(source, min(left, BLOCK_BYTES))
                digest.update(block)
                written = 0
                while written < len(block):
                    written += out.write(block[written:])
                left -= len(block)
            after = os.fstat(source)
        finally:
            os.close(source)
        if (after.st_size, after.st_mtime_ns) != (part.num_bytes, before.st_mtime_ns):
            raise NotStagedError("it changed while it was copied")
        sync_file(out.fileno())
    return digest.hexdigest()


def _read_source(source: int, num_bytes: int) -> bytes:
    """The next bytes of a slide's file.

    Raises:
        NotStagedError: there are none, or they cannot be read; then the reader meets and names that, in place.
    """
    try:
        block = os.read(source, num_bytes)
    except OSError:
        raise NotStagedError("") from None
    if not block:
        raise NotStagedError("it changed while it was copied")
    return block


def read_back(path: Path, go_on: Callable[[], object]) -> str:
    """Hex SHA-256 of a file as it is on the disk, as far as the system can be told to forget what it was given."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := f.read(BLOCK_BYTES):
            go_on()
            digest.update(block)
    return digest.hexdigest()


def _is_identical(copy: Path, planned: SlideIdentity) -> bool:
    """Whether a copy has the bytes of the planned slide, as far as the plan knows them."""
    sha256, num_bytes = parts_digest(copy)
    facts = [(planned.sha256, sha256), (planned.file_bytes, num_bytes)]
    if planned.series_sha256 is not None:
        facts.append((planned.series_sha256, series_digest(copy)))
    return all(known is None or known == actual for known, actual in facts)
