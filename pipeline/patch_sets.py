"""The patches of a benchmark: which image files, of which class, case, centre and split.

They come as a CSV (`path,label` and optionally a group, `center`, `split`) or as a folder with a folder of images for
each class, as torchvision's ImageFolder reads it. What it leaves out: whether the images can be read; `patch_images`
looks through them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BenchmarkError, ManifestError
from pipeline.files import sha256_json
from pipeline.folds import SPLITS
from pipeline.manifest import Problem, Record, read_table, refuse

REQUIRED_COLUMNS = ("path", "label")
GROUP_COLUMNS = ("group", "case_id", "case", "slide_id")
"""Columns that may say which patches belong together; the first of them that the file has counts."""
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")

Names = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Patches of a benchmark, in the order of the file or of the folders' names.

    Attributes:
        name: of the file or folder.
        source: the file or folder.
        paths: the image files; they may be missing.
        labels: class of each, (N,).
        groups: the case, or whatever keeps patches together, (N,); `None` if that is not known.
        group_column: the column that the groups are from, "" if there is none.
        centers: medical centre of each, (N,), or `None`.
        splits: train, val or test of each, (N,), or `None`.
    """

    name: str
    source: Path
    paths: list[Path]
    labels: Names
    groups: Names | None = None
    group_column: str = ""
    centers: Names | None = None
    splits: Names | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def groups_or_own(self) -> Names:
        """The groups; each patch is one of its own where none are known."""
        return np.array([f"{i:09d}" for i in range(len(self))]) if self.groups is None else self.groups

    def select(self, indices: NDArray[np.int64]) -> "PatchSet":
        """The patches at `indices`, in that order."""

        def of(names: Names | None) -> Names | None:
            return None if names is None else names[indices]

        return PatchSet(
            self.name, self.source, [self.paths[i] for i in indices], self.labels[indices], of(self.groups),
            self.group_column, of(self.centers), of(self.splits),
        )  # fmt: skip

    def hash(self) -> str:
        """Hex SHA-256 of everything that is said of the patches; of the images' names, not of their pixels."""
        columns = (self.labels, self.groups, self.centers, self.splits)
        said = [None if column is None else column.tolist() for column in columns]
        return sha256_json([[path.name for path in self.paths], *said])


def read_patch_set(path: Path, images_root: Path | None = None) -> PatchSet:
    """Read a CSV or a folder of images.

    A CSV's relative paths hang below `images_root`, or below the CSV's folder. A folder holds CLASS/IMAGE, or
    SPLIT/CLASS/IMAGE if its folders are called train, val or test; a class may have folders within. Names that start
    with a dot are passed over.

    Raises:
        BenchmarkError: there is no such file or folder, a column or a cell is missing, a path is given twice, or there
            are no patches; all lines that are wrong are named.
    """
    if path.is_dir():
        return _read_folder(path)
    if images_root is not None and not images_root.is_dir():
        raise BenchmarkError(f"the images' folder {images_root} is not a folder; mend --images-root")
    try:
        records, problems = read_table(path, REQUIRED_COLUMNS, ",")
        return _from_records(path, images_root or path.parent, records, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None


def _from_records(path: Path, root: Path, records: Sequence[Record], problems: list[Problem]) -> PatchSet:
    """The patches of a table.

    Raises:
        ManifestError: something is wrong; everything that is wrong is listed.
    """
    header = list(records[0][1]) if records else []
    if alike := [name for name in header if [other.lower() for other in header].count(name.lower()) > 1]:
        problems.append((1, f"columns {', '.join(alike)} are spelled alike; keep one of them"))
    lines = [(line, {name.lower(): cell.strip() for name, cell in cells.items()}) for line, cells in records]
    given = lines[0][1] if lines else {}
    group_column = next((name for name in GROUP_COLUMNS if name in given), "")
    optional = [name for name in (group_column, "center", "split") if name in given]
    first_line: dict[str, int] = {}
    for line, cells in lines:
        problems += [
            (
                line,
                f"{name} is empty; fill it in on every line"
                + (", or leave the column out" if name in optional else ""),
            )
            for name in (*REQUIRED_COLUMNS, *optional)
            if not cells[name]
        ]
        if "split" in optional and cells["split"] and cells["split"] not in SPLITS:
            problems.append((line, f"split {cells['split']!r} is not one of {', '.join(SPLITS)}"))
        file = os.path.abspath(root / cells["path"])
        if cells["path"] and first_line.setdefault(file, line) != line:
            problems.append((line, f"path {cells['path']!r} is on line {first_line[file]} as well; keep one of them"))
    refuse(path, problems)

    def column(name: str) -> Names | None:
        return np.array([cells[name] for _, cells in lines]) if name in optional else None

    return PatchSet(
        name=path.stem,
        source=path,
        paths=[root / cells["path"] for _, cells in lines],
        labels=np.array([cells["label"] for _, cells in lines]),
        groups=column(group_column),
        group_column=group_column,
        centers=column("center"),
        splits=column("split"),
    )


def _read_folder(folder: Path) -> PatchSet:
    """The patches of a folder of classes, or of splits of classes.

    Raises:
        BenchmarkError: no classes, a class without images, an image outside the classes, or folders of splits beside
            others.
    """
    inside = _folders(folder)
    names = [inner.name for inner in inside]
    has_splits = any(name in SPLITS for name in names)
    if has_splits and (others := [name for name in names if name not in SPLITS]):
        raise BenchmarkError(
            f"{folder} has folders of splits ({', '.join(name for name in names if name in SPLITS)}) beside others: "
            f"{', '.join(others[:5])}; it must hold splits with classes within, or classes only"
        )
    found = []
    for split in inside if has_splits else [folder]:
        for class_folder in _folders(split):
            images = _images_below(class_folder)
            if not images:
                endings = ", ".join(ending[1:] for ending in IMAGE_ENDINGS)
                raise BenchmarkError(f"{class_folder} is a class without an image ({endings}); remove it or fill it")
            found += [(image, class_folder.name, split.name) for image in images]
    stray = [file for place in {folder, *(inside if has_splits else [])} for file in place.iterdir() if _is_image(file)]
    if stray:
        raise BenchmarkError(f"{min(stray)} is an image outside the folders of classes; move it into one of them")
    if not found:
        raise BenchmarkError(f"{folder} holds no images; it must hold a folder for each class, with the images in it")
    paths, labels, splits = zip(*found, strict=True)
    return PatchSet(
        folder.resolve().name, folder, list(paths), np.array(labels), splits=np.array(splits) if has_splits else None
    )


def _folders(folder: Path) -> list[Path]:
    """Folders within a folder, by name."""
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Image files at any depth, by path."""
    return sorted(file for file in folder.rglob("*") if _is_image(file) and not _is_hidden(file.relative_to(folder)))


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".") and file.is_file()
