"""Note which slides a command is reading, so that after a crash the next call can name and skip the one that caused it.

OpenSlide may end the process at a single damaged tile, and then no error names the slide. So each thread appends a line
to a small file whenever it turns to another slide. The file goes when the command ends, also by Ctrl-C or SIGTERM; a
crash or SIGKILL leaves it. The next call reads the slides that were at hand once more in a child process
(`second_look`). Only a slide that ends the child as well is left out, by name; a slide that was at hand when somebody
killed the command is read as ever, so that continued outputs are the same.

slides-at-hand.*.g2l-part   in an output that is a folder, else beside it: `[number of the thread, path]` a line
crashing-slides.json        in an output that is a folder: slides that were left out, looked at again by each call

Left out: a crash in the child that the command itself would not meet.
"""

import contextlib
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base import interrupts
from pipeline.base.console import Tell
from pipeline.base.outside import UnsafeError, read_json
from pipeline.base.processes import ProcessIdentity
from pipeline.disk.asides import AT_HAND, aside_name, holds_nothing, is_aside_of, remove, writer_of
from pipeline.disk.files import write_json
from pipeline.disk.first_look import refuse_slide
from pipeline.disk.objects.places import ObjectPath, as_place, real_name
from pipeline.disk.second_look import Work, crash_of, tell_step

CRASHING = "crashing-slides.json"
MOST_BYTES = 64 << 20
"""How much of the end of the notes is read. Our choice: a thousand threads on a thousand slides each write less."""
MOST_NAME_BYTES = 120
"""Longest name of an output that its notes are called by; of a longer one they have the beginning and a hash."""


class _Notes:
    """The open file of notes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self.own = threading.local()
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []

    def note(self, path: Path) -> None:
        """Note that this thread reads `path` from now on."""
        if getattr(self.own, "path", None) is path:
            return
        if not hasattr(self.own, "number"):
            self.own.number = self.number_of(threading.current_thread())
        self.own.path = path
        self.write(self.own.number, path)

    def number_of(self, thread: threading.Thread) -> int:
        """A number for a new thread: that of one which has ended, so that what that one read no longer counts."""
        with self.lock:
            for number, other in enumerate(self.threads):
                if not other.is_alive():
                    self.threads[number] = thread
                    return number
            self.threads.append(thread)
            return len(self.threads) - 1

    def write(self, number: int, path: Path) -> None:
        """Append a line."""
        line = json.dumps([number, real_name(path)]) + "\n"
        with contextlib.suppress(OSError):  # a full disk: what needs the space says so
            os.write(self.fd, line.encode())


_notes: _Notes | None = None


def note_slide(path: Path) -> None:
    """Note that this thread reads the slide `path` from now on; does nothing outside `watched`.

    In the child that looks at a slide again it says instead that the reading goes on.
    """
    tell_step()
    if _notes is not None:
        _notes.note(path)


@contextmanager
def watched(
    output: Path,
    slides: Iterable[Path],
    work_of: Callable[[Path], Work],
    *,
    tell: Tell,
    refused_later: Collection[str] = (),
) -> Iterator[dict[str, str]]:
    """Note the slides that the block reads. First look again at those that were at hand when an earlier call crashed or
    was killed; what ends the child process is refused by `first_look.require_sound_slide` from then on.

    Yields the slides that are left out by their real paths, with the reasons. The caller holds the lock of `output`.

    Args:
        output: a folder, a file, or what becomes one.
        slides: paths of all slides, as they will be opened.
        work_of: how to read a slide as the block will.
        tell: is told which slides were looked at again.
        refused_later: real paths of slides that the block itself refuses, once it no longer needs to open them.

    Raises:
        OSError: no child process can be started, or no file written.
    """
    global _notes
    left, listed = _left_by_earlier_calls(output), _listed(output)
    crashing, unread = _suspects(slides, listed, left, work_of, tell, refused_later)
    folder, name = _places(output)[0]
    with interrupts.guard:
        notes = _Notes(folder / aside_name(name))
        key = interrupts.undo_at_end(lambda: None if crashing else remove(notes.path), notes.path)
    for number, path in enumerate(crashing, 1):
        notes.write(-number, as_place(path))
    for old in left:
        remove(old)
    _notes = notes
    try:
        yield crashing
    finally:
        _notes = None
        with interrupts.guard:
            if _list(output, unread | crashing) or not crashing:
                remove(notes.path)
            os.close(notes.fd)
            interrupts.settled(key)


@contextmanager
def noted(output: Path, slides: Iterable[Path], crashing: dict[str, str]) -> Iterator[None]:
    """Note the slides that the block reads, in a process that helps the one that is in `watched` and has yielded
    `crashing`. A crash leaves the notes to the next call.

    Raises:
        OSError: no file can be written.
    """
    global _notes
    if crashing:
        here = {real_name(path): path for path in slides}
        for name in crashing.keys() & here.keys():
            refuse_slide(here[name], crashing[name])
    folder, name = _places(output)[0]
    with interrupts.guard:
        _notes = notes = _Notes(folder / aside_name(name))
        key = interrupts.undo_at_end(lambda: remove(notes.path), notes.path)
    try:
        yield
    finally:
        _notes = None
        with interrupts.guard:
            remove(notes.path)
            os.close(notes.fd)
            interrupts.settled(key)


def _suspects(
    slides: Iterable[Path],
    listed: dict[str, str],
    left: Iterable[Path],
    work_of: Callable[[Path], Work],
    tell: Tell,
    refused_later: Collection[str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Look again at slides that are `listed`, or noted in the files `left`, and refuse what crashes; returns that, and
    what is listed but not among the `slides`.
    """
    noted = {name for path in left for name in _read(path)}
    here = {real_name(path): path for path in slides} if listed or noted else {}
    crashing = look_again([here[name] for name in sorted((listed.keys() | noted) & here.keys())], work_of, tell)
    for name in crashing.keys() - set(refused_later):
        refuse_slide(here[name], crashing[name])
    return crashing, {name: listed[name] for name in listed.keys() - here.keys()}


def look_again(paths: Iterable[Path], work_of: Callable[[Path], Work], tell: Tell) -> dict[str, str]:
    """Read slides in child processes; returns those that end theirs by their real paths, with how.

    Raises:
        OSError: no child can be started.
    """
    crashing = {}
    there = [path for path in paths if isinstance(path, ObjectPath) or os.path.isfile(path)]
    if there:
        names = ", ".join(str(path) for path in there)
        tell(f"note: read again in a process apart, since an earlier call ended while reading: {names}")
    for path in there:
        if trouble := crash_of(work_of(path)):
            crashing[real_name(path)] = trouble
            tell(f"warning: {path}: {trouble}, as it may have done before. The slide is left out")
    return crashing


def remove_notes(output: Path) -> None:
    """Remove what killed calls noted of an output that is complete. The caller holds its lock."""
    for path in _left_by_earlier_calls(output):
        remove(path)


def _places(output: Path) -> list[tuple[Path, str]]:
    """Folders where notes lie, with their names there; the first one is where to write."""
    name = output.name
    if len(os.fsencode(name)) > MOST_NAME_BYTES:  # half-written files have the beginning of a name only
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        name = f"{os.fsencode(name)[: MOST_NAME_BYTES - 17].decode('utf-8', 'ignore')}-{digest}"
    beside = [(output.absolute().parent, f"{name}.{AT_HAND}")]
    return [(output, AT_HAND), *beside] if output.is_dir() else beside


def _left_by_earlier_calls(output: Path) -> list[Path]:
    """Files of notes whose writers have gone. The caller holds the output's lock."""
    left = []
    for folder, name in _places(output):
        with contextlib.suppress(OSError):
            found = sorted(os.listdir(folder))
            left += [folder / file for file in found if is_aside_of(file, name) and not _is_at_work(folder / file)]
    return left


def _is_at_work(notes: Path) -> bool:
    """Whether the process that writes these notes is known to be at it."""
    writer = writer_of(notes.name)
    if writer == ProcessIdentity.current():
        return interrupts.is_being_written(notes)
    return writer is not None and writer.is_running() is True


def _read(path: Path) -> set[str]:
    """The slides that were at hand: of each thread the last one. Empty for anything that is no such file."""
    last: dict[int, str] = {}
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as f:
            status = os.fstat(fd)
            f.seek(max(0, status.st_size - MOST_BYTES) if stat.S_ISREG(status.st_mode) else 0)
            lines = f.read(MOST_BYTES).splitlines() if stat.S_ISREG(status.st_mode) else []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, RecursionError):  # the last one may be cut short
                thread, name = json.loads(line)
                last[int(thread)] = str(name)
    return set(last.values())


def _listed(output: Path) -> dict[str, str]:
    """Slides that an earlier call left out, with the reasons."""
    try:
        slides = read_json(output / CRASHING)["slides"]
        return {str(slide["path"]): str(slide["reason"]) for slide in slides}
    except (OSError, ValueError, LookupError, TypeError, RecursionError, UnsafeError):
        return {}


def _list(output: Path, crashing: dict[str, str]) -> bool:
    """Write the list of slides that are left out into an output that is a folder, or remove that of an earlier call
    where there are none; whether the output is so far that the notes are no longer needed.
    """
    path = output / CRASHING
    if not crashing:
        remove(path)
        return True
    if not output.is_dir():
        return output.exists()
    if holds_nothing(output):  # it must stay free for the next call
        return False
    write_json(path, {"slides": [{"path": slide, "reason": crashing[slide]} for slide in sorted(crashing)]})
    return True
