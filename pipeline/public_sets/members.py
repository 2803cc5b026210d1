"""The members of a public set: what a reader finds in its published folder, and how the folder is looked through.

A reader gives a row for each member that can be used, by the columns of the table that `g2l evaluate` reads, and
names every other one with the reason. It reads names, tables and masks; whether an image can be decoded is found out
when `evaluate` looks through the images.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.base.errors import BenchmarkError
from pipeline.disk.linked_folders import leads_out
from pipeline.report.content import Exclusion

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Endings of image files, in lower case; others are passed over, such as a README or a thumbnail database."""

Row = Mapping[str, str]
"""The cells of a member, by column."""
Reader = Callable[[Path, Path, Mapping[str, str]], "Members"]
"""Reads a set: its folder, a folder for images that are cut out of larger files, and the reader's own options."""


@dataclass(frozen=True)
class Members:
    """What a reader found.

    Attributes:
        rows: members that can be used, in the order of their names; all have the same columns.
        images_root: folder that the column `path` starts from; `None` where there is no such column.
        left_out: members that cannot be used, and why; `by_rule` for those that do not belong to the benchmark.
        notes: what the user must know.
    """

    rows: tuple[Row, ...]
    images_root: Path | None
    left_out: tuple[Exclusion, ...] = ()
    notes: tuple[str, ...] = ()


def first_folder(root: Path, candidates: Sequence[str], what: str) -> Path:
    """The first of the `candidates` below `root` that is a folder; "." is `root` itself.

    Raises:
        BenchmarkError: none is; says what --root must hold.
    """
    if not root.is_dir():
        raise BenchmarkError(f"--root {root} is not a folder. Give the folder that holds {what}")
    for name in candidates:
        if (root / name).is_dir():
            return root / name
    listed = " or ".join(name for name in candidates if name != ".")
    raise BenchmarkError(f"{root} holds no {listed}. --root must be the folder of {what}, as it is unpacked")


def images_below(
    folder: Path, left_out: list[Exclusion], endings: Sequence[str] = IMAGE_ENDINGS
) -> Iterator[PurePosixPath]:
    """The image files below a folder, by relative path in the order of their names; through links to folders too
    (decision 0039), each real folder once.

    Hidden names are passed over: macOS puts a `._` file beside each one in an archive. Folders that are not looked
    through, broken links that may have led to one, and empty folders that stand where an image is expected are added
    to `left_out`.

    Raises:
        BenchmarkError: a folder cannot be listed; names it.
    """
    pending = [PurePosixPath()]
    visited: set[str] = set()
    while pending:
        place = pending.pop()
        if why := _not_followed(folder / place, folder, visited):
            left_out.append(Exclusion(str(place), why))
            continue
        visited.add(os.path.realpath(folder / place))
        listed = _listed(folder / place)
        if not listed and place.name.lower().endswith(tuple(endings)):
            left_out.append(Exclusion(str(place), "an empty folder with the name of an image"))
        pending += [place / entry.name for entry in reversed(listed) if _is_folder(entry)]
        names = [entry.name for entry in listed if not _is_folder(entry)]
        left_out += _broken_links(folder, place, names)
        yield from (place / name for name in names if name.lower().endswith(tuple(endings)))


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder whose names are not hidden, in the order of their names.

    Raises:
        BenchmarkError: it cannot be listed; names it.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise BenchmarkError(f"{folder} cannot be listed: {error.strerror}") from None


def _broken_links(folder: Path, place: PurePosixPath, names: Sequence[str]) -> list[Exclusion]:
    """Which of the `names` at a place below `folder` may have led to a folder, and lead nowhere."""
    why = "a broken link, which may have led to a folder of images"
    broken = [name for name in names if not Path(name).suffix and not os.path.exists(folder / place / name)]
    return [Exclusion(str(place / name), why) for name in broken]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; not so a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _not_followed(folder: Path, top: Path, visited: Collection[str]) -> str:
    """Why a folder below `top` is not looked through, by decision 0039; "" if it is."""
    real, real_top = Path(os.path.realpath(folder)), Path(os.path.realpath(top))
    is_link = folder != top and folder.is_symlink()
    if is_link and leads_out(real, top):
        return f"leads to {real}, which is not looked through for images; remove the link"
    if str(real) in visited:
        return f"leads to {real}, whose images are read under another name"
    is_inside = is_link and real.is_relative_to(real_top)
    is_hidden = is_inside and any(part.startswith(".") for part in real.relative_to(real_top).parts)
    return f"leads to {real}, whose images are read under that name" if is_inside and not is_hidden else ""


def unparsed(path: PurePosixPath, expected: str) -> Exclusion:
    """A member whose name or place says nothing that the set documents."""
    return Exclusion(str(path), f"the name or its folder does not read {expected}")


def require_members(members: Members, folder: Path, what: str) -> Members:
    """The members, if there are any.

    Raises:
        BenchmarkError: there are none; names the first that was left out.
    """
    if members.rows:
        return members
    failed = [exclusion for exclusion in members.left_out if not exclusion.by_rule]
    first = f"; the first, {failed[0].what}: {failed[0].why}" if failed else ""
    raise BenchmarkError(f"{folder} has no {what} that can be used{first}")
