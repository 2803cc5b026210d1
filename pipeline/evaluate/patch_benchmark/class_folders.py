"""List the images of a folder that holds a folder for each class, or of splits of such folders, as torchvision's
ImageFolder reads them.

Left out: whether the images can be read; `evaluate.images` looks through them.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.base.errors import BenchmarkError
from pipeline.disk.linked_folders import leads_out
from pipeline.disk.tables import composed
from pipeline.evaluate.folds import SPLITS

SPLIT_LIKE = ("training", "validation", "valid", "dev", "testing")
"""Names of folders that are rarely a class. Our choice."""
MAX_NAMED = 5
"""Folders that a note lists. Our choice."""
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


class ListedPatches(NamedTuple):
    """The images of the classes: their paths, classes and splits (`None` without folders of splits), and notes on the
    folders' names.
    """

    paths: list[Path]
    labels: list[str]
    splits: list[str] | None
    notes: tuple[str, ...]


def list_patches(folder: Path) -> ListedPatches:
    """The images of a folder of classes, or of splits of classes.

    Raises:
        BenchmarkError: no classes, a class without images, an image outside the classes, folders of splits beside
            others, or a link that leads out of the tree without end.
    """
    inside = _folders(folder)
    has_splits = _holds_splits(folder, [inner.name for inner in inside])
    places = inside if has_splits else [folder]
    patches = [
        (image, composed(class_folder.name), place.name.lower())
        for place in places
        for class_folder in _folders(place)
        for image in _images_of_class(class_folder, folder)
    ]
    _require_folders({folder, *places})
    if not patches:
        raise BenchmarkError(f"{folder} holds no images; it must hold a folder for each class, with the images in it")
    paths, labels, splits = (list(column) for column in zip(*patches, strict=True))
    notes = [] if has_splits else _notes_on_folders(inside)
    return ListedPatches(paths, labels, splits if has_splits else None, tuple(notes))


def _holds_splits(folder: Path, names: Sequence[str]) -> bool:
    """Whether the folders in `folder` are splits, by their `names`; otherwise they are classes.

    Raises:
        BenchmarkError: some are splits and some are not, or a name looks like a split's and is none.
    """
    splits = [name for name in names if name.lower() in SPLITS]
    others = [name for name in names if name.lower() not in SPLITS]
    if splits and others:
        raise BenchmarkError(
            f"{folder} has folders of splits ({', '.join(splits)}) beside others: {', '.join(others[:MAX_NAMED])}; it "
            "must hold splits with classes within, or classes only"
        )
    if like := [name for name in others if name.lower() in SPLIT_LIKE]:
        raise BenchmarkError(
            f"{folder}: {', '.join(like)} would be taken for a class. Call folders of splits {', '.join(SPLITS)}; "
            "if it is a class, give a CSV of path and label"
        )
    return bool(splits)


def _images_of_class(class_folder: Path, top: Path) -> list[Path]:
    """The images of a class of the benchmark `top`; at least one.

    Raises:
        BenchmarkError: it has none, or is or holds a link that is not followed.
    """
    images = _images_below(class_folder, top)
    if not images:
        endings = ", ".join(ending[1:] for ending in IMAGE_ENDINGS)
        raise BenchmarkError(f"{class_folder} is a class without an image ({endings}); remove it or fill it")
    return images


def _notes_on_folders(classes: Sequence[Path]) -> list[str]:
    """A note if all folders of `classes` hold folders of the same names; else none."""
    alike = _common_folders(classes)
    if not alike:
        return []
    return [
        f"All classes ({', '.join(folder.name for folder in classes[:MAX_NAMED])}) hold folders of the same names "
        f"({', '.join(alike[:MAX_NAMED])}). If those are the classes and these are splits, call the splits "
        f"{', '.join(SPLITS)}, or give a CSV."
    ]


def _common_folders(folders: Sequence[Path]) -> list[str]:
    """Names of the folders that each of several `folders` holds, if all hold the same and at least two."""
    names = [sorted(inner.name for inner in _folders(folder)) for folder in folders]
    are_alike = len(names) > 1 and all(others == names[0] for others in names)
    return names[0] if are_alike and len(names[0]) > 1 else []


def _folders(folder: Path) -> list[Path]:
    """Folders within a folder, by name."""
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _require_folders(places: Iterable[Path]) -> None:
    """Check what lies beside the folders of classes, and of splits.

    Raises:
        BenchmarkError: an image, or a broken link that may have led to a class.
    """
    beside = sorted(file for place in places for file in place.iterdir() if not file.is_dir())
    for file in beside:
        if _is_image_name(file):
            raise BenchmarkError(f"{file} is an image outside the folders of classes; move it into one of them")
        if _may_be_image(file):
            raise BenchmarkError(f"{file} is a broken link; if it is a class, restore it, else remove it")


def _images_below(folder: Path, top: Path) -> list[Path]:
    """Image files at any depth, by path; through links to folders too (decision 0039), each real folder once.

    What only has the name of an image is one of them, so that it is left out by name when it is read: a pipe, a broken
    link, or a folder without an image in it. A broken link without an ending may have led to a folder of images.

    Raises:
        BenchmarkError: a folder cannot be listed. A link leads to the system's folders, or to one that the benchmark
            `top` lies in.
    """
    images: list[Path] = []
    shown: list[Path] = []
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_raise_unlisted, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        if leads_out(real, top):
            raise BenchmarkError(f"{parent} leads to {real}, which is not looked through for images; remove the link")
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown += [Path(parent, name) for name in folders]
        images += [file for name in names if _may_be_image(file := Path(parent, name))]
    return sorted([*images, *_without_images(filter(_is_image_name, shown), images)])


def _without_images(folders: Iterable[Path], images: Iterable[Path]) -> list[Path]:
    """Those of the folders that no image lies in, at any depth."""
    holding = {place for parent in {image.parent for image in images} for place in (parent, *parent.parents)}
    return [folder for folder in folders if folder not in holding]


def _raise_unlisted(error: OSError) -> None:
    raise BenchmarkError(f"{error.filename}: the folder cannot be listed ({error.strerror})") from None


def _may_be_image(file: Path) -> bool:
    return _is_image_name(file) or (not file.suffix and not file.name.startswith(".") and _is_broken_link(file))


def _is_image_name(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
