"""STAMP's feature files (github.com/KatherLab/STAMP), version 2.0 or newer.

{extractor}-{hash}/{subfolders of the slides}/{slide}.h5    `feats` and `coords`, attributes on the file

Coordinates and the side of a patch (`tile_size_um`) are in um. The folder is `{extractor}/` where the hash is switched
off (`src/stamp/preprocessing/__init__.py`, read in 2026-11). A file says that it is STAMP's, so such a tree is read
whole, also where its subfolders have names that other tools give, and through links to folders; nothing else is taken
for one. Left out: embeddings of whole slides; versions before 2.0, which do not say the unit of their coordinates;
STAMP's cache.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.base.errors import BenchmarkError
from pipeline.disk.files import sha256_json
from pipeline.disk.linked_folders import leads_out, raise_unlisted
from pipeline.features.files import read_attributes, read_hdf5_features, write_features
from pipeline.features.layouts import MARK, EmbeddedSlide, Finish, Place, Writer, hdf5_mark, marked_resampling
from pipeline.features.tool import FeatureFile, FileTree, PatchFacts, RawFeatures, Tool, number

SUFFIX = ".h5"
DATASET = "feats"
HASH_CHARS = 8
"""Of the file's `code_hash` in the name of the folder."""
VERSION = "2.1.0"
"""The first version of STAMP with these attributes. It refuses files of versions newer than itself, so the oldest is
written.
"""


def read(file: FeatureFile) -> RawFeatures | None:
    """The dataset `feats`; the file names the extractor."""
    stored = read_hdf5_features(file.path, DATASET)
    if stored is None:
        return None
    about = stored.file_attributes
    return RawFeatures(stored.values, stored.coords, about.get("extractor"), about.get(MARK))


def facts(file: FeatureFile) -> PatchFacts | None:
    """The attributes of the file.

    Raises:
        BenchmarkError: they do not say that coordinates are in um.
    """
    if file.attributes(DATASET) is None:
        return None
    attributes = file.file_attributes()
    if (unit := attributes.get("unit")) != "um":
        raise BenchmarkError(f"{file.path}: STAMP's attribute unit is {unit!r}, not 'um': coordinates unknown")
    return PatchFacts(
        patch_px=number(attributes, "tile_size_px"),
        side_um=number(attributes, "tile_size_um"),
        in_um=True,
        resampling=marked_resampling(attributes.get(MARK)),
    )


def holds(paths: Sequence[Path]) -> bool:
    """Whether the first file that can be read is one of STAMP's."""
    for path in paths:
        try:
            return _extractor(path) is not None
        except BenchmarkError:
            continue  # a damaged file fails by its name when it is read
    return False


def find(folder: Path, option: str) -> tuple[list[Path], Path]:
    """STAMP's files below `folder`, with what lies between them and is damaged, and the extractor's folder if its name
    says that it is it, else `folder`. No files if all lie right in it.

    Raises:
        BenchmarkError: they are of several extractors, or of several runs of one; their folders are named.
    """
    paths = _hdf5_below(folder)
    if all(path.parent == folder for path in paths):
        return [], folder  # not a file is opened for nothing
    tiles: list[Path] = []
    damaged: list[Path] = []
    roots: dict[tuple[str, str], Path] = {}
    for path in paths:
        try:
            extractor = _extractor(path)
        except BenchmarkError:
            damaged.append(path)
            continue
        if extractor is not None:
            tiles.append(path)
            root = _root(path.relative_to(folder).parts[0], *extractor)
            roots.setdefault((extractor[0], root), folder / root if root else path.parent)
    if len(roots) > 1:
        names = "\n".join(f"  {path} ({extractor})" for (extractor, _), path in sorted(roots.items()))
        raise BenchmarkError(
            f"{option}{folder}: features of several extractors or runs of STAMP; name the folder of "
            f"one of them:\n{names}"
        )
    if not tiles:
        return [], folder
    return sorted([*tiles, *damaged]), folder / next(root for _, root in roots)


def _extractor(path: Path) -> tuple[str, str] | None:
    """The extractor and the hash of its code; `None` where the file is not of a slide's tiles by STAMP.

    Raises:
        BenchmarkError: the file cannot be read.
    """
    if path.suffix != SUFFIX:
        return None
    attributes = read_attributes(path)
    file_attributes = attributes[""]
    if DATASET not in attributes or file_attributes.get("feat_type", "tile") != "tile":
        return None
    return str(file_attributes.get("extractor", "")), str(file_attributes.get("code_hash", ""))


def _hdf5_below(folder: Path) -> list[Path]:
    """HDF5 files as STAMP names them, in `folder` and at any depth below it; nothing hidden. Links to folders are
    followed, but each folder is read once, and none that `folder` lies in, nor the system's.

    Raises:
        BenchmarkError: a folder cannot be listed; its slides would lack their features without a word.
    """
    paths: list[Path] = []
    seen: set[str] = set()
    waiting = [folder]
    while waiting:  # links come after the folders themselves, which are found by their own names
        for place, folders, names in os.walk(waiting.pop(0), onerror=_raise_unlisted):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:], links = _shown_folders(Path(place), folders)
            waiting += [link for link in links if not leads_out(link, folder)]
            paths += [Path(place, name) for name in names if name.endswith(SUFFIX) and name[0] != "."]
    return sorted(paths)


def _raise_unlisted(error: OSError) -> None:
    try:
        raise_unlisted(error)
    except OSError:
        raise BenchmarkError(f"{error.filename}: the folder cannot be listed ({error.strerror})") from error


def _shown_folders(place: Path, names: list[str]) -> tuple[list[str], list[Path]]:
    """The names of a folder's subfolders, and the paths of links to folders; both in order and without hidden ones."""
    shown = sorted(name for name in names if not name.startswith("."))
    links = [name for name in shown if os.path.islink(place / name)]
    return [name for name in shown if name not in links], [place / name for name in links]


def _root(name: str, extractor: str, code_hash: str) -> str:
    """The name of a subfolder if it is the one that STAMP makes for an extractor; else ""."""
    made = (extractor, f"{extractor}-{code_hash[:HASH_CHARS]}")
    return name if extractor and name in made else ""


def files(place: Place, slide_id: str) -> dict[str, Path]:
    """The only file of a slide."""
    return {"features": place.folder / f"{slide_id}{SUFFIX}"}


def write(place: Place, slide: EmbeddedSlide, files: dict[str, Path], finish: Finish) -> None:
    """Features and coordinates in um."""
    grid = place.grid
    coords_um = (slide.coords_l0_px * slide.plan.geometry.slide_mpp).astype(np.float32)
    attributes = {
        "stamp_version": VERSION,
        "extractor": place.encoder,
        "unit": "um",
        "tile_size_um": grid.patch_px * grid.mpp,
        "tile_size_px": grid.patch_px,
        "code_hash": sha256_json(slide.made_by)[:HASH_CHARS],
        "feat_type": "tile",
        MARK: finish().text(),
    }
    write_features(files["features"], {"coords": coords_um, DATASET: slide.features}, {}, attributes)


TOOL = Tool(
    name="STAMP",
    suffixes=(SUFFIX, ".hdf5"),
    tree=FileTree(holds=holds, find=find),
    read=read,
    facts=facts,
    writer=Writer(dtypes=("float16",), files=files, write=write, read_mark=hdf5_mark),
)
