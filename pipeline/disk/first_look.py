"""Open each slide and HDF5 file in a child process first: a damaged header may crash OpenSlide or HDF5, and the process
with it.

Two damaged words of a TIFF header suffice to make OpenSlide abort in its allocator or divide by zero, and no error
names the slide (decision 0023). So a child opens each slide and reads a small region of each level. A damaged attribute
of an HDF5 file crashes the process as well (SIGSEGV); there the child reads all metadata. If a child dies or takes too
long, its file fails by name and the child is replaced; a child that somebody kills says nothing of the file, and a new
one looks again. Left out: damage that crashes only when a certain tile or chunk
is read; for slides, see `at_hand`.
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

from pipeline.base.errors import DONE_IS_KEPT, LimitError, SlideError, limit_of
from pipeline.base.outside import UnsafeError, format_size
from pipeline.disk.objects.places import ObjectPath

SECONDS = 60.0
"""Time limit for one file. Our choice: opening a slide on a slow network share takes some seconds."""
SECONDS_PER_MIB = 5.0
"""More time for an HDF5 file, whose objects are all visited: 3 s of CPU for 1,000 slides of a plan. Our choice."""
SECONDS_TO_END = 10.0
"""Time limit for a child to exit after it closed its output. Our choice."""
MAX_CHILDREN = 4
"""Children at the same time. Our choice: a first look is short compared with what follows it."""
MAX_CHILD_BYTES = 8 << 30
"""Address space of a child, most of it never used. Our choice: no tile of a real slide needs more."""
FROM_OUTSIDE = frozenset(
    {
        signal.SIGKILL,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGXCPU,
    }
)
"""Signals that a user, a scheduler or the system sends to a child: they say nothing of the file."""
SLIDE, HDF5 = "pipeline.disk.first_look", "pipeline.disk.hdf5_input"
"""Kinds of files, each the module whose `look_at` opens one; behind a space what else it is given. A slide's is here:
its reader takes three times as long to import, in each child.
"""
LOOK_PX = 64
"""Side of the regions of each level that a first look at a slide reads: one tile, or the corners of four."""


def child_command(module: str, call: str, *arguments: str) -> list[str]:
    """A command that makes a `call` of a module of this folder: a Python process, as in `module.call`.

    It imports from this process's module path and ignores the working folder; `arguments` are its `sys.argv[2:]`.
    """
    program = (
        f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipeline.disk import {module}; {module}.{call}"
    )
    return [sys.executable, "-P", "-c", program, json.dumps(sys.path), *arguments]


def child_environment() -> dict[str, str]:
    """This process's environment, for a child that computes in one thread."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def seconds_for(path: Path, kind: str) -> float:
    """Time limit for a look at a file, seconds."""
    if kind == SLIDE:
        return SECONDS
    try:
        return SECONDS + SECONDS_PER_MIB * path.stat().st_size / (1 << 20)
    except OSError:  # the look itself says so
        return SECONDS


def how_ended(code: int, words: bytes) -> str:
    """What is wrong with a file that ended a child process: the exit code, and the library's last words."""
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    lines = [line for line in words.decode(errors="replace").splitlines() if line.strip()]
    return f"reading it crashes the process ({how}{': ' + lines[-1][-200:] if lines else ''})"


def nameless_file() -> IO[bytes]:
    """An empty file that only this process and its children have: in memory where no folder for temporary files can be
    written, since what is written is little.

    Raises:
        FileNotFoundError: there is no such folder, and the system has no files in memory.
    """
    try:
        return tempfile.TemporaryFile()
    except FileNotFoundError:
        if not hasattr(os, "memfd_create"):
            raise
        return os.fdopen(os.memfd_create("g2l"), "w+b")


def is_told_within(stream: IO[bytes], seconds: float) -> bool:
    """Whether a pipe has something to read, or ends, within this time. Unlike `select.select`, of any descriptor, also
    where a thousand files are open.
    """
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


class _Child:
    """A process that opens files of one kind, one after another."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._words = nameless_file()  # the library's last words before a crash
        try:
            self._process = subprocess.Popen(
                child_command("first_look", "serve_looks(sys.argv[2])", kind),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                env=child_environment(),
                start_new_session=True,  # Ctrl-C is for the parent; the child ends with its standard input
            )
        except OSError:
            self._words.close()
            raise
        self._answer(SECONDS)  # wait until it is ready

    def look(self, path: Path) -> str:
        """What is wrong with the file; empty for errors that this process can safely meet itself.

        Raises:
            _LostError: the child ended or was too slow.
        """
        self._words.seek(0)
        self._words.truncate()
        if self._process.poll() is not None:
            self.close()
            raise _LostError(how_ended(self._process.returncode, b""), by_file=False)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the child has ended; `_answer` says so
            self._process.stdin.write(json.dumps(os.fsdecode(path)).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(seconds_for(path, self._kind))

    def _answer(self, seconds: float) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        if not is_told_within(stdout, seconds):
            self.close()
            raise _LostError(f"opening it took more than {seconds:g} s")
        line = stdout.readline()
        if not line.endswith(b"\n"):
            why = self._why_ended()
            self.close()
            raise _LostError(why, by_file=-self._process.returncode not in FROM_OUTSIDE)
        return str(json.loads(line))

    def _why_ended(self) -> str:
        """How the child ended, with the library's last words."""
        try:
            code = self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "the process that opens it does not answer"
        self._words.seek(0)
        return how_ended(code, self._words.read())

    def close(self) -> None:
        """Kill the process and close its files."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._words):
            if stream is not None:
                with contextlib.suppress(OSError):  # unwritten input
                    stream.close()


class _LostError(Exception):
    """A child ended, or did not answer in time; `by_file` unless it ended before it was asked, or somebody ended it."""

    def __init__(self, why: str, by_file: bool = True) -> None:
        super().__init__(why)
        self.by_file = by_file


def _state_of(path: Path) -> tuple[str, int, int, int]:
    """What tells a file from itself after a change; of an object in a bucket, its address alone."""
    if isinstance(path, ObjectPath):
        return str(path), 0, 0, 0
    status = os.stat(path)
    return os.fsdecode(path), status.st_ino, status.st_size, status.st_mtime_ns


class FirstLooks:
    """Opens files of one kind in children, each again only if it has changed; safe to use from many threads."""

    def __init__(self, kind: str = SLIDE) -> None:
        self._kind = kind
        self._seats = threading.BoundedSemaphore(MAX_CHILDREN)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._seen: dict[tuple[str, int, int, int], str] = {}

    def trouble(self, path: Path) -> str:
        """Why a file cannot be opened and read without crashing this process; empty if it can.

        Raises:
            LimitError: no child can be started.
        """
        try:
            key = _state_of(path)
        except OSError:
            return ""  # opening it will say why
        trouble = self._seen.get(key)
        if trouble is None:
            with self._seats:
                trouble, is_certain = self._look(path)
            if is_certain:
                self._seen[key] = trouble
        return trouble

    def refused(self, path: Path) -> str:
        """What is known to be wrong with a file, without a look at it."""
        try:
            return self._seen.get(_state_of(path), "")
        except OSError:
            return ""

    def refuse(self, path: Path, trouble: str) -> None:
        """Say from now on that this is wrong with a file, until it changes.

        Raises:
            OSError: the file is gone.
        """
        self._seen[_state_of(path)] = trouble

    def _look(self, path: Path) -> tuple[str, bool]:
        """What is wrong with a file, and whether that is certain: it is not where two children were killed at it."""
        trouble = ""
        for may_be_idle in (True, False):
            child = self._child(may_be_idle)
            try:
                trouble = child.look(path)
            except _LostError as error:
                if error.by_file:
                    return str(error), True
                trouble = str(error)
                continue
            except BaseException:  # Ctrl-C: the child may still be at work
                child.close()
                raise
            with self._lock:
                self._idle.append(child)
            return trouble, True
        return trouble, False

    def _child(self, may_be_idle: bool) -> _Child:
        """An idle child, or a new one.

        Raises:
            LimitError: none can be started.
        """
        with self._lock:
            if may_be_idle and self._idle:
                return self._idle.pop()
        try:
            return _Child(self._kind)
        except (OSError, _LostError) as error:
            why = limit_of(error) or f"{error}. Is there enough memory? See also ulimit -v. {DONE_IS_KEPT}"
            raise LimitError(f"no process can be started to open files: {why}") from None

    def close(self) -> None:
        """Kill the children."""
        with self._lock:
            children, self._idle = self._idle, []
        for child in children:
            child.close()


_looks: dict[tuple[str, int], FirstLooks] = {}
_looks_lock = threading.Lock()


def _shared(kind: str) -> FirstLooks:
    """The looks at files of a kind, with children shared by the whole process."""
    key = kind, os.getpid()  # a forked process shares no children with its parent
    with _looks_lock:
        if key not in _looks:
            _looks[key] = FirstLooks(kind)
            atexit.register(_looks[key].close)
        return _looks[key]


def require_sound_slide(path: Path, copy: Path | None = None) -> None:
    """Check that a slide can be opened and read without crashing this process; a look at its `copy` is one at it.

    Raises:
        SlideError: it cannot.
        LimitError: no child process can be started.
    """
    looks = _shared(SLIDE)
    trouble = looks.trouble(path) if copy is None else looks.refused(path) or looks.trouble(copy)
    if trouble:
        trouble = trouble.replace(str(copy or path), str(path))
        raise SlideError(f"{path}: {trouble}. The file is damaged and left out")


def refuse_slide(path: Path, trouble: str) -> None:
    """Let `require_sound_slide` refuse a slide from now on, for this reason, unless its file changes."""
    with contextlib.suppress(OSError):  # gone since
        _shared(SLIDE).refuse(path, trouble)


def require_sound_hdf5(path: Path, only: str | None = None) -> None:
    """Check that an HDF5 file can be opened without crashing this process, and its metadata read: all of them, or of
    the attributes of what lies in it the one called `only`. For use inside `outside.reading`.

    Raises:
        UnsafeError: it cannot.
        LimitError: no child process can be started.
    """
    if trouble := _shared(HDF5 if only is None else f"{HDF5} {only}").trouble(path):
        raise UnsafeError(trouble)


def serve_looks(kind: str) -> None:
    """Run in the child: read paths from standard input and answer what is wrong with each, one line of JSON both
    ways.
    """
    module, *more = kind.split(" ", 1)
    look_at = importlib.import_module(module).look_at
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
        answer(look_at(Path(json.loads(line)), *more))


def look_at(path: Path) -> str:
    """Open a slide, and read its properties and a small region of each level, in the child.

    Returns what is wrong; empty for errors that do not crash the process, since the reader will meet and name them.
    """
    import openslide  # only the child needs it

    try:
        with openslide.OpenSlide(path) as handle:
            for name in handle.properties:
                with contextlib.suppress(KeyError):  # a name that is not UTF-8 does not find its own value
                    handle.properties[name]
            for level, (width, height) in enumerate(handle.level_dimensions):
                ratio = handle.level_downsamples[level]
                middle = (int(width // 2 * ratio), int(height // 2 * ratio))
                for location in ((0, 0), middle):
                    handle.read_region(location, level, (min(width, LOOK_PX), min(height, LOOK_PX)))
    except MemoryError:
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft in (resource.RLIM_INFINITY, MAX_CHILD_BYTES):
            return "reading it takes more memory than any slide needs"
        return f"reading it takes more than the {format_size(soft)} that a process may have (ulimit -v)"
    except Exception:  # noqa: BLE001  (whatever it is, the reader meets and names it)
        return ""
    return ""
