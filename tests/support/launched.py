"""Processes that a launcher starts: the store that they share, kept in memory; `torchrun` here; and kills."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base.launched.group import LaunchedGroup
from support.commands import G2L, child_environment

TORCHRUN = Path(sys.executable).with_name("torchrun")


class MemoryStore:
    """As `torch.distributed.Store`, for threads of one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def add(self, key: str, amount: int, /) -> int:
        with self.lock:
            total = int(self.values.get(key, b"0")) + amount
            self.values[key] = str(total).encode()
            return total

    def set(self, key: str, value: str, /) -> None:
        with self.lock:
            self.values[key] = value.encode()

    def get(self, key: str, /) -> bytes:
        with self.lock:
            return self.values[key]

    def check(self, keys: list[str], /) -> bool:
        with self.lock:
            return all(key in self.values for key in keys)

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        with self.lock:
            if key not in self.values and expected:
                return expected.encode()
            if self.values.get(key, b"").decode() == expected:
                self.values[key] = desired.encode()
            return self.values[key]

    def delete_key(self, key: str, /) -> bool:
        with self.lock:
            return self.values.pop(key, None) is not None


@contextmanager
def beating_in_a_thread(leader: LaunchedGroup, *done: str) -> Iterator[None]:
    """A leader that lives, and does nothing else; it ends once the store has the keys `done`."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.01):
            leader._beat()
            if done and leader.store.check(list(done)):
                leader.store.set(f"over/{leader.session}", "done")

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start_torchrun(
    *words: object, processes: int = 2, launcher: Iterable[object] = ("--standalone",), program: Path = G2L
) -> subprocess.Popen[str]:
    """Start a program, the command `g2l`, in several processes, as docs/scale.md writes it."""
    command = [TORCHRUN, *launcher, "--nproc-per-node", processes, "--no-python", program, *words]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )


def ended(process: subprocess.Popen[str], timeout: float = 240) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process that comes to its end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends its workers
        out, err = process.communicate(timeout=60)
        raise AssertionError(f"no end after {timeout} s:\n{out}\n{err}") from None
    return process.returncode, out, err


def worker(launcher: subprocess.Popen[str], rank: int | None) -> int:
    """The process of a launcher that has this rank; any one for `None`."""
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # the launcher's own, which have ended
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if any(each == b"RANK=%d" % rank if rank is not None else each.startswith(b"RANK=") for each in variables):
                return int(child)
    raise AssertionError(f"no process of rank {rank}")


def kill_worker(
    launcher: subprocess.Popen[str], rank: int | None, ready: Callable[[], bool], how: signal.Signals = signal.SIGKILL
) -> int:
    """Kill the process of this rank once the launched command is `ready`; returns its number."""
    until = time.monotonic() + 120
    while not ready():
        assert launcher.poll() is None, ended(launcher)
        assert time.monotonic() < until
        time.sleep(0.005)
    number = worker(launcher, rank)
    os.kill(number, how)
    return number
