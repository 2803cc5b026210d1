"""What G2L needs to know of a tool's feature files: where they are, how they are read, what they say of their patches,
and how they are written.

A tool is one module with a `TOOL` and one line in `config.feature_tools`. `find`, `read`, `match` and `layouts` ask
every tool and know none by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.groups import Resampling
from pipeline.features.files import HDF5_SUFFIXES, read_attributes, read_dataset_attributes
from pipeline.features.layouts import Writer
from pipeline.slides.geometry import PILLOW

UNKNOWN = "unknown"
HALF_PIXEL = 0.5
LENGTH_ROUNDING = 1e-6
"""A whole number within half a pixel of a length, and this, may be its rounding."""
COORDS = "coords"
"""The dataset of coordinates, which all tools with HDF5 files call so."""


@dataclass(frozen=True, eq=False)
class RawFeatures:
    """Features as they stand in a file, unchecked.

    Attributes:
        values: should be (N, D), or (1, N, D).
        coords: should be (N, 2), (x, y) in the tool's unit; `None` where the file has none.
        encoder: the encoder's name, as it is written; `None` where it is not.
        mark: the text of the mark of `g2l embed`, as it is written; `None` of a file that something else made.
    """

    values: NDArray[Any]
    coords: NDArray[Any] | None = None
    encoder: Any = None
    mark: Any = None


@dataclass(frozen=True, eq=False)
class PatchFacts:
    """What a tool says of the patches of one slide; `None` where it does not.

    Attributes:
        layout: the tool's name in lower case, or `UNKNOWN`.
        patch_px: side in pixels as the tool cut or resampled it, before the encoder's own resizing.
        side_l0_px, side_um: side in level-0 pixels, or in um: one of them.
        unit_l0_px: level-0 pixels that `side_l0_px` is a whole number of; 0 where it is not rounded.
        nominal_um: side in um that was asked for, of which `side_l0_px` may be the rounding.
        size_l0_px: (width, height) of the slide's level 0.
        level, downsample: the level that was read, and its level-0 pixels a pixel.
        in_um: whether coordinates are in um; else in level-0 pixels.
        coords: (N, 2), where they are not in the file of features.
        resampling: who reduced the patches. `g2l embed` says so in its mark; Pillow for the tools' own files.
    """

    layout: str = UNKNOWN
    patch_px: float | None = None
    side_l0_px: float | None = None
    side_um: float | None = None
    unit_l0_px: float = 1.0
    nominal_um: float | None = None
    size_l0_px: tuple[int, int] | None = None
    level: int | None = None
    downsample: float | None = None
    in_um: bool = False
    coords: NDArray[Any] | None = None
    resampling: Resampling = PILLOW

    @property
    def is_known(self) -> bool:
        """Whether the side of a patch is known."""
        return self.side_l0_px is not None or self.side_um is not None

    def side(self, slide_mpp: float, asked_um: float | None = None) -> float:
        """Side of a patch in level-0 pixels of a slide of `slide_mpp` um/px; not rounded.

        `asked_um` stands in for `nominal_um` where the tool does not say it.
        """
        assert self.is_known
        if self.side_um is not None:
            return self.side_um / slide_mpp
        assert self.side_l0_px is not None
        nominal = (self.nominal_um or asked_um or 0.0) / slide_mpp
        return nominal if rounds_to(nominal, self.side_l0_px, self.unit_l0_px) else self.side_l0_px


class FeatureFile:
    """A feature file and the attributes that describe it, each read once.

    `coords_path` is the HDF5 file of its coordinates, where they lie apart from it.
    """

    def __init__(self, path: Path, coords_path: Path | None = None) -> None:
        self.path, self.coords_path = path, coords_path
        self._attributes: dict[str, dict[str, Any] | None] = {}

    def file_attributes(self) -> dict[str, Any]:
        """Attributes of the HDF5 file itself; empty for a file of another format.

        Raises:
            Exception: any, of a file that cannot be read.
        """
        return self.attributes("") or {}

    def attributes(self, dataset: str) -> dict[str, Any] | None:
        """Attributes of a dataset of the HDF5 file; `None` if it has no such dataset, or is of another format.

        Raises:
            Exception: any, of a file that cannot be read.
        """
        if dataset not in self._attributes:
            is_hdf5 = self.path.suffix in HDF5_SUFFIXES
            self._attributes |= read_dataset_attributes(self.path, dataset) if is_hdf5 else {dataset: None}
        return self._attributes[dataset]

    def coords_attributes(self) -> dict[str, Any]:
        """Attributes of the coordinates, in this file or apart from it; empty without coordinates.

        Raises:
            Exception: any, of a file that cannot be read.
        """
        if self.coords_path is not None:
            return read_attributes(self.coords_path).get(COORDS, {})
        return self.attributes(COORDS) or {}


@dataclass(frozen=True)
class FileTree:
    """How the files of a tool that keeps the slides' subfolders are found.

    Attributes:
        holds: whether these files of one folder are the tool's.
        find: the tool's files below a folder, sorted, with what lies between them and is damaged; and the folder that
            the slides' subfolders hang below. No files if all lie right in the folder. Its second argument is what
            errors put before the folder's name. Raises `BenchmarkError` where several trees could be meant.
    """

    holds: Callable[[Sequence[Path]], bool]
    find: Callable[[Path, str], tuple[list[Path], Path]]


@dataclass(frozen=True)
class Tool:
    """A tool's file layout.

    Attributes:
        name: the tool, as its makers spell it.
        suffixes: endings of its feature files.
        read: the features of a file; `None` if it is not one of the tool's. Called within `outside.reading`, for files
            of these endings.
        facts: what the file, or what lies beside it, says of its patches; `None` if it says nothing as this tool does.
            Called within `outside.reading`, for any feature file.
        folders: names (patterns) of the folders of features that it makes. Of several groups, the first with feature
            files is read: the others are duplicates.
        tree: for a tool that keeps the slides' subfolders.
        not_features: endings of files that only look like feature files by their last suffix.
        coords_files: where HDF5 files with the coordinates of a feature file may lie, likely ones first; the folder is
            the one that the user names for it.
        dropped_endings: further endings that it strips from a slide's name, besides the last one.
        writer: how `g2l embed` writes its files; `None` if it does not.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[FeatureFile], RawFeatures | None]
    facts: Callable[[FeatureFile], PatchFacts | None]
    folders: tuple[tuple[str, ...], ...] = ()
    tree: FileTree | None = None
    not_features: tuple[str, ...] = ()
    coords_files: Callable[[Path, Path | None], list[Path]] | None = None
    dropped_endings: tuple[str, ...] = ()
    writer: Writer | None = None


def rounds_to(length: float, whole: float, unit: float) -> bool:
    """Whether `whole`, a whole number of units, may be the rounding of a length; all in level-0 pixels."""
    return abs(length - whole) <= HALF_PIXEL * unit + LENGTH_ROUNDING


def number(attributes: dict[str, Any], name: str) -> float | None:
    """An attribute as a number: a pair, as for x and y, as its mean; `None` where it is missing or empty."""
    value = attributes.get(name)
    return None if value is None or not np.size(value) else float(np.mean(value))


def files_apart(features: Path, folder: Path | None, subfolder: str, name: str) -> list[Path]:
    """Where a file that goes with a feature file may lie: in `folder`, else in the subfolder of that name beside the
    features' folder, or in it.
    """
    folders = [folder] if folder else [features.parent.parent / subfolder, features.parent / subfolder]
    return [place / name for place in folders]
