"""Slides that are staged in the tests: a slow source, a look at what lies in the folder, a process of its own, and
bounds for what may wait for ever.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from pipeline.disk.locks import LOCK_SUFFIX
from pipeline.slides.staging import copies
from pipeline.slides.staging.room import NOTED
from support.commands import child_environment

T = TypeVar("T")
BLOCK_BYTES = 4096


def kill_soon_after_a_copy(start: Callable[[], Any], stage: Path, rng: random.Random) -> bool:
    """Start a command, and kill it soon after its first copy began in the folder `stage`; whether it was at work."""
    left = set(staged_files(stage))
    process = start()
    while process.poll() is None and not set(staged_files(stage)) - left:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.1))
    process.kill()
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0)
    return bool(process.returncode)


@contextlib.contextmanager
def slow_source(seconds: float, block_bytes: int = BLOCK_BYTES) -> Iterator[None]:
    """Reading slides to copy them takes `seconds` a block of `block_bytes`, without using the processor."""
    read = copies._read_source

    def read_slowly(source: int, num_bytes: int) -> bytes:
        time.sleep(seconds)
        return read(source, num_bytes)

    with mock.patch.object(copies, "_read_source", read_slowly), mock.patch.object(copies, "BLOCK_BYTES", block_bytes):
        yield


def copies_of(name: str, folder: Path) -> list[Path]:
    """Where copies of a slide lie below `folder`. `Path.rglob` fails where a process at work removes a folder."""
    return [Path(path) for path in _look_below(folder) if os.path.basename(path) == name]


def staged_files(folder: Path) -> dict[str, int]:
    """Bytes of the staged files in `folder` at one moment: what two looks in turn agree on, for no name comes twice."""
    first: dict[str, int] = {}
    while (second := _look_below(folder)) != first:
        first = second
    return second


def _look_below(folder: Path) -> dict[str, int]:
    sizes = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):
                sizes[path] = os.lstat(path).st_size
    beside = (LOCK_SUFFIX, NOTED)
    return {path: size for path, size in sizes.items() if not any(part in os.path.basename(path) for part in beside)}


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[list[int]]:
    """Look again and again how many bytes lie staged in `folder`; gives the list of what was seen, one more at the
    end.
    """
    seen: list[int] = []
    end = threading.Event()

    def watch() -> None:
        while not end.is_set():
            seen.append(sum(staged_files(folder).values()))
            time.sleep(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()
        seen.append(sum(staged_files(folder).values()))


def start_staging(
    folder: Path, most_bytes: int, slides: list[Path], *, seconds_a_block: float, seconds_a_slide: float = 0.0
) -> subprocess.Popen[str]:
    """A process that stages slides and reads each in turn; it prints the name of each that it has read, and whether
    from a copy. It handles signals as the command does.
    """
    program = f"""
        import hashlib, time
        from pathlib import Path
        from pipeline.base import interrupts
        from pipeline.config.staging import StageFolder
        from pipeline.slides.staging.ahead import Staging
        from pipeline.slides.staging.copies import ExpectedSlide
        from support.staging import slow_source
        interrupts.install()
        slides = [Path(name) for name in {[str(path) for path in slides]!r}]
        stage = StageFolder(Path({str(folder)!r}), {most_bytes})
        with slow_source({seconds_a_block}), Staging(stage, tell=lambda note: None) as staging:
            staging.expect(map(ExpectedSlide, slides))
            for path in slides:
                with staging.use(path, lambda path: None) as copy:
                    time.sleep({seconds_a_slide})
                    digest = hashlib.sha256((copy or path).read_bytes()).hexdigest()
                print(path.name, digest, copy is not None, flush=True)
    """
    root = Path(__file__).parents[2]
    environment = child_environment() | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ends_within(seconds: float, call: Callable[[], T]) -> T:
    """What a call returns; fails if it has not ended in time, instead of waiting for ever."""
    done = Future[T]()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001  (the caller's)
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result(seconds)


def held_within(seconds: float, true: Callable[[], object]) -> bool:
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(true())
