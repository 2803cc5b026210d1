"""Ctrl-C, SIGTERM and SIGHUP end the command within seconds, whatever it does: what is half written goes, then it
exits.

An exception raised out of a signal can hit any line: between taking a lock and noting that it is held, within a
library's own clean-up, in a callback that swallows it. So none is raised. Every file is complete or absent already, and
a killed run continues; an interrupted one is a killed one that tidies up first. A thread of its own waits for the
signal, for the main thread may be in a library for minutes.

`guard` is held while a name on disk is made, changes hands or goes, so that no thread makes one behind the tidying.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Exit codes are the shell's: 128 and the signal's number."""

GUARD_SECONDS = 3.0
"""How long the end waits for a name that is just being made. Our choice: a file server may be slow, a user not."""
TIDY_SECONDS = 8.0
"""How long tidying may take before the process ends without. Our choice: less than the 10 s of `docker stop`."""
INSIST_SECONDS = 2.0
"""A signal that comes so long after the first ends the process at once; one before is the same, from the terminal and
from a launcher."""

WORDS = "\nstopped; run the same command again to continue\n"

guard = threading.RLock()
_undoings: dict[tuple[str, object], Callable[[], object]] = {}
_installed: "_Handlers | None" = None


def undo_at_end(undo: Callable[[], object], path: object = None) -> object:
    """Have `undo` called if a signal ends the process; returns the key for `settled`. `path` is what it removes."""
    key = str(path), object()
    _undoings[key] = undo
    return key


def settled(key: object) -> None:
    """Forget what `undo_at_end` was given: there is nothing to undo any more."""
    _undoings.pop(key, None)  # type: ignore[call-overload]


def is_being_written(path: object) -> bool:
    """Whether this process is writing `path`."""
    return any(written == str(path) for written, _ in list(_undoings))


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Have `undo` called when the block ends, however that is; by a signal as well."""
    key = undo_at_end(undo)
    try:
        yield
    finally:
        undo()
        settled(key)


class _Handlers:
    """Signals that are handled, and the thread that waits for them."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.receiver, self.sender = socket.socketpair()
        self.sender.setblocking(False)
        self.before = {number: signal.getsignal(number) for number in ENDING}
        # What the parent has this process ignore (nohup; a shell's job in the background) stays ignored.
        self.handled = [number for number, old in self.before.items() if old not in (signal.SIG_IGN, None)]
        self.fd_before = signal.set_wakeup_fd(self.sender.fileno(), warn_on_full_buffer=False)
        for number in self.handled:
            signal.signal(number, self.note)
        self.thread = threading.Thread(target=self.wait, name="g2l-signals", daemon=True)
        self.thread.start()

    def note(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, as soon as it can: only what the waiting thread cannot do."""
        now = time.monotonic()
        if self.first is None:
            self.first = now
        elif now - self.first > INSIST_SECONDS:
            os._exit(128 + number)

    def wait(self) -> None:
        """Wait for a signal and end the process; return when the handlers are removed."""
        while numbers := self.receiver.recv(1):
            if numbers[0] in self.handled:
                end(numbers[0])

    def remove(self) -> None:
        """Handle signals as before."""
        signal.set_wakeup_fd(self.fd_before)
        for number in self.handled:
            signal.signal(number, self.before[number])
        self.sender.close()
        self.thread.join()
        self.receiver.close()

    def forget(self) -> None:
        """In a forked child, which has no thread to wait and no part in what its parent undoes."""
        signal.set_wakeup_fd(-1)
        for number in self.handled:
            signal.signal(number, self.before[number])


def end(number: int) -> None:
    """Undo what is half done, say that it was stopped, and exit as a signal of that number ends a process."""
    code = 128 + number
    with contextlib.suppress(RuntimeError):  # no more threads are allowed: then without a limit
        threading.Thread(target=_end_later, args=(code,), daemon=True).start()
    guard.acquire(timeout=GUARD_SECONDS)
    for undo in 2 * list(reversed(_undoings.values())):  # a thread that still writes may have made a folder anew
        with contextlib.suppress(Exception):
            undo()
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, WORDS.encode())
    os._exit(code)


def _end_later(code: int) -> None:
    time.sleep(TIDY_SECONDS)
    os._exit(code)


def install() -> None:
    """Handle signals until the process ends. In the main thread only; elsewhere, and a second time, nothing is done."""
    global _installed
    if _installed is None and threading.current_thread() is threading.main_thread():
        _installed = _Handlers()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle signals while the block runs, for commands that are called within another program."""
    global _installed
    if _installed is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    install()
    try:
        yield
    finally:
        handlers: Any = _installed
        if handlers is not None:
            handlers.remove()
        _installed = None


_mask: set[int] = set()


def _before_fork() -> None:
    """Let signals wait: one that reached a child before it is a process of its own would be taken for the parent's."""
    if _installed is not None:
        _mask.clear()
        _mask.update(signal.pthread_sigmask(signal.SIG_BLOCK, ENDING))


def _in_parent() -> None:
    if _installed is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


def _in_child() -> None:
    global _installed, guard
    guard = threading.RLock()
    _undoings.clear()
    if _installed is not None:
        _installed.forget()
        _installed = None
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
