"""Which feature file is of which slide of a table: by name, and by path where names are not enough.

A cell names a slide, its file or a feature file, with folders before it or not. Of a folder of feature files, one
belongs to it if its path ends as the cell does, or the cell as its path: `sub/s1` is `sub/s1.h5`, and `s1.h5` of a
folder without subfolders, but never `other/s1.h5`. Where several files could be meant, none is taken, and the reason is
kept. A table of cases knows slides by their files' names only; of those that several files have, none is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from pipeline.cohort.walk import SLIDE_SUFFIXES
from pipeline.disk.tables import composed
from pipeline.features.files import FEATURE_SUFFIXES
from pipeline.features.folders import find_feature_tree

HERE = "./"
"""Before a name: the file right in the folder, not one of that name in a subfolder."""
Parts = tuple[str, ...]


@dataclass(frozen=True)
class FeatureTree:
    """The feature files of one model by their names without ending, each with its path below the folder in parts; both
    with their accents composed.
    """

    by_name: Mapping[str, Sequence[tuple[Parts, Path]]]

    def __len__(self) -> int:
        return sum(map(len, self.by_name.values()))

    def files_of(self, cell: str) -> list[tuple[Parts, Path]]:
        """The files that a cell may mean."""
        name = PurePosixPath(composed(cell))
        known = name.suffix.lower() in (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES)
        for last in (name.name, *([name.stem] if known else [])):
            parts = (*name.parts[:-1], last)
            found = [(of_file, path) for of_file, path in self.by_name.get(last, []) if _is_end(parts, of_file)]
            exact = [one for one in found if one[0] == parts]
            if exact and (len(parts) > 1 or cell.startswith(HERE)):
                return exact
            written = [one for one in found if _spelled(one[1]) == _spelled(PurePosixPath(cell))]
            if found:
                return written if len(written) == 1 else found
        return []


@dataclass(frozen=True)
class SlideFiles:
    """Feature files by slide.

    Attributes:
        ids: the slide's id for each cell of the table, in their order; none for a table of cases.
        files: by the models' labels, the file of each slide.
        names: all slides, of a table of cases those that the folders have.
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
    trees = {}
    for model, folder in features:
        files, root = find_feature_tree(folder)
        by_name: dict[str, list[tuple[Parts, Path]]] = {}
        for path in sorted(files.values()):
            parts = tuple(composed(part) for part in path.relative_to(root).with_suffix("").parts)
            by_name.setdefault(parts[-1], []).append((parts, path))
        trees[model] = FeatureTree(by_name)
    return trees


def files_of_slides(cells: Sequence[str], trees: Mapping[str, FeatureTree]) -> SlideFiles:
    """The files of the slides that the `cells` of a table name."""
    meant = [{model: tree.files_of(cell) for model, tree in trees.items()} for cell in cells]
    ids = tuple(_id_of(cell, of_models, trees) for cell, of_models in zip(cells, meant, strict=True))
    files: dict[str, dict[str, Path]] = {model: {} for model in trees}
    unclear: dict[str, str] = {}
    for model in trees:
        users: dict[Path, set[str]] = {}
        for slide, of_models in zip(ids, meant, strict=True):
            if len(of_models[model]) == 1:
                users.setdefault(of_models[model][0][1], set()).add(slide)
        for slide, of_models in zip(ids, meant, strict=True):
            paths = [path for _, path in of_models[model]]
            others = sorted({other for path in paths for other in users.get(path, ())} - {slide})
            if len(paths) > 1:
                unclear[slide] = f"{_listed(paths)} of {model} could be meant; give the path below the folder"
            elif others:
                unclear[slide] = f"{_listed(paths)} of {model} could be of {', '.join(others)} as well"
            elif paths:
                files[model][slide] = paths[0]
    return SlideFiles(ids, files, frozenset(ids), unclear, {model: len(tree) for model, tree in trees.items()})


def files_by_name(trees: Mapping[str, FeatureTree]) -> SlideFiles:
    """All slides that the folders have, for a table of cases."""
    files: dict[str, dict[str, Path]] = {model: {} for model in trees}
    unclear: dict[str, str] = {}
    for model, tree in trees.items():
        for name, found in tree.by_name.items():
            if len(found) > 1:
                paths = [path for _, path in found]
                unclear[name] = f"{_listed(paths)} of {model} have one name; a column slide_id with the path tells them"
            else:
                files[model][name] = found[0][1]
    names = frozenset(name for tree in trees.values() for name in tree.by_name)
    return SlideFiles((), files, names, unclear, {model: len(tree) for model, tree in trees.items()})


def _spelled(path: PurePath) -> str:
    """A path's name as it is written, without its ending."""
    return path.stem if path.suffix.lower() in (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES) else path.name


def _is_end(first: Parts, second: Parts) -> bool:
    """Whether one path is the end of the other."""
    length = min(len(first), len(second))
    return first[-length:] == second[-length:]


def _id_of(cell: str, meant: Mapping[str, Sequence[tuple[Parts, Path]]], trees: Mapping[str, FeatureTree]) -> str:
    """The id of the slide of a cell: the file's name, with the folders where several files have that name."""
    found = [parts for of_model in meant.values() if len(of_model) == 1 for parts, _ in of_model]
    if not found:
        return cell
    longest = max(found, key=len)
    alone = all(len(tree.by_name.get(longest[-1], [])) < 2 for tree in trees.values())
    if alone:
        return longest[-1]
    return "/".join(longest) if len(longest) > 1 else HERE + longest[0]


def _listed(paths: Iterable[Path]) -> str:
    return " and ".join(map(str, paths))
