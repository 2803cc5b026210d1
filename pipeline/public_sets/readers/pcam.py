"""Read PatchCamelyon (PCam): patches of 96 px of lymph nodes, in HDF5.

`camelyonpatch_level_2_split_SPLIT_x.h5` has the pixels `x`, uint8 (N, 96, 96, 3), `..._y.h5` the labels `y`, (N, 1, 1,
1), and `..._meta.csv` the slide `wsi` of each; SPLIT is train, valid or test. The patches are written as PNG: about
7 GB for all 327,680. The names of test slides do not tell their centre, so that there is none.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base.console import Progress
from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import read_bytes, reading
from pipeline.disk import hdf5_input
from pipeline.disk.label_words import is_unknown
from pipeline.public_sets.cut_images import Picture, write_pictures
from pipeline.public_sets.members import Members, Row, first_folder, require_members
from pipeline.report.content import Exclusion

STEM = "camelyonpatch_level_2_split_{split}_{part}"
FILE_SPLITS = {"train": "train", "valid": "val", "test": "test"}
"""Words of the file names, and of our tables."""
LABEL_OF_Y = ("no tumour", "tumour")
"""Whether the central 32 px have tumour."""
PATCH_SHAPE = (96, 96, 3)
"""Of the pixels of a patch."""
PART_BYTES = 1 << 25
"""Bytes of patches that are read together: 32 MiB, our choice."""
FIX = "Get the file again, and unpack it (.h5, not .h5.gz)"


def read_members(root: Path, images: Path, _options: Mapping[str, str]) -> Members:
    """The patches: label, slide and split.

    Raises:
        BenchmarkError: a file is missing or damaged, or files disagree.
    """
    folder = first_folder(root, (".",), "PCam")
    num_pictures = {}
    for word in FILE_SPLITS:
        with _split_pixels(folder, word) as values:
            num_pictures[word] = len(values)
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for word, split in FILE_SPLITS.items():
        labels, slides = _labels(folder, word), _slides(folder, word)
        if num_pictures[word] != len(labels):
            path = folder / STEM.format(split=word, part="x.h5")
            raise BenchmarkError(f"{path} has {num_pictures[word]:,} patches, its labels are {len(labels):,}. {FIX}")
        if len(labels) != len(slides):
            raise BenchmarkError(
                f"{folder}: {STEM.format(split=word, part='y.h5')} has {len(labels):,} patches and "
                f"{STEM.format(split=word, part='meta.csv')} {len(slides):,}. {FIX}"
            )
        for place, (label, slide) in enumerate(zip(labels, slides, strict=True)):
            name = picture_name(split, place)
            if label not in (0, 1) or is_unknown(slide):
                left_out.append(Exclusion(name, f"label {label} of slide {slide!r} is none that the set documents"))
            else:
                rows.append({"path": name, "label": LABEL_OF_Y[label], "slide_id": slide, "split": split})
    members = require_members(Members(tuple(rows), images, tuple(left_out)), folder, "patch of PCam")
    sources = [folder / STEM.format(split=word, part="x.h5") for word in FILE_SPLITS]
    write_pictures(images, sources, lambda: _pictures(folder, len(rows) + len(left_out)))
    return members


def picture_name(split: str, place: int) -> str:
    """Where the patch of a row of the pixels' file is written."""
    return f"{split}/{place:06d}.png"


@contextmanager
def _split_pixels(folder: Path, word: str) -> Iterator[Any]:
    """The pixels of a split, of the shape and type that the set documents; nothing of them is read yet.

    Raises:
        BenchmarkError: the file is missing or damaged, or its pixels are of another shape or type.
    """
    path = folder / STEM.format(split=word, part="x.h5")
    with reading(path, "not PCam's patches", BenchmarkError, FIX), hdf5_input.open_hdf5(path) as file:
        values = hdf5_input.dataset(file, "x")
        if values is None:
            raise BenchmarkError(f"{path} has no dataset x. {FIX}")
        if values.dtype != "uint8" or values.shape is None or values.shape[1:] != PATCH_SHAPE:
            raise BenchmarkError(f"{path}: x is {values.dtype} {values.shape}; PCam's is uint8 (N, 96, 96, 3). {FIX}")
        yield values


def _labels(folder: Path, word: str) -> list[int]:
    """The labels of a split, in the order of the file.

    Raises:
        BenchmarkError: the file is missing or damaged.
    """
    path = folder / STEM.format(split=word, part="y.h5")
    with reading(path, "not PCam's labels", BenchmarkError, FIX), hdf5_input.open_hdf5(path) as file:
        values = hdf5_input.dataset(file, "y")
        if values is None:
            raise BenchmarkError(f"{path} has no dataset y. {FIX}")
        return [int(label) for label in hdf5_input.read_values(values).reshape(len(values), -1)[:, 0]]


def _slides(folder: Path, word: str) -> list[str]:
    """The slides of a split, in the order of the file. Its first column, the row's number, has no name.

    Raises:
        BenchmarkError: the file is missing or damaged.
    """
    path = folder / STEM.format(split=word, part="meta.csv")
    with reading(path, "not PCam's table of slides", BenchmarkError, FIX):
        lines = csv.DictReader(io.StringIO(read_bytes(path).decode()))
        return [line["wsi"] or "" for line in lines]


def _pictures(folder: Path, total: int) -> Iterator[Picture]:
    """All patches, read a part at a time.

    Raises:
        BenchmarkError: a file is missing or damaged.
    """
    num_at_once = PART_BYTES // math.prod(PATCH_SHAPE)
    with Progress("writing PCam's patches as PNG", total, "patches") as progress:
        for word, split in FILE_SPLITS.items():
            with _split_pixels(folder, word) as values:
                hdf5_input.require_whole(values)
                for start in range(0, len(values), num_at_once):
                    for place, pixels in enumerate(values[start : start + num_at_once], start):
                        yield picture_name(split, place), pixels
                        progress.step()
