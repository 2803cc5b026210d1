"""Which files a slide consists of, as far as they can be copied elsewhere and read there as the same slide.

Most slides are one file. An .mrxs file has a folder of its name beside it; a DICOM slide is all files of its series in
its folder. Left out: Hamamatsu's .vms and .vmu, an index of several images whose names OpenSlide alone interprets.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pipeline.slides import dicom
from pipeline.slides.identity import HAMAMATSU, MIRAX, data_files


class NotStagedError(Exception):
    """A slide is read in place; says why, or nothing if the reader will say it. Of a kind that many slides may be of,
    the first one is told of.
    """

    def __init__(self, why: str, *, kind: str = "") -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True)
class SlidePart:
    """A file of a slide.

    Attributes:
        name: its path from the folder of the slide's named file.
        source: the file, or a link to it.
        num_bytes: its size.
    """

    name: str
    source: Path
    num_bytes: int


def slide_parts(path: Path) -> list[SlidePart]:
    """The files of the slide at `path`, the named file first. Links are followed.

    Raises:
        NotStagedError: they cannot be told, or one is not a regular file.
    """
    try:
        named = _part(path, path.name)
        return [named, *_others(path)]
    except OSError:
        raise NotStagedError("") from None


def _others(path: Path) -> list[SlidePart]:
    """The files of a slide beside the named one.

    Raises:
        NotStagedError: as `slide_parts`.
        OSError: a folder or file is not there.
    """
    suffix, folder = path.suffix.lower(), path.with_suffix("")
    if suffix in HAMAMATSU:
        raise NotStagedError("its format has several files, which only OpenSlide can tell", kind=suffix)
    if suffix == MIRAX:
        return [_part(file, f"{folder.name}/{file.name}") for file in data_files(folder)] if folder.is_dir() else []
    own = dicom.read_header(path)
    if own is None or not own.series:
        return []
    beside = sorted(file for file in path.absolute().parent.iterdir() if file.name != path.name)
    return [_part(file, file.name) for file in beside if _series_of(file) == own.series]


def _series_of(file: Path) -> str | None:
    """UID of the series that a file belongs to, if it is a DICOM file."""
    header = dicom.read_header(file)
    return header.series if header else None


def _part(source: Path, name: str) -> SlidePart:
    """A file with its size.

    Raises:
        NotStagedError: it is not a regular file.
        OSError: it is not there.
    """
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):
        raise NotStagedError(f"{name} of it is not a file")
    return SlidePart(name, source, status.st_size)
