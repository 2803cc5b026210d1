"""Measure how fast the disk gives the bytes of slides, from files that the system is asked to forget first.

Left out: slides in a bucket, which are copied before they are read; and file systems that keep what they are asked to
forget: a rate that only memory has is told as such.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.base.console import counted
from pipeline.base.outside import require_regular
from pipeline.base.units import format_bytes
from pipeline.disk.objects.places import ObjectPath
from pipeline.slides.staging.slide_files import NotStagedError, slide_parts
from stages.doctor.findings import Finding, good, note

PART_BYTES = 1 << 20
"""Bytes of a read. Our choice: some ten tiles, as far as a patch's neighbours reach in a file."""
PARTS = 24
"""Reads of a slide, spread over its file. Our choice: less than a second for three slides on a slow disk."""
SLOW_BYTES = 30e6
"""Bytes a second below which a slide's patches may wait for the disk. Our choice: a patch of 224 px at 0.5 um/px of a
slide of 0.25 is about 60 kB of JPEG, and a GPU embeds some 500 a second.
"""
OF_MEMORY = 4e9
"""Bytes a second that no disk gives to one reader. Our choice."""


def look_at_reading(slides: Sequence[Path]) -> Iterator[Finding]:
    """How fast the first slides' bytes come from their disk; nothing of slides in a bucket, or that cannot be read."""
    files = [path for path in slides if not isinstance(path, ObjectPath)]
    num_bytes, seconds, read = 0, 0.0, 0
    for path in files:
        try:
            amount, took = read_spread(largest_file(path))
        except (OSError, ValueError):
            continue  # planning it will say why
        num_bytes, seconds, read = num_bytes + amount, seconds + took, read + 1
    if not num_bytes or not seconds:
        return
    rate = num_bytes / seconds
    parts = f"parts of {format_bytes(PART_BYTES)} of {counted(read, 'slide')}"
    words = f"{format_bytes(round(rate))} a second from {files[0].parent} ({parts})"
    if rate > OF_MEMORY:
        yield good("reading", f"{words}: from memory; the disk's own speed does not show")
    elif rate < SLOW_BYTES:
        advice = "patches may wait for it: `extract-teacher --stage-dir FOLDER` copies slides to a faster disk ahead"
        yield note("reading", words, advice)
    else:
        yield good("reading", words)


def largest_file(path: Path) -> Path:
    """The file of a slide that holds most of its bytes: the named one of an .mrxs slide is a small picture."""
    try:
        return max(slide_parts(path), key=lambda part: part.num_bytes).source
    except NotStagedError:
        return path


def read_spread(path: Path) -> tuple[int, float]:
    """Read parts of a file, spread over it and each once, after the system was asked to forget it: bytes and seconds.

    Raises:
        OSError: it cannot be read.
        UnsafeError: it is no regular file.
    """
    size = require_regular(path)
    count = max(1, min(PARTS, size // PART_BYTES))
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        read = sum(len(os.pread(handle, PART_BYTES, size * number // count)) for number in range(count))
        return read, time.perf_counter() - started
    finally:
        os.close(handle)
