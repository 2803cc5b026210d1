"""Find the slide files below a folder, each slide once: links to listed slides, further files of a slide and DICOM
files of no slide are skipped and counted.

Left out: naming the slides, and finding copies.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pipeline.base.console import counted
from pipeline.base.errors import ManifestError
from pipeline.slides import dicom

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm", ".czi", ".avs"}
)
"""File endings that OpenSlide 4.0.1 reads (openslide.org/formats); 4.0.0 reads neither .czi nor .avs."""
MAX_NAMED = 5
"""Files that a note lists. Our choice."""


def slide_paths(folder: Path) -> tuple[list[PurePosixPath], list[str]]:
    """Paths of slides below `folder`, relative to it, in walking order, and notes on what was skipped.

    Raises:
        ManifestError: the folder cannot be listed.
    """
    paths: list[PurePosixPath] = []
    counts: Counter[tuple[str, str]] = Counter()
    for parent, folders, names in os.walk(folder, onerror=_raise_unlisted):
        files = _readable_names(parent, names, counts)
        folders[:] = _folders_to_walk(folders, files)
        counts["link", "to folders"] += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        place = PurePosixPath(Path(parent).relative_to(folder))
        paths += [place / file for file in _slides_among(files, Path(parent), counts)]
    links = _links(folder, paths)
    others = [f"{counted(count, noun)} {suffix}" for (noun, suffix), count in counts.items() if count]
    notes = passed_over(links, "link to a listed slide", "links to listed slides")
    notes += [f"skipped: {', '.join(others)}"] if others else []
    return [path for path in paths if path not in links], notes


def _readable_names(folder: str, names: list[str], counts: Counter[tuple[str, str]]) -> list[PurePosixPath]:
    """The names of files in order, without hidden and special ones; counts slides that are special files."""
    files = [PurePosixPath(name) for name in sorted(names) if not name.startswith(".")]
    special = {file for file in files if _is_special(os.path.join(folder, file))}
    counts["special file", "(pipe, socket or device)"] += sum(f.suffix.lower() in SLIDE_SUFFIXES for f in special)
    return [file for file in files if file not in special]


def _folders_to_walk(folders: list[str], files: list[PurePosixPath]) -> list[str]:
    """The folders in order, without hidden ones and those that hold the data of an .mrxs file beside them."""
    data_folders = {file.stem for file in files if file.suffix.lower() == ".mrxs"}
    return sorted(name for name in folders if not name.startswith(".") and name not in data_folders)


def _slides_among(
    files: list[PurePosixPath], folder: Path, counts: Counter[tuple[str, str]]
) -> Iterator[PurePosixPath]:
    """The slides among the files of one folder; of DICOM files those that `dicom_slides` keeps."""
    kept = dicom_slides(folder, [file for file in files if file.suffix.lower() == dicom.SUFFIX], counts)
    for file in files:
        suffix = file.suffix.lower()
        if suffix in SLIDE_SUFFIXES and (suffix != dicom.SUFFIX or file in kept):
            yield file


def _is_special(path: str) -> bool:
    """Whether a name is that of a pipe, socket or device, which hangs who reads it; not so a broken link."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def dicom_slides(folder: Path, files: list[PurePosixPath], counts: Counter[tuple[str, str]]) -> set[PurePosixPath]:
    """One file for each slide among the DICOM files of one folder: the first by name that is a level, by which
    OpenSlide opens the whole series. Of files with unreadable headers, keeps the first. Counts the others in `counts`,
    by noun and the words after it.
    """
    kept: dict[str, PurePosixPath] = {}
    for file in files:
        header = dicom.read_header(folder / file)
        series, kind = (header.series, header.kind) if header else ("", "")
        if header and not header.is_slide:
            counts["DICOM file", "of no slide"] += 1
        elif kind in dicom.NO_LEVEL:
            counts["DICOM file", f"of kind {kind}"] += 1
        elif series in kept:
            noun = ("further DICOM file", "of listed series") if header else ("DICOM file", "without a header")
            counts[noun] += 1
        else:
            kept[series] = file
    return set(kept.values())


def _links(folder: Path, paths: list[PurePosixPath]) -> dict[PurePosixPath, PurePosixPath]:
    """Links and hard links to a file that is in `paths` under another name, each with that name."""
    by_file: dict[tuple[int, int], list[PurePosixPath]] = {}
    for path in paths:
        try:
            status = os.stat(folder / path)
        except OSError:
            continue  # a broken link, which fails by name when it is read
        by_file.setdefault((status.st_dev, status.st_ino), []).append(path)
    links: dict[PurePosixPath, PurePosixPath] = {}
    for names in by_file.values():
        kept = next((path for path in names if not os.path.islink(folder / path)), names[0])
        links |= {path: kept for path in names if path != kept}
    return links


def passed_over(dropped: Mapping[PurePosixPath, PurePosixPath], one: str, several: str) -> list[str]:
    """A note on files that are skipped for another, listing the first few; empty if there are none. `one` and `several`
    describe them in the singular and plural.
    """
    if not dropped:
        return []
    shown = ", ".join(f"{path} ({kept})" for path, kept in list(dropped.items())[:MAX_NAMED])
    more = f" and {len(dropped) - MAX_NAMED:,} more" if len(dropped) > MAX_NAMED else ""
    return [f"skipped: {counted(len(dropped), one, several)}: {shown}{more}"]


def _raise_unlisted(error: OSError) -> NoReturn:
    raise ManifestError(f"cannot list the folder {error.filename}: {error.strerror}") from error
