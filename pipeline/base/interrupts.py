"""End the command within seconds of Ctrl-C, SIGTERM or SIGHUP: remove half-written files, then exit.

An exception raised by a signal handler can strike at any line: between taking a lock and recording it, in a library's
clean-up, in a callback that swallows it. So the handlers raise none. Every file is complete or absent, and a killed run
can be continued; an interrupt is a kill that tidies up first. A separate thread waits for the signal, since the main
thread may spend minutes inside a library.

`guard` is held while a name on disk is created, renamed or removed, so that no thread creates one during the tidying.
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
"""Exit codes are the shell's: 128 plus the signal's number."""

GUARD_SECONDS = 3.0
"""How long to wait for a name that is being created. Our choice: file servers may be slow, users are impatient."""
TIDY_SECONDS = 8.0
"""How long tidying may take before the process exits anyway. Our choice: less than the 10 s of `docker stop`."""
INSIST_SECONDS = 2.0
"""A second signal after this time ends the process at once. An earlier one is a duplicate: the terminal and a launcher
may both send the signal."""

WORDS = "\nstopped; run the same command again to continue\n"

guard = threading.RLock()
_undoings: dict[tuple[str, object], Callable[[], object]] = {}
_installed: "_Handlers | None" = None


def undo_at_end(undo: Callable[[], object], path: object = None) -> object:
    """Register `undo` to run if a signal ends the process. Returns the key for `settled`; `path` is what it removes."""
    key = str(path), object()
    _undoings[key] = undo
    return key


def settled(key: object) -> None:
    """Unregister the undo of that key: the work is finished, or already undone."""
    _undoings.pop(key, None)  # type: ignore[call-overload]


def is_being_written(path: object) -> bool:
    """Whether this process is writing `path`."""
    return any(written == str(path) for written, _ in list(_undoings))


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` when the block ends in any way, a signal included."""
    key = undo_at_end(undo)
    try:
        yield
    finally:
        undo()
        settled(key)


class _Handlers:
    """The signal handlers, and the thread that waits for signals."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.receiver, self.sender = socket.socketpair()
        self.sender.setblocking(False)
        self.before = {number: signal.getsignal(number) for number in ENDING}
        # Signals that the parent had ignored (nohup, a shell's background job) stay ignored.
        self.handled = [number for number, old in self.before.items() if old not in (signal.SIG_IGN, None)]
        self.fd_before = signal.set_wakeup_fd(self.sender.fileno(), warn_on_full_buffer=False)
        for number in self.handled:
            signal.signal(number, self.note)
        self.thread = threading.Thread(target=self.wait, name="g2l-signals", daemon=True)
        self.thread.start()

    def note(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread once Python regains control: exits at once if the user insists."""
        now = time.monotonic()
        if self.first is None:
            self.first = now
        elif now - self.first > INSIST_SECONDS:
            os._exit(128 + number)

    def wait(self) -> None:
        """Wait for a signal, then end the process; return once the handlers are removed."""
        while numbers := self.receiver.recv(1):
            if numbers[0] in self.handled:
                end(numbers[0])

    def remove(self) -> None:
        """Restore the previous handlers and stop the thread."""
        signal.set_wakeup_fd(self.fd_before)
        for number in self.handled:
            signal.signal(number, self.before[number])
        self.sender.close()
        self.thread.join()
        self.receiver.close()

    def forget(self) -> None:
        """Restore the previous handlers in a forked child, which has no waiting thread and nothing to undo."""
        signal.set_wakeup_fd(-1)
        for number in self.handled:
            signal.signal(number, self.before[number])


def end(number: int) -> None:
    """Undo unfinished work, tell the user, and exit with the code of that signal."""
    code = 128 + number
    with contextlib.suppress(RuntimeError):  # no more threads allowed: tidy without a time limit
        threading.Thread(target=_end_later, args=(code,), daemon=True).start()
    guard.acquire(timeout=GUARD_SECONDS)
    for undo in 2 * list(reversed(_undoings.values())):  # twice: a thread that still writes may recreate a folder
        with contextlib.suppress(Exception):
            undo()
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, WORDS.encode())
    os._exit(code)


def _end_later(code: int) -> None:
    time.sleep(TIDY_SECONDS)
    os._exit(code)


def install() -> None:
    """Handle signals until the process ends. Does nothing outside the main thread, or if already installed."""
    global _installed
    if _installed is None and threading.current_thread() is threading.main_thread():
        _installed = _Handlers()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle signals while the block runs, for commands called from within another program."""
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
    """Block signals: one that reached the child before `_in_child` ran would be handled as the parent's."""
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
