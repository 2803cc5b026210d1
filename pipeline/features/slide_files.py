"""Which feature file is of which slide of a table: by name, and by path where names are not enough.

A cell names a slide, its file or a feature file, with or without folders. A feature file belongs to it if its path ends
as the cell does, or the cell as its path: `sub/s1` is `sub/s1.h5`, and `s1.h5` of a folder without subfolders, but
never `other/s1.h5`. A TCGA slide may be called by its barcode or, as tools do, by the GDC's file, which has a UUID
behind it. Where several files could be meant, none is taken, and the reason is kept. A table of cases knows
slides by their files' names only; of a name that several files have, none is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from pipeline.cohort.barcodes import without_uuid
from pipeline.cohort.walk import SLIDE_SUFFIXES
from pipeline.disk.tables import composed
from pipeline.features.find import FeatureTree, Parts, find_feature_tree, is_end
from pipeline.features.registry import feature_suffixes

HERE = "./"
"""Before a name: the file right in the folder, not one of that name in a subfolder."""
Files = Sequence[tuple[Parts, Path]]
"""Feature files, each with its path below its folder."""


@dataclass(frozen=True)
class SlideFiles:
    """Feature files by slide.

    Attributes:
        ids: the slide's id for each cell of the table, in their order; none for a table of cases.
        files: by the models' labels, the file of each slide.
        names: all slides; of a table of cases, those that the folders have.
        unclear: slides for which several files could be meant, and which.
        num_files: by the models' labels, feature files in the folder.
    """

    ids: tuple[str, ...]
    files: Mapping[str, Mapping[str, Path]]
    names: frozenset[str]
    unclear: Mapping[str, str] = field(default_factory=dict)
    num_files: Mapping[str, int] = field(default_factory=dict)


def read_trees(features: Sequence[tuple[str, Path]]) -> dict[str, FeatureTree]:
    """The feature files of every model; `features` are pairs of a model's label and its folder.

    Raises:
        BenchmarkError: see `find_feature_tree`.
    """
    return {model: find_feature_tree(folder) for model, folder in features}


def files_of_slides(cells: Sequence[str], trees: Mapping[str, FeatureTree]) -> SlideFiles:
    """The files of the slides that the `cells` of a table name."""
    candidates = [{model: _files_of_cell(cell, tree) for model, tree in trees.items()} for cell in cells]
    ids = tuple(_slide_id(cell, by_model, trees) for cell, by_model in zip(cells, candidates, strict=True))
    files: dict[str, dict[str, Path]] = {}
    unclear: dict[str, str] = {}
    for model in trees:
        paths = [(slide, [path for _, path in of[model]]) for slide, of in zip(ids, candidates, strict=True)]
        files[model], reasons = _one_file_each(model, paths)
        unclear |= reasons
    return SlideFiles(ids, files, frozenset(ids), unclear, {model: len(tree) for model, tree in trees.items()})


def _one_file_each(
    model: str, candidates: Sequence[tuple[str, Sequence[Path]]]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Of the files that slides may have, those that are of one slide only; and by slide, why it has none."""
    slides_of_file: dict[Path, set[str]] = {}
    for slide, paths in candidates:
        if len(paths) == 1:
            slides_of_file.setdefault(paths[0], set()).add(slide)
    files: dict[str, Path] = {}
    unclear: dict[str, str] = {}
    for slide, paths in candidates:
        others = sorted({other for path in paths for other in slides_of_file.get(path, ())} - {slide})
        if len(paths) > 1:
            unclear[slide] = f"{_listed(paths)} of {model} could be meant; give the path below the folder"
        elif others:
            unclear[slide] = f"{_listed(paths)} of {model} could be of {', '.join(others)} as well"
        elif paths:
            files[slide] = paths[0]
    return files, unclear


def files_by_name(trees: Mapping[str, FeatureTree]) -> SlideFiles:
    """All slides that the folders have, for a table of cases."""
    files: dict[str, dict[str, Path]] = {model: {} for model in trees}
    unclear: dict[str, str] = {}
    for model, tree in trees.items():
        for name, same_name in tree.by_name.items():
            paths = [path for _, path in same_name]
            if len(paths) > 1:
                unclear[name] = f"{_listed(paths)} of {model} have one name; a column slide_id with the path tells them"
            else:
                files[model][name] = paths[0]
    names = frozenset(name for tree in trees.values() for name in tree.by_name)
    return SlideFiles((), files, names, unclear, {model: len(tree) for model, tree in trees.items()})


def _files_of_cell(cell: str, tree: FeatureTree) -> Files:
    """The files that a cell may mean."""
    path = PurePosixPath(composed(cell))
    for name in dict.fromkeys((path.name, _spelled(path))):
        parts = (*path.parts[:-1], name)
        files = [file for file in tree.by_name.get(name, []) if is_end(parts, file[0])]
        exact = [file for file in files if file[0] == parts]
        if exact and (len(parts) > 1 or cell.startswith(HERE)):
            return exact
        same_spelling = [file for file in files if _spelled(file[1]) == _spelled(PurePosixPath(cell))]
        if files:
            return same_spelling if len(same_spelling) == 1 else files
    return _files_by_barcode(path, tree)


def _files_by_barcode(path: PurePosixPath, tree: FeatureTree) -> Files:
    """The files that have the GDC's UUID behind the barcode where the cell has none, or none where the cell has it."""
    name = _spelled(path)
    barcode = without_uuid(name)
    files = tree.by_barcode.get(name, []) if barcode == name else tree.by_name.get(barcode, [])
    return [file for file in files if is_end((*path.parts[:-1], barcode), (*file[0][:-1], barcode))]


def _spelled(path: PurePath) -> str:
    """A path's name as it is written, without its ending."""
    return path.stem if path.suffix.lower() in (*SLIDE_SUFFIXES, *feature_suffixes()) else path.name


def _slide_id(cell: str, files: Mapping[str, Files], trees: Mapping[str, FeatureTree]) -> str:
    """The id of the slide of a cell, by the files of each model: the file's name, with the folders where several files
    have that name.
    """
    clear = [parts for of_model in files.values() if len(of_model) == 1 for parts, _ in of_model]
    if not clear:
        return cell
    longest = max(clear, key=len)
    if all(len(tree.by_name.get(longest[-1], [])) < 2 for tree in trees.values()):
        return longest[-1]
    return "/".join(longest) if len(longest) > 1 else HERE + longest[0]


def _listed(paths: Iterable[Path]) -> str:
    return " and ".join(map(str, paths))
