"""Terminal output: progress bars, notes and tables.

Bars and notes go to standard error, results to standard output. If standard error is not a terminal, a bar prints one
line a minute.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipeline.base.outside import printable
from pipeline.base.units import format_seconds

QUIET_SECONDS = 60.0
"""Seconds between progress lines when there is no terminal. Our choice."""


Tell = Callable[[str], None]
"""Tells the user a note or a warning that comes up while parts read; stages give `say`."""


_listener: Tell | None = None


def say(text: str) -> None:
    """Tell the user a note; inside `said_to` the listener instead."""
    (_listener or show_note)(text)


def show_note(text: str) -> None:
    """Print a note on standard error without breaking a running bar. Control characters, as in file names, are
    escaped.
    """
    tqdm.write(printable(text), file=sys.stderr)


@contextmanager
def said_to(listener: Tell) -> Iterator[None]:
    """Inside the block, what is said goes to `listener`: of several processes, one speaks for all."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


_shows_bars = True


@contextmanager
def without_bars() -> Iterator[None]:
    """Progress bars that are made inside the block are silent."""
    global _shows_bars
    before, _shows_bars = _shows_bars, False
    try:
        yield
    finally:
        _shows_bars = before


class Progress:
    """A progress bar with rate and time left. `note` appends figures such as failures or loss; a silent bar shows
    nothing.
    """

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0, silent: bool = False) -> None:
        silent = silent or not _shows_bars
        self.what, self.total, self.unit = what, total, unit
        self._terminal = sys.stderr.isatty() and not silent
        self._silent = silent
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=f" {unit}",
            file=sys.stderr,
            disable=not self._terminal,
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._done = self._first = done
        self._started = self._spoke = time.monotonic()
        self._note = ""
        self.is_estimate = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def note(self, **figures: str | int | float) -> None:
        """Show figures after the bar."""
        self._note = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
        )
        self._bar.set_postfix_str(self._note, refresh=False)

    def expect(self, total: int, *, is_estimate: bool = False) -> None:
        """Set a new total, for totals that become known only during the work."""
        self.total = self._bar.total = total
        self.is_estimate = is_estimate

    def step(self, count: int = 1) -> None:
        """Advance by `count` units."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        if not (self._terminal or self._silent) and now - self._spoke >= QUIET_SECONDS:
            self._spoke = now
            rate = (self._done - self._first) / (now - self._started)
            left = format_seconds((self.total - self._done) / rate) if rate > 0 else "?"
            total = f"{'about ' if self.is_estimate else ''}{self.total:,} {self.unit}"
            line = f"{self.what}: {self._done:,} of {total}, {rate:.3g} a second, {left} left"
            print(printable(f"{line}, {self._note}" if self._note else line), file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = (), *, right: Sequence[int] = ()) -> str:
    """Format rows as aligned text; the columns in `right` are right-aligned."""
    rows = [header, *rows] if header else rows
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not cells:
        return ""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    if header:
        lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A count with its noun: "1 slide", "2,000 slides"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
