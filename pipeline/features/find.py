"""Find feature files: one file a slide, below the folder that the user names.

Tools make folders of known names, or keep the slides' subfolders and say in each file that it is theirs. Nothing is
guessed: what could be meant in two ways is refused with all names.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.base.errors import BenchmarkError
from pipeline.cohort.barcodes import without_uuid
from pipeline.disk.tables import composed
from pipeline.features.registry import all_tools, feature_suffixes
from pipeline.features.tool import Tool

Parts = tuple[str, ...]
"""A path below a folder, without its ending: folders, then the name; accents are composed."""


@dataclass(frozen=True)
class FeatureTree:
    """The feature files of one folder.

    Attributes:
        root: the folder that they lie below: the extractor's, of a tool that keeps the slides' subfolders.
        files: by slide id, sorted. An id is the file's name without its ending or, of several files of one name, the
            path below `root` without it, `sub/slide` and `./slide`.
    """

    root: Path
    files: Mapping[str, Path]

    def __len__(self) -> int:
        return len(self.files)

    def parts(self, path: Path) -> Parts:
        """The path of one of the files below `root`."""
        return tuple(composed(part) for part in Path(os.path.relpath(path.with_suffix(""), self.root)).parts)

    @cached_property
    def by_name(self) -> Mapping[str, Sequence[tuple[Parts, Path]]]:
        """The files by their names without ending, each with its path below `root`."""
        files: dict[str, list[tuple[Parts, Path]]] = {}
        for path in sorted(self.files.values()):
            parts = self.parts(path)
            files.setdefault(parts[-1], []).append((parts, path))
        return files

    @cached_property
    def by_barcode(self) -> Mapping[str, Sequence[tuple[Parts, Path]]]:
        """Of `by_name`, the files whose names end with the GDC's UUID, by the names without it."""
        files: dict[str, list[tuple[Parts, Path]]] = {}
        for name, same_name in self.by_name.items():
            if (barcode := without_uuid(name)) != name:
                files.setdefault(barcode, []).extend(same_name)
        return files


def is_end(first: Parts, second: Parts) -> bool:
    """Whether one path is the end of the other."""
    length = min(len(first), len(second))
    return first[-length:] == second[-length:]


def find_feature_tree(folder: Path, option: str = "--features ") -> FeatureTree:
    """The feature file of every slide below `folder`.

    The files lie in `folder` itself or, if it has none, in one of the folders that tools make below it; those of a tool
    that keeps the slides' subfolders in any of them. `option` is what errors call the folder by.

    Raises:
        BenchmarkError: no such folder, no feature files, several folders that could be meant (all are named), or the
            same slide in two files of one folder.
    """
    if not os.path.isdir(folder):
        raise BenchmarkError(f"{option}{folder}: no such folder")
    if right_in := _feature_files(folder):
        tool = _tree_tool([right_in])
        below = tool.tree.find(folder, option)[0] if tool and tool.tree else []
        return _tree_of(sorted({*right_in, *below}), folder)
    tree = _in_known_folders(folder, option)
    return _anywhere_below(folder, option) if tree is None else tree


def _in_known_folders(folder: Path, option: str) -> FeatureTree | None:
    """The feature files in a folder that a tool has made below `folder`; `None` if there is no such folder.

    Raises:
        BenchmarkError: several folders could be meant.
    """
    holding = {place: paths for tool in all_tools() for place, paths in _known_folders(tool, folder).items()}
    if holding and (tool := _tree_tool(list(holding.values()))) and tool.tree:
        below, root = tool.tree.find(folder, option)
        return _tree_of(sorted({*(path for paths in holding.values() for path in paths), *below}), root)
    if len(holding) > 1:
        names = "\n".join(f"  {place}" for place in sorted(holding))
        raise BenchmarkError(f"{option}{folder}: several folders with features; name one of them:\n{names}")
    return find_feature_tree(next(iter(holding)), option) if holding else None


def _anywhere_below(folder: Path, option: str) -> FeatureTree:
    """The feature files of a tool that keeps the slides' subfolders, anywhere below `folder`.

    Raises:
        BenchmarkError: there are none.
    """
    for tool in all_tools():
        below, root = tool.tree.find(folder, option) if tool.tree else ([], folder)
        if below:
            return _tree_of(below, root)
    raise BenchmarkError(_nothing_found(folder, option))


def _feature_files(folder: Path) -> list[Path]:
    """Feature files right below `folder`, sorted; none if it is no folder."""
    no_features = tuple(ending for tool in all_tools() for ending in tool.not_features)
    suffixes = feature_suffixes()
    return sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix in suffixes and not path.name.startswith(".") and not path.name.endswith(no_features)
    )


def _known_folders(tool: Tool, folder: Path) -> dict[Path, list[Path]]:
    """The folders of features that a tool has made below `folder`, with their files."""
    for patterns in tool.folders:
        places = (place for pattern in patterns for place in sorted(folder.glob(pattern)))
        if holding := {place: paths for place in places if (paths := _feature_files(place))}:
            return holding
    return {}


def _tree_tool(folders: Sequence[Sequence[Path]]) -> Tool | None:
    """The tool that keeps the slides' subfolders and that the files of all these folders are of."""
    return next((tool for tool in all_tools() if tool.tree and all(map(tool.tree.holds, folders))), None)


def _tree_of(paths: Sequence[Path], root: Path) -> FeatureTree:
    """Files by slide id; `root` is what they lie below.

    Raises:
        BenchmarkError: the same slide twice in one folder.
    """
    files: dict[str, Path] = {}
    times = Counter(path.stem for path in paths)
    for path in paths:
        parent = os.path.relpath(path.parent, root)
        name = f"{parent}/{path.stem}" if times[path.stem] > 1 else path.stem
        if name in files:
            raise BenchmarkError(f"two feature files for slide {path.stem}: {files[name]} and {path}. Remove one")
        files[name] = path
    return FeatureTree(root, dict(sorted(files.items())))


def _nothing_found(folder: Path, option: str) -> str:
    """Where feature files have been looked for, in words."""
    names = [pattern for tool in all_tools() for patterns in tool.folders for pattern in patterns]
    trees = "".join(f", nor {tool.name}'s anywhere below it" for tool in all_tools() if tool.tree)
    return (
        f"{option}{folder}: no feature files ({', '.join(feature_suffixes())}) in it, nor in {', '.join(names)} below "
        f"it{trees}"
    )
