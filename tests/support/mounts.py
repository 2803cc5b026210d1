"""Real file systems for tests: mounted where the tests run as root and may, and taken away again."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest


@contextmanager
def mounted(*words: object, at: Path) -> Iterator[Path]:
    """`mount WORDS at`, a folder that is made; it is unmounted after the block."""
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *map(str, words), str(at)], check=True, capture_output=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True, capture_output=True)


@cache
def can_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted("-t", "tmpfs", "none", at=Path(folder) / "x"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


needs_mounts = pytest.mark.skipif(not can_mount(), reason="mounting is not allowed here")
