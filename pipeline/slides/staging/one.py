"""The copy of a single slide in a bucket, for work that reads few slides, or reads some once more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.base.console import Tell
from pipeline.base.errors import SlideError
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.second_look import Work, tell_step
from pipeline.slides.staging.ahead import Close, Staging
from pipeline.slides.staging.copies import ExpectedSlide

STEP_SECONDS = 10.0
"""How often a child tells that it is still copying. Our choice."""


def left_open(path: Path) -> None:
    """Closes nothing: whoever uses the copy has closed the slide, or forgets it."""


@contextmanager
def copy_of_slide(path: Path, stage: StageFolder | None, *, tell: Tell) -> Iterator[Path | None]:
    """The copy of a slide in a bucket while the block runs; `None` for any other slide.

    Raises:
        SlideError: it cannot be copied.
        G2LError: no slide can be.
    """
    if not isinstance(path, ObjectPath):
        yield None
        return
    with Staging(stage, tell=tell) as staging:
        staging.expect([ExpectedSlide(path)])
        with staging.use(path, left_open) as copy:
            yield copy


class LastCopy:
    """As `Copies`, for one thread that reads some rows of many slides: keeps the copy of the slide in a bucket that was
    used last, until another one is used or the block ends. Other slides are read where they are.
    """

    def __init__(self, stage: StageFolder | None, *, tell: Tell) -> None:
        self._stage, self._tell = stage, tell
        self._path: Path | None = None
        self._copy: Path | None = None
        self._held = ExitStack()
        self._failures: dict[Path, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    @contextmanager
    def use(self, path: Path, close: Close, times: int = 1) -> Iterator[Path | None]:
        """As `Copies`.

        Raises:
            SlideError: the slide cannot be copied; it is not tried again.
            G2LError: no slide can be.
        """
        if isinstance(path, ObjectPath) and path != self._path:
            if path in self._failures:
                raise SlideError(self._failures[path])
            self._held.close()
            self._path = self._copy = None
            try:
                self._copy = self._held.enter_context(copy_of_slide(path, self._stage, tell=self._tell))
            except SlideError as error:
                self._failures[path] = str(error)
                raise
            self._held.callback(close, path)
            self._path = path
        yield self._copy if path == self._path else None


def with_own_copy(path: Path, stage: StageFolder | None, work: Work) -> Work:
    """Work for a child process that reads a slide again (`at_hand`): with a copy that it makes itself, if the slide is
    in a bucket. The function of `work` then takes it as its argument `copy`.
    """
    return (read_copy, (path, stage, *work)) if isinstance(path, ObjectPath) else work


def read_copy(
    path: Path, stage: StageFolder | None, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    """In the child: copy a slide, telling that this goes on, and call a function with it.

    Raises:
        G2LError: it cannot be copied.
    """
    is_there = threading.Event()

    def tell() -> None:
        while not is_there.wait(STEP_SECONDS):
            tell_step()

    threading.Thread(target=tell, daemon=True).start()
    with ExitStack() as held:
        try:
            copy = held.enter_context(copy_of_slide(path, stage, tell=lambda note: None))
        finally:
            is_there.set()
        function(*arguments, copy=copy)
