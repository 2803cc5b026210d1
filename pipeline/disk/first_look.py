"""A first look at a file in a child process: the libraries of OpenSlide and HDF5 may end the process that reads a
damaged header.

Two damaged words of a TIFF header suffice: OpenSlide's memory allocator then aborts, or a division by zero ends the
process, and no slide is named (decision 0023). So each file is opened in a child first, and a small place of each level
is read there. A damaged attribute of an HDF5 file ends the process as well (SIGSEGV): there all that describes its
datasets is read. A child that dies, or that takes too long, fails this file by name and is replaced. Left out: damage
that ends the process only where a certain tile or chunk is read.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from pipeline.base.errors import SlideError
from pipeline.base.outside import UnsafeError

SECONDS = 60.0
"""For one look. Our choice: opening a slide on a slow network share takes some seconds."""
SECONDS_TO_END = 10.0
"""Between the end of a child's words and that of the child. Our choice."""
MAX_CHILDREN = 4
"""Looks at the same time. Our choice: a look is short beside what follows it."""
MAX_CHILD_BYTES = 8 << 30
"""Address space of a child, most of it never touched. Our choice: a tile that needs more is of no real slide."""
SLIDE, HDF5 = "pipeline.slides.reader", "pipeline.disk.hdf5_input"
"""Kinds of files: the modules whose `look_at` looks at one."""
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipeline.disk import first_look; "
    "first_look.serve_looks(sys.argv[2])"
)
"""The child. It finds modules where this process finds them, whatever lies in the working folder."""


class _Child:
    """A process that looks at one file of a kind after another."""

    def __init__(self, kind: str) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (what the library says when it ends the process)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent; the child ends with its standard input
        )
        self._answer(SECONDS)  # it is ready

    def look(self, path: Path) -> str:
        """What is wrong with the file; empty if nothing is that this process does not find for itself.

        Raises:
            _LostError: the child ended or was too slow.
        """
        self._words.seek(0)
        self._words.truncate()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: the answer says so
            self._process.stdin.write(json.dumps(os.fsdecode(path)).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(SECONDS)

    def _answer(self, seconds: float) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], seconds)
        if not ready:
            self.close()
            raise _LostError(f"looking at it took more than {seconds:g} s")
        line = stdout.readline()
        if not line.endswith(b"\n"):
            why = self._why_ended()
            self.close()
            raise _LostError(why)
        return str(json.loads(line))

    def _why_ended(self) -> str:
        """How the process ended, with the library's last words."""
        try:
            code = self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "the process that looks at it does not answer"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._words.seek(0)
        lines = [line for line in self._words.read().decode(errors="replace").splitlines() if line.strip()]
        return f"reading it ends the process ({how}{': ' + lines[-1][-200:] if lines else ''})"

    def close(self) -> None:
        """End the process, and let go of its files."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._words):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not written any more
                    stream.close()


class _LostError(Exception):
    """A child ended, or did not answer in time."""


class FirstLooks:
    """Looks at files of a kind, each content of a file once; safe to use from many threads."""

    def __init__(self, kind: str = SLIDE) -> None:
        self._kind = kind
        self._seats = threading.BoundedSemaphore(MAX_CHILDREN)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._seen: dict[tuple[str, int, int, int], str] = {}

    def trouble(self, path: Path) -> str:
        """Why a file cannot be opened and read without ending this process; empty if it can.

        Raises:
            OSError: no child can be started.
        """
        try:
            stat = os.stat(path)
        except OSError:
            return ""  # opening says why
        key = (os.fsdecode(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        trouble = self._seen.get(key)
        if trouble is None:
            with self._seats:
                trouble = self._look(path)
            self._seen[key] = trouble
        return trouble

    def _look(self, path: Path) -> str:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        try:
            if child is None:
                child = _Child(self._kind)
        except (OSError, _LostError) as error:
            raise OSError(f"no process can be started to look at it ({error})") from None
        try:
            trouble = child.look(path)
        except _LostError as error:
            return str(error)
        except BaseException:  # Ctrl-C within: the child may still be at work
            child.close()
            raise
        with self._lock:
            self._idle.append(child)
        return trouble

    def close(self) -> None:
        """End the children."""
        with self._lock:
            children, self._idle = self._idle, []
        for child in children:
            child.close()


_looks: dict[tuple[str, int], FirstLooks] = {}
_looks_lock = threading.Lock()


def _trouble(path: Path, kind: str) -> str:
    """As `FirstLooks.trouble`, with children that all of this process share."""
    key = kind, os.getpid()  # a forked process shares no children with its parent
    with _looks_lock:
        if key not in _looks:
            _looks[key] = FirstLooks(kind)
            atexit.register(_looks[key].close)
        looks = _looks[key]
    return looks.trouble(path)


def require_sound(path: Path) -> None:
    """See that a slide can be opened and read without ending this process.

    Raises:
        SlideError: it cannot, or no child process can be started.
    """
    try:
        trouble = _trouble(path, SLIDE)
    except OSError as error:
        raise SlideError(f"{path}: {error}") from None
    if trouble:
        raise SlideError(f"{path}: {trouble}. The file is damaged, and left out")


def require_sound_hdf5(path: Path) -> None:
    """See that an HDF5 file can be opened without ending this process; for use within `outside.reading`.

    Raises:
        UnsafeError: it cannot.
        OSError: no child process can be started.
    """
    if trouble := _trouble(path, HDF5):
        raise UnsafeError(trouble)


def serve_looks(kind: str) -> None:
    """The child: for each path, a line of JSON on standard input, a line on standard output: what is wrong with it."""
    look_at = importlib.import_module(kind).look_at
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MAX_CHILD_BYTES if hard == resource.RLIM_INFINITY else min(MAX_CHILD_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers: IO[bytes] = sys.stdout.buffer

    def answer(words: str) -> None:
        answers.write(json.dumps(words).encode() + b"\n")
        answers.flush()

    answer("")
    for line in sys.stdin.buffer:
        answer(look_at(Path(json.loads(line))))
