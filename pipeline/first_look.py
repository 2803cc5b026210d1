"""A first look at a slide in a child process: OpenSlide's library may end the process that reads a damaged header.

Two damaged words of a TIFF header suffice: OpenSlide's memory allocator then aborts, or a division by zero ends the
process, and no slide is named (decision 0023). So each file is opened in a child first, and a small place of each level
is read there. A child that dies, or that takes too long, fails this slide by name and is replaced. Left out: damage
that ends the process only where a certain tile is read.
"""

import atexit
import contextlib
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

from pipeline.errors import SlideError

SECONDS = 60.0
"""For one look. Our choice: opening a slide on a slow network share takes some seconds."""
SECONDS_TO_END = 10.0
"""Between the end of a child's words and that of the child. Our choice."""
MAX_CHILDREN = 4
"""Looks at the same time. Our choice: a look is short beside what follows it."""
MAX_CHILD_BYTES = 8 << 30
"""Address space of a child, most of it never touched. Our choice: a tile that needs more is of no real slide."""
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipeline import first_look; first_look.serve_looks()"
)
"""The child. It finds modules where this process finds them, whatever lies in the working folder."""


class _Child:
    """A process that looks at one slide after another."""

    def __init__(self) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (what the library says when it ends the process)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent; the child ends with its standard input
        )
        self._answer(SECONDS)  # it is ready

    def look(self, path: Path) -> str:
        """What is wrong with the slide; empty if nothing is that this process does not find for itself.

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
    """Looks at files, each content of a file once; safe to use from many threads."""

    def __init__(self) -> None:
        self._seats = threading.BoundedSemaphore(MAX_CHILDREN)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._seen: dict[tuple[str, int, int, int], str] = {}

    def require_sound(self, path: Path) -> None:
        """See that a slide can be opened and read without ending this process.

        Raises:
            SlideError: it cannot.
        """
        try:
            stat = os.stat(path)
        except OSError:
            return  # opening says why
        key = (os.fsdecode(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        trouble = self._seen.get(key)
        if trouble is None:
            with self._seats:
                trouble = self._look(path)
            self._seen[key] = trouble
        if trouble:
            raise SlideError(f"{path}: {trouble}. The file is damaged, and left out")

    def _look(self, path: Path) -> str:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        try:
            if child is None:
                child = _Child()
        except (OSError, _LostError) as error:
            raise SlideError(f"{path}: no process can be started to look at the slide ({error})") from None
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


_looks: FirstLooks | None = None
_looks_of: int = 0
_looks_lock = threading.Lock()


def require_sound(path: Path) -> None:
    """As `FirstLooks.require_sound`, with children that all of this process share.

    Raises:
        SlideError: the slide cannot be read without ending the process.
    """
    global _looks, _looks_of
    with _looks_lock:
        if _looks is None or _looks_of != os.getpid():  # a forked process shares no children with its parent
            _looks, _looks_of = FirstLooks(), os.getpid()
            atexit.register(_looks.close)
        looks = _looks
    looks.require_sound(path)


def serve_looks() -> None:
    """The child: for each path, a line of JSON on standard input, a line on standard output: what is wrong with it."""
    from pipeline.slides import look_at

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
