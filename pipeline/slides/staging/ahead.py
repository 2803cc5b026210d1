"""Copy slides into a local folder ahead of their use, in a thread, and remove each after its last use.

Slides are copied in the order in which they are expected, as long as there is room. A reader that comes to a slide
waits until its copy is there. It reads the slide in place if there will be none: the slide is larger than the bound,
cannot be copied whole, its copy differs (`copies`), or the room belongs to others. Nobody waits for room that only the
reader itself could free, provided that slides are used in the order in which they are expected.

A slide in a bucket (`objects`) has no other place: without a copy it fails, by name, and for room that belongs to
others the reader waits. What is not the slide's fault, such as a full disk or a server that is away, ends the run.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pipeline.base.console import Tell
from pipeline.base.errors import G2LError, SlideError
from pipeline.base.units import format_bytes, format_seconds
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.bucket import AwayError, ObjectError
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.objects.present import Buckets
from pipeline.slides.staging.copies import ExpectedSlide, copy_slide
from pipeline.slides.staging.objects import ObjectPart, copy_objects, object_parts
from pipeline.slides.staging.room import StageRoom
from pipeline.slides.staging.slide_files import NotStagedError, SlidePart, slide_parts

POLL_SECONDS = 0.2
"""How often to look for room that other commands hold. Our choice."""
ROOM_SECONDS = 3600.0
"""Longest wait for room that others hold, for a slide in a bucket. Our choice: they use a slide for minutes."""
MOST_UNANSWERED = 2
"""Slides in turn for which a server was away until the run ends: it is then not the slide's fault. Our choice."""
STOP_SECONDS = 10.0
"""Longest wait for the thread at the end: a file server may hang. Our choice."""

Close = Callable[[Path], object]
"""Closes a slide, so that its copy can be removed."""


class Copies(Protocol):
    """Where a reader finds the copies of slides."""

    def use(self, path: Path, close: Close, times: int = 1) -> AbstractContextManager[Path | None]:
        """A block that uses a slide so many times: gives its copy, or `None` to read the slide where it is."""


@dataclass(frozen=True)
class KnownCopy:
    """The copy of one slide, or `None`, that somebody else keeps while it is used."""

    copy: Path | None

    @contextmanager
    def use(self, path: Path, close: Close, times: int = 1) -> Iterator[Path | None]:
        """As `Copies`."""
        yield self.copy


@dataclass(eq=False)
class _Slide:
    """An expected slide, and how far it is.

    Attributes:
        uses: how many are left.
        is_needed: whether a reader waits for it.
        is_decided: whether it is known how it is read.
        folder, copy: of its copy, if there is one.
        failure: why it cannot be read at all.
    """

    expected: ExpectedSlide
    uses: int
    is_needed: bool = False
    is_decided: bool = False
    folder: Path | None = None
    copy: Path | None = None
    failure: G2LError | None = None


class _StoppedError(Exception):
    """The block has ended."""


class Staging:
    """Stages slides while the block runs; at its end all copies are removed. Safe to use from many threads.

    Leave the block before the threads that read are joined: it wakes those that wait for a copy.

    Args:
        stage: the folder and its bound; `None`: every slide is read in place.
        tell: is told once of each kind of trouble.

    Raises:
        G2LError: the folder cannot be written; on entering the block.
    """

    def __init__(self, stage: StageFolder | None, *, tell: Tell) -> None:
        self._stage, self._tell = stage, tell
        self._changed = threading.Condition()
        self._slides: dict[Path, _Slide] = {}
        self._waiting: deque[_Slide] = deque()
        self._num_leaving = self._num_returned = 0
        self._told: set[str] = set()
        self._is_stopped = self._is_broken = False
        self._buckets, self._num_unanswered = Buckets(), 0
        self._end: G2LError | None = None  # why no slide in a bucket can be copied any more
        self._room: StageRoom | None = None
        self._thread: threading.Thread | None = None

    def another(self) -> "Staging":
        """Another block of the same folder and bound, for when this one has ended."""
        return Staging(self._stage, tell=self._tell)

    def __enter__(self) -> Self:
        if self._stage is not None:
            self._room = StageRoom(self._stage)
            self._thread = threading.Thread(target=self._run, args=(self._room,), name="g2l-stage", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._buckets.stop()
        if self._thread is not None and self._room is not None:
            self._thread.join(STOP_SECONDS)
            self._room.close()

    def expect(self, slides: Iterable[ExpectedSlide]) -> None:
        """Say which slides will be used, in order, after those that are expected already."""
        with self._changed:
            if self._stage is None:
                return
            for expected in slides:
                known = self._slides.get(expected.path)
                if known is not None:
                    known.uses += expected.uses
                    continue
                slide = self._slides[expected.path] = _Slide(expected, expected.uses)
                self._waiting.append(slide)
            self._changed.notify_all()

    def copy_of(self, path: Path) -> Path | None:
        """Wait for the copy of a slide; `None` if it is to be read in place.

        Raises:
            SlideError: it is in a bucket, and cannot be copied.
            G2LError: no slide in a bucket can be.
        """
        with self._changed:
            slide = self._slides.get(path)
            if slide is None:
                return None
            if not slide.is_decided:
                slide.is_needed = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: slide.is_decided or self._is_stopped)
            if slide.failure is not None:
                raise type(slide.failure)(str(slide.failure))  # a new exception for each thread
            if slide.copy is None and isinstance(path, ObjectPath):
                raise ObjectError(f"{path}: not copied, for the command ends")
            return slide.copy

    def done(self, path: Path, close: Close) -> None:
        """Count a use of a slide; after the last one `close` is called with `path`, and the copy is removed."""
        with self._changed:
            slide = self._slides.get(path)
            if slide is None:
                return
            slide.uses -= 1
            if slide.uses > 0:
                return
            del self._slides[path]
            self._num_leaving += 1
        try:
            close(path)
            if slide.folder is not None and self._room is not None:
                self._room.give_back(slide.folder)
        finally:
            with self._changed:
                self._num_leaving -= 1
                self._num_returned += 1
                self._changed.notify_all()

    @contextmanager
    def use(self, path: Path, close: Close, times: int = 1) -> Iterator[Path | None]:
        """As `Copies`, counting the uses."""
        try:
            yield self.copy_of(path)
        finally:
            for _ in range(times):
                self.done(path, close)

    def _run(self, room: StageRoom) -> None:
        """Stage one slide after the other, until the block ends."""
        try:
            while (slide := self._next()) is not None:
                folder, copy, failure = None, None, None
                try:
                    make = self._fetch if isinstance(slide.expected.path, ObjectPath) else self._copy
                    folder, copy = make(slide, room)
                except G2LError as error:
                    failure = error
                with self._changed:
                    slide.folder, slide.copy, slide.failure, slide.is_decided = folder, copy, failure, True
                    self._changed.notify_all()
        except _StoppedError:
            pass
        finally:  # whatever it was, no reader waits for ever
            with self._changed:
                self._is_stopped = True
                self._changed.notify_all()

    def _next(self) -> _Slide | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_stopped)
            return None if self._is_stopped else self._waiting.popleft()

    def _copy(self, slide: _Slide, room: StageRoom) -> tuple[Path | None, Path | None]:
        """The folder with the files of a slide and the copy of the named one; `None` if it is to be read in place.

        Raises:
            _StoppedError: the block has ended.
        """
        path, folder = slide.expected.path, None
        try:
            if self._is_broken:
                return None, None
            parts = slide_parts(path)
            folder = self._take(slide, parts, room)
            return folder, copy_slide(parts, folder, slide.expected, self._go_on)
        except NotStagedError as error:
            if str(error):
                others = ", as are others of which the same is true" if error.kind else ""
                self._tell_once(error.kind or str(path), f"note: {path} is read in place, not staged{others}: {error}")
        except (OSError, G2LError) as error:
            self._is_broken = True
            why = error.strerror if isinstance(error, OSError) else error
            self._tell(
                f"note: --stage-dir {room.folder} cannot be used ({why}); from {path} on, slides are read in place"
            )
        except _StoppedError:
            if folder is not None:
                room.give_back(folder)
            raise
        if folder is not None:
            room.give_back(folder)
        return None, None

    def _fetch(self, slide: _Slide, room: StageRoom) -> tuple[Path, Path]:
        """As `_copy`, of a slide in a bucket.

        Raises:
            SlideError: it cannot be copied.
            G2LError: no slide can be: the folder cannot be written, others hold its room, or the server is away.
            _StoppedError: the block has ended.
        """
        path, folder = slide.expected.path, None
        assert isinstance(path, ObjectPath)
        if self._end is not None:
            raise self._end
        try:
            parts = object_parts(path, self._buckets)
            folder = self._take(slide, parts, room)
            copy = copy_objects(parts, folder, slide.expected, self._go_on)
            self._num_unanswered = 0
            return folder, copy
        except BaseException as error:
            if folder is not None:
                room.give_back(folder)
            self._go_on()  # what was given up because the block ends says nothing of the slide
            if isinstance(error, NotStagedError) and error.kind == "room":
                why = f"{error}, and other commands have held it for {format_seconds(ROOM_SECONDS)}"
                self._end = G2LError(f"{path}: {why}. Run the same command again when they have ended")
                raise self._end from None
            if isinstance(error, NotStagedError):
                raise SlideError(f"{path}: cannot be copied: {error}") from None
            self._num_unanswered = self._num_unanswered + 1 if isinstance(error, AwayError) else 0
            if isinstance(error, ObjectError) and self._num_unanswered < MOST_UNANSWERED:
                raise SlideError(str(error)) from None
            self._end = error if isinstance(error, ObjectError) else None
            if isinstance(error, OSError):
                why = f"--stage-dir {room.folder} cannot be used ({error.strerror})"
                self._end = G2LError(f"{path}: {why}. Run the same command again when it can")
            if self._end is not None:
                raise self._end from None
            raise

    def _take(self, slide: _Slide, parts: Sequence[SlidePart | ObjectPart], room: StageRoom) -> Path:
        """Wait until there is room for a slide's files; returns their folder.

        Raises:
            NotStagedError: the slide is larger than the bound, or a reader waits for it and others hold the room, of
                one in a bucket for long.
            OSError: the folder cannot be written.
            _StoppedError: the block has ended.
        """
        needed = sum(part.num_bytes for part in parts)
        if needed > room.most_bytes:
            allowed = f"and --stage-gb allows {format_bytes(room.most_bytes)} in all"
            raise NotStagedError(f"it has {format_bytes(needed)}, {allowed}", kind="large")
        allowed_seconds = ROOM_SECONDS if isinstance(slide.expected.path, ObjectPath) else 0.0
        since = None
        while True:
            with self._changed:
                self._go_on()
                holds_room = self._num_leaving or any(other.folder for other in self._slides.values())
                must_not_wait, num_returned = slide.is_needed and not holds_room, self._num_returned
            if (folder := room.take(parts)) is not None:
                return folder
            if not must_not_wait:
                since = None
            else:
                since = time.monotonic() if since is None else since
                if time.monotonic() - since >= allowed_seconds:
                    raise NotStagedError(f"{room.folder} has no room for its {format_bytes(needed)}", kind="room")
                self._tell_once("wait", f"note: {slide.expected.path} waits for room in {room.folder}")
            with self._changed:  # copies that went since count; others' are looked for again after a while
                self._changed.wait_for(self._is_other(num_returned), POLL_SECONDS)

    def _is_other(self, num_returned: int) -> Callable[[], bool]:
        """Whether copies went since there were so many, or the block has ended."""
        return lambda: self._is_stopped or self._num_returned > num_returned

    def _go_on(self) -> None:
        """Go on unless the block has ended.

        Raises:
            _StoppedError: it has.
        """
        if self._is_stopped:
            raise _StoppedError

    def _tell_once(self, kind: str, note: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._tell(note)
