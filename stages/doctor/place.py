"""Look at the folder that outputs go to: room, speed, and whether locks, links and renames hold on its file system.

A folder of files is made in it for some seconds, and removed, also when a signal ends the process. What a killed call
left goes with the next one.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from pipeline.base import interrupts
from pipeline.base.units import format_bytes
from pipeline.disk.asides import aside_name, remove, remove_asides_of
from pipeline.disk.locks import NO_FLOCK
from stages.doctor.findings import Finding, good, note, trouble

TRIED_FOLDER = ".g2l-doctor"
"""Name of the folder that is tried out; always written aside."""
PROBE_BYTES = 64 << 20
"""Bytes written to measure the speed. Our choice: a second on a slow disk."""
NUM_SYNCS = 5
SLOW_BYTES, SLOW_SYNC = 50e6, 0.2
"""Bytes a second, and seconds a sync, beyond which the disk may hold up stage one. Our choice: a GPU that embeds 500
patches a second writes 30 MB of lossless pixels a second; a shard is synced about five times a minute.
"""
LITTLE_ROOM = 20 << 30
"""Our choice: a third of a million patches without pixels, or as many as five average slides' with them."""


def nearest_folder(folder: Path) -> Path:
    """The folder itself if anything is there, or the nearest one above it that is there, in which commands make it."""
    there = Path(os.path.realpath(folder))
    while not os.path.lexists(there):
        there = there.parent
    return folder if there == Path(os.path.realpath(folder)) else there


def look_at_place(wanted: Path) -> Iterator[Finding]:
    """Look at a folder; where it is still to be made, at the one that it will be made in."""
    folder = nearest_folder(wanted)
    if folder != wanted:
        yield good("folder", f"{wanted} is still to be made, in {folder}")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield trouble("folder", f"{folder} cannot be read ({error.strerror})", "name another with --place")
        return
    few = free < LITTLE_ROOM
    words = f"{format_bytes(free)} free in {folder}"
    yield note("room", words, "see the estimate of `g2l plan`, or choose another disk") if few else good("room", words)
    try:
        with probe_folder(folder) as probe:
            yield from _look_at_speed(probe, free)
            yield look_at_locks(probe)
            yield _look_at_links(probe)
    except OSError as error:
        yield trouble(
            "folder", f"cannot write to {folder} ({error.strerror})", "choose another --out, or mend its rights"
        )


@contextmanager
def probe_folder(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, removed after the block or when a signal ends the process; first those go that killed
    calls left.

    Raises:
        OSError: it cannot be made.
    """
    remove_asides_of(folder / TRIED_FOLDER, locked=False)
    probe = folder / aside_name(TRIED_FOLDER)
    with interrupts.guard:
        probe.mkdir()
        key = interrupts.undo_at_end(lambda: remove(probe), probe)
    try:
        yield probe
    finally:
        remove(probe)
        interrupts.settled(key)


def _look_at_speed(probe: Path, free: int) -> Iterator[Finding]:
    """Write and sync a large file, and some small ones."""
    num_bytes = min(PROBE_BYTES, free // 4)
    data, started = os.urandom(max(num_bytes, 1)), time.monotonic()
    _write_synced(probe / "large", data)
    rate = len(data) / (time.monotonic() - started)
    seconds = []
    for number in range(NUM_SYNCS):
        started = time.monotonic()
        _write_synced(probe / str(number), b"x")
        seconds.append(time.monotonic() - started)
    sync = median(seconds)
    words = f"writes {format_bytes(round(rate))} a second; a sync takes {sync * 1000:.3g} ms"
    if rate < SLOW_BYTES or sync > SLOW_SYNC:
        yield note("disk", words, "a fast GPU may wait for it: write the store to a local disk, and move it later")
    else:
        yield good("disk", words)


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def look_at_locks(probe: Path) -> Finding:
    """Whether a lock that one opening of a file holds is refused to another."""
    with open(probe / "lock", "wb") as first, open(probe / "lock", "ab") as second:
        try:
            fcntl.flock(first.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            words = f"this file system has no flock ({error.strerror}); files that are touched while held stand in"
            return note("locks", words, "let one process a time write here, or use another file system")
        try:
            fcntl.flock(second.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return good("locks", "two runs cannot write one output")
    words = "a lock was given twice: two runs could write one output, and spoil it"
    return trouble("locks", words, "use another file system, or take care yourself that no two runs share an --out")


def _look_at_links(probe: Path) -> Finding:
    """Whether files can have two names, which `g2l merge` uses."""
    try:
        os.link(probe / "0", probe / "second name")
    except OSError as error:
        return note("hard links", f"not here ({error.strerror})", "`g2l merge` copies instead, and takes room twice")
    return good("hard links", "`g2l merge` takes no room")
