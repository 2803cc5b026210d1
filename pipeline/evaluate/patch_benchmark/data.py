"""Read which image files a patch benchmark has, and the class, case, centre and split of each.

They come as a CSV (`path,label` and optionally a group, `center`, `split`) or as a folder with a folder of images for
each class (`class_folders`). A row whose label is a word for a missing value, as pandas writes it,
is left out and listed. Left out: whether the images can be read; `evaluate.images` looks through them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.disk.file_names import file_named
from pipeline.disk.files import sha256_json
from pipeline.disk.label_words import cell_value, is_unknown, missing_notes, spelling_notes
from pipeline.disk.tables import Problem, Record, alike_columns, read_table, refuse, unused_columns_note
from pipeline.evaluate.folds import SPLITS
from pipeline.evaluate.groups import (
    GROUP_COLUMNS,
    GROUP_WORDS,
    Grouping,
    coarsest,
    groups_in_several_centers_note,
    parted_patients_note,
)
from pipeline.evaluate.images import path_problems, require_images_root
from pipeline.evaluate.patch_benchmark.class_folders import list_patches
from pipeline.report.content import Exclusion

REQUIRED_COLUMNS = ("path", "label")
CENTER_COLUMNS = ("center", "centre", "medical_center")
"""Columns that may say where a patch comes from; the first of them that the file has counts."""

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
        within: what the groups hold, such as slides of a case, by what they are called in the plural; each (N,), ""
            where the file gives none.
        centers: medical centre of each, (N,), "" where the file gives none; or `None`.
        splits: train, val or test of each, (N,), or `None`.
        exclusions: rows of the file that are left out, and why.
        unused_columns: columns of the file that mean nothing here.
        note_on_groups: why the groups are of another column than a reader would expect, or "".
        notes_on_names: what is odd about its labels or the names of its folders.
        pictures: (N,), the same number for patches of the same pixels, -1 for those of one colour throughout; `None`
            until the images have been looked through (`copies`).
        notes_on_pictures: what the reader must know of copies among them.
    """

    name: str
    source: Path
    paths: list[Path]
    labels: Names
    groups: Names | None = None
    group_column: str = ""
    centers: Names | None = None
    splits: Names | None = None
    exclusions: tuple[Exclusion, ...] = ()
    unused_columns: tuple[str, ...] = ()
    within: Mapping[str, Names] = field(default_factory=dict)
    note_on_groups: str = ""
    notes_on_names: tuple[str, ...] = ()
    pictures: NDArray[np.int64] | None = None
    notes_on_pictures: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def groups_or_own(self) -> Names:
        """The groups; where none are known, each patch is one of its own, but copies of a picture are together."""
        if self.groups is not None:
            return self.groups
        own = np.arange(len(self))
        if self.pictures is not None:
            first, inverse = np.unique(self.pictures, return_index=True, return_inverse=True)[1:]
            own = np.where(self.pictures >= 0, first[inverse], own)
        return np.array([f"{i:09d}" for i in own])

    def select(self, indices: NDArray[np.int64]) -> "PatchSet":
        """The patches at `indices`, in that order."""

        def of(names: Names | None) -> Names | None:
            return None if names is None else names[indices]

        return replace(
            self,
            paths=[self.paths[i] for i in indices],
            labels=self.labels[indices],
            groups=of(self.groups),
            centers=of(self.centers),
            splits=of(self.splits),
            within={words: names[indices] for words, names in self.within.items()},
            pictures=None if self.pictures is None else self.pictures[indices],
        )

    def warnings(self) -> list[str]:
        """What the user must know before anything is computed, each with the name of the file."""
        warnings = []
        if self.exclusions:
            left_out = counted(len(self.exclusions), "patch", "patches")
            warnings.append(f"left out for want of a label: {left_out}; the report lists them")
        return [f"{self.source}: {note}" for note in (*warnings, *self.notes())]

    def notes(self) -> list[str]:
        """What a reader of the scores must know about the patches."""
        notes = []
        if self.groups is None:
            notes.append(
                "The data do not say which patches belong together: folds and intervals take every patch for "
                "independent. If patches of one case are on both sides, all scores are too high and all intervals too "
                "narrow."
            )
        elif parted := parted_patients_note(
            self.groups.tolist(), self._names_of_slides(), GROUP_WORDS[self.group_column]
        ):
            notes.append(parted)
        elif self.group_column == "slide_id":
            notes.append(
                "Patches are kept together by slide only. A patient may have several slides, which then stand on both "
                "sides, so that scores are too high and intervals too narrow; a column case_id or patient fixes it."
            )
        notes += [*filter(None, [self.note_on_groups]), *self.notes_on_names]
        for what, names in (
            ("labels", self.labels),
            (GROUP_WORDS[self.group_column], self.groups),
            ("centres", self.centers),
        ):
            notes += [] if names is None else spelling_notes(what, names)
        if self.centers is not None and (missing := int((self.centers == "").sum())):
            notes.append(f"{missing:,} of {len(self):,} patches have no centre; no centre's numbers count them.")
        if self.centers is not None and self.groups is not None:
            word = GROUP_WORDS[self.group_column]
            notes += filter(None, [groups_in_several_centers_note(self.groups.tolist(), self.centers.tolist(), word)])
        return [*notes, *self.notes_on_pictures, *filter(None, [unused_columns_note(self.unused_columns)])]

    def _names_of_slides(self) -> list[str]:
        """The slide of each patch, or its file where the data name none."""
        slides = self.within.get(GROUP_WORDS["slide_id"])
        return [path.name for path in self.paths] if slides is None else slides.tolist()

    def hash(self) -> str:
        """Hex SHA-256 of the images' names, classes, groups, centres and splits; not of the pixels."""
        columns = (self.labels, self.groups, self.centers, self.splits)
        lists = [None if column is None else column.tolist() for column in columns]
        return sha256_json([[path.name for path in self.paths], *lists])


def read_patch_set(path: Path, images_root: Path | None = None) -> PatchSet:
    """Read a CSV or a folder of images.

    A CSV's relative paths hang below `images_root`, or below the CSV's folder. A folder holds CLASS/IMAGE, or
    SPLIT/CLASS/IMAGE if its folders are called train, val or test, in capitals or not; a class may have folders within.
    Names that start with a dot are passed over.

    Raises:
        BenchmarkError: there is no such file or folder, a column or a cell is missing, a path is given twice, or there
            are no patches; all lines that are wrong are named.
    """
    return _read_folder(path) if path.is_dir() else _read_csv(path, images_root)


def _read_csv(path: Path, images_root: Path | None) -> PatchSet:
    """The patches of a CSV.

    Raises:
        BenchmarkError: see `read_patch_set`.
    """
    require_images_root(images_root)
    try:
        records, problems = read_table(path, REQUIRED_COLUMNS, ",")
        return _from_records(path, images_root or path.parent, records, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None


def _from_records(path: Path, root: Path, records: Sequence[Record], problems: list[Problem]) -> PatchSet:
    """The patches of a table, whose relative paths hang below `root`.

    Raises:
        ManifestError: something is wrong; lists all of it.
    """
    header = list(records[0][1]) if records else []
    lines = [(line, _plain_cells(cells)) for line, cells in records]
    labelled = [cells for _, cells in lines if not is_unknown(cells["label"])]
    columns = _find_columns(path, [name.lower() for name in header], labelled)
    problems += alike_columns(header)
    problems += [p for line, cells in lines for p in _problems(line, cells, columns.group, columns.split)]
    problems += [*path_problems(root, lines), *_listed_twice(root, lines)]
    refuse(path, problems)
    if not labelled:
        raise ManifestError(f"{path}: none of its {len(lines)} rows has a label; fill in the column label")
    return PatchSet(
        name=path.stem,
        source=path,
        paths=[file_named(root / cells["path"]) for cells in labelled],
        labels=np.array([cells["label"] for cells in labelled]),
        groups=_column(labelled, columns.group),
        group_column=columns.group,
        centers=_centers(labelled, columns.center),
        splits=_column(labelled, columns.split),
        exclusions=_unlabelled(lines),
        unused_columns=columns.unused(header),
        within=_within(columns.group_cells, columns.group),
        note_on_groups=columns.note_on_groups,
        notes_on_names=tuple(missing_notes("label", (cells["label"] for _, cells in lines))),
    )


@dataclass(frozen=True)
class _Columns:
    """The columns of a table that have a meaning, by their names in small letters; "" of none.

    Attributes:
        group: the column that names the groups.
        split, center: those of splits and centres.
        group_cells: cells of the labelled rows in all columns that may name groups.
        note_on_groups: why the groups are of another column than a reader would expect, or "".
    """

    group: str
    split: str
    center: str
    group_cells: Mapping[str, Sequence[str]]
    note_on_groups: str

    def unused(self, header: Sequence[str]) -> tuple[str, ...]:
        """Columns of the `header` that mean nothing here."""
        with_cells = {name for name, cells in self.group_cells.items() if any(cells)}
        used = {*REQUIRED_COLUMNS, self.group, self.center, self.split} | with_cells
        return tuple(name for name in header if name.lower() not in used)


def _find_columns(path: Path, names: Sequence[str], labelled: Sequence[dict[str, str]]) -> _Columns:
    """Which of the columns `names` mean what; gaps of the groups' column in the `labelled` rows are filled.

    Raises:
        ManifestError: columns of groups contradict each other.
    """
    group_cells = {name: [cell_value(cells[name]) for cells in labelled] for name in GROUP_COLUMNS if name in names}
    grouping = _group_by(path, group_cells, labelled)
    center = next((name for name in CENTER_COLUMNS if name in names), "")
    return _Columns(grouping.column, "split" if "split" in names else "", center, group_cells, grouping.note)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> Names | None:
    """The cells of a column, (N,); `None` without a name."""
    return np.array([cells[name] for cells in rows]) if name else None


def _centers(rows: Sequence[Mapping[str, str]], name: str) -> Names | None:
    """The centre of each row, (N,), "" where none is given; `None` where no row gives one."""
    centers = np.array([cell_value(cells[name]) for cells in rows]) if name else None
    return centers if centers is not None and centers.any() else None


def _plain_cells(cells: Mapping[str, str]) -> dict[str, str]:
    """A row's cells without blanks around them, by the columns' names in small letters; a split in small letters."""
    plain = {name.lower(): cell.strip() for name, cell in cells.items()}
    return plain | ({"split": cell_value(plain["split"]).lower()} if "split" in plain else {})


def _group_by(path: Path, group_cells: Mapping[str, Sequence[str]], labelled: Sequence[dict[str, str]]) -> Grouping:
    """The groups of the `labelled` rows; gaps in the column that names them are filled from the other columns.

    Raises:
        ManifestError: the columns contradict each other.
    """
    try:
        grouping = coarsest(group_cells)
    except BenchmarkError as error:
        raise ManifestError(f"{path}: {error}") from None
    if grouping.column:
        for cells, name in zip(labelled, grouping.names, strict=True):
            cells[grouping.column] = name or cells[grouping.column]
    return grouping


def _within(group_cells: Mapping[str, Sequence[str]], group: str) -> dict[str, Names]:
    """What the groups hold, such as slides of a case, by what they are called in the plural."""
    return {
        GROUP_WORDS[name]: np.array(cells)
        for name, cells in group_cells.items()
        if GROUP_WORDS[name] != GROUP_WORDS[group] and any(cells)
    }


def _unlabelled(lines: Sequence[Record]) -> tuple[Exclusion, ...]:
    """The rows without a label."""
    return tuple(
        Exclusion(cells["path"], f"label is {cells['label']!r}: no label (line {line})", by_rule=True)
        for line, cells in lines
        if is_unknown(cells["label"])
    )


def _listed_twice(root: Path, lines: Sequence[Record]) -> list[Problem]:
    """Files that an earlier line lists as well."""
    problems: list[Problem] = []
    first_line: dict[str, int] = {}
    for line, cells in lines:
        name = cells["path"]
        file = os.path.abspath(file_named(root / name))
        if name and (first := first_line.setdefault(file, line)) != line:
            problems.append((line, f"path {name!r} is on line {first} as well; keep one of them"))
    return problems


def _problems(line: int, cells: Mapping[str, str], group: str, split: str) -> list[Problem]:
    """What is wrong with one row; `group` and `split` are columns, "" for none. A row without a label needs neither."""
    problems = []
    if is_unknown(cells["path"]):
        what = f"is {cells['path']!r}, which stands for a missing value" if cells["path"] else "is empty"
        problems.append((line, f"path {what}; fill it in on every line"))
    if is_unknown(cells["label"]):
        return problems
    fix = "fill it in on every line, or leave the column out"
    if group and not cells[group]:
        problems.append((line, f"{group} is empty; {fix}"))
    elif group and is_unknown(cells[group]):
        problems.append((line, f"{group} is {cells[group]!r}, which stands for a missing value; {fix}"))
    if split and not cells[split]:
        problems.append((line, f"{split} is empty; {fix}"))
    elif split and cells[split] not in SPLITS:
        problems.append((line, f"split {cells[split]!r} is not one of {', '.join(SPLITS)}"))
    return problems


def _read_folder(folder: Path) -> PatchSet:
    """The patches of a folder of classes, or of splits of classes.

    Raises:
        BenchmarkError: see `class_folders.list_patches`.
    """
    listed = list_patches(folder)
    return PatchSet(
        os.path.basename(os.path.realpath(folder)),
        folder,
        listed.paths,
        np.array(listed.labels),
        splits=None if listed.splits is None else np.array(listed.splits),
        notes_on_names=listed.notes,
    )
