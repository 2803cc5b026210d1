"""Where tools put their feature files: one file a slide, found below the folder that the user names.

TRIDENT, CLAM and slide2vec make folders of known names. STAMP writes `{extractor}-{hash}/`, or `{extractor}/`, and in
it the subfolders of the slides (`src/stamp/preprocessing/__init__.py`, read in 2026-11). Its files say that they are
STAMP's: such a tree is read whole, also where its subfolders have names that other tools give and through links to
folders, and nothing else is taken for one. Nothing is guessed: what could be meant in two ways is refused with all
names. What it leaves out: STAMP's embeddings of whole slides.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import BenchmarkError
from pipeline.features.files import FEATURE_SUFFIXES, NO_FEATURES, read_attributes

FEATURE_FOLDERS = ("h5_files", "tile_embeddings", "features_*", "*_overlap/features_*")
"""Folders that tools make below the one that the user names: CLAM, slide2vec, TRIDENT."""
CLAM_TENSORS = "pt_files"
"""CLAM writes the same features once more here; it counts only where there are no `h5_files`."""
STAMP_SUFFIX = ".h5"
STAMP_DATASET = "feats"
STAMP_HASH_CHARS = 8
"""Of the file's `code_hash` in the name of STAMP's folder."""


def find_feature_tree(folder: Path, option: str = "--features ") -> tuple[dict[str, Path], Path]:
    """The feature file of every slide below `folder`, by slide id, sorted, and the folder that they lie in: the
    extractor's, of a tree of STAMP's. An id is the file's name without its ending or, of several files of one name in a
    tree of STAMP's, the path in that tree without it, `sub/slide` and `./slide`.

    The files lie in `folder` itself or, if it has none, in one of the folders that TRIDENT, CLAM or slide2vec make
    below it; STAMP's in any of its subfolders. `option` is what errors call the folder by.

    Raises:
        BenchmarkError: no such folder, no feature files, several folders that could be meant (all are named), or the
            same slide in two files of one folder.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{option}{folder}: no such folder")
    if own := _feature_files(folder):
        paths = sorted({*own, *_stamp_files(folder, option)[0]}) if _is_of_stamp(own) else own
        return _by_slide(paths, folder), folder
    candidates = [found for pattern in FEATURE_FOLDERS for found in sorted(folder.glob(pattern))]
    holding = [candidate for candidate in candidates if candidate.is_dir() and _feature_files(candidate)]
    of_known = [path for candidate in holding for path in _feature_files(candidate)]
    if holding and all(_is_of_stamp(_feature_files(candidate)) for candidate in holding):
        below, root = _stamp_files(folder, option)
        return _by_slide(sorted({*of_known, *below}), root), root
    if folder / "h5_files" not in holding and _feature_files(folder / CLAM_TENSORS):
        holding.append(folder / CLAM_TENSORS)
    if len(holding) > 1:
        names = "\n".join(f"  {candidate}" for candidate in holding)
        raise BenchmarkError(f"{option}{folder}: several folders with features; name one of them:\n{names}")
    if holding:
        return find_feature_tree(holding[0], option)
    below, root = _stamp_files(folder, option)
    if below:
        return _by_slide(below, root), root
    raise BenchmarkError(
        f"{option}{folder}: no feature files ({', '.join(FEATURE_SUFFIXES)}) in it, nor in "
        f"{', '.join((*FEATURE_FOLDERS, CLAM_TENSORS))} below it, nor STAMP's anywhere below it"
    )


def _feature_files(folder: Path) -> list[Path]:
    """Feature files right below `folder`, sorted; none if it is no folder."""
    return sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix in FEATURE_SUFFIXES and not path.name.startswith(".") and not path.name.endswith(NO_FEATURES)
    )


def _by_slide(paths: Sequence[Path], root: Path) -> dict[str, Path]:
    """Files by slide id; `root` is what they lie below.

    Raises:
        BenchmarkError: the same slide twice in one folder.
    """
    found: dict[str, Path] = {}
    times = Counter(path.stem for path in paths)
    for path in paths:
        parent = os.path.relpath(path.parent, root)
        name = f"{parent}/{path.stem}" if times[path.stem] > 1 else path.stem
        if name in found:
            raise BenchmarkError(f"two feature files for slide {path.stem}: {found[name]} and {path}. Remove one")
        found[name] = path
    return dict(sorted(found.items()))


def _is_of_stamp(paths: Sequence[Path]) -> bool:
    """Whether the first file that can be read is one of STAMP's."""
    for path in paths:
        try:
            return _maker(path) is not None
        except BenchmarkError:
            continue  # a damaged file fails by its name when it is read
    return False


def _maker(path: Path) -> tuple[str, str] | None:
    """STAMP's extractor and the hash of its code; `None` where the file is not of a slide's tiles by STAMP.

    Raises:
        BenchmarkError: the file cannot be read.
    """
    if path.suffix != STAMP_SUFFIX:
        return None
    attributes = read_attributes(path)
    of_file = attributes[""]
    if STAMP_DATASET not in attributes or of_file.get("feat_type", "tile") != "tile":
        return None
    return str(of_file.get("extractor", "")), str(of_file.get("code_hash", ""))


def _stamp_files(folder: Path, option: str) -> tuple[list[Path], Path]:
    """STAMP's files below `folder`, sorted, with what lies between them and is damaged; none if all lie right in it.
    And the extractor's folder, as far as its name says that it is it, else `folder`.

    Raises:
        BenchmarkError: they are of several extractors, or of several runs of one; their folders are named.
    """
    found: list[Path] = []
    damaged: list[Path] = []
    roots: dict[tuple[str, str], Path] = {}
    paths = _hdf5_below(folder)
    if all(path.parent == folder for path in paths):
        return [], folder  # not a file is opened for nothing
    for path in paths:
        try:
            maker = _maker(path)
        except BenchmarkError:
            damaged.append(path)
            continue
        if maker is not None:
            found.append(path)
            root = _root(path.relative_to(folder).parts[0], *maker)
            roots.setdefault((maker[0], root), folder / root if root else path.parent)
    if len(roots) > 1:
        names = "\n".join(f"  {path} ({extractor})" for (extractor, _), path in sorted(roots.items()))
        raise BenchmarkError(f"{option}{folder}: features of several extractors or runs of STAMP; name the folder of "
                             f"one of them:\n{names}")  # fmt: skip
    if not found:
        return [], folder
    return sorted([*found, *damaged]), folder / next(root for _, root in roots)


def _hdf5_below(folder: Path) -> list[Path]:
    """HDF5 files as STAMP names them, in `folder` and at any depth below it; nothing hidden. Links to folders are
    followed, but each folder is read once, and none that `folder` lies in.
    """
    found: list[Path] = []
    seen: set[str] = set()
    waiting, top = [folder], Path(os.path.realpath(folder))
    while waiting:  # links come after the folders themselves, which are found by their own names
        for place, folders, names in os.walk(waiting.pop(0)):
            real = os.path.realpath(place)
            shown = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
            links = [name for name in shown if os.path.islink(Path(place, name))]
            waiting += [
                Path(place, link) for link in links if not top.is_relative_to(os.path.realpath(Path(place, link)))
            ]
            folders[:] = [name for name in shown if name not in links]
            if real not in seen:
                found += [Path(place, name) for name in names if name.endswith(STAMP_SUFFIX) and name[0] != "."]
            seen.add(real)
    return sorted(found)


def _root(name: str, extractor: str, code_hash: str) -> str:
    """The name of a subfolder if it is the one that STAMP makes for an extractor; else ""."""
    made = (extractor, f"{extractor}-{code_hash[:STAMP_HASH_CHARS]}")
    return name if extractor and name in made else ""
