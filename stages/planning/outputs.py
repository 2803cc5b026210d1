"""Where a plan and its files are written: only what an earlier attempt at the same plan left is overwritten.

PLAN.h5            the plan
PLAN.audit.csv     the audit of each slide, also written if there is no plan
PLAN.cases.csv     what each case gives
PLAN.config.toml   the options; can be passed to --config
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ConfigError, G2LError
from pipeline.cohort.draws.cluster_sheet import CLUSTER_SHEET
from pipeline.cohort.manifest.rows import Manifest
from pipeline.config.base import read_options
from pipeline.disk.asides import remove_asides, remove_asides_of
from pipeline.disk.at_hand import remove_notes
from pipeline.disk.files import make_output_folder, require_absent, require_names_apart, require_new_file
from pipeline.slides.annotations.tissue_geojson import TISSUE_ENDING, is_as_written
from pipeline.slides.artefacts.dropped import DROPPED_SHEET

PICTURE_ENDING = ".png"
"""Of the picture of a slide, after its id."""


@dataclass(frozen=True)
class SlideFolder:
    """A folder that gets a file of each slide: the ending of its name, and the option that names the folder."""

    path: Path
    ending: str
    option: str


def beside(out: Path, ending: str) -> Path:
    """Path of the file with this ending beside a plan. Only `p` and `p.h5` share theirs; the second is refused."""
    return out.with_name(out.name.removesuffix(".h5") + ending)


def folders_of(overlays: Path | None, tissue_geojson: Path | None) -> list[SlideFolder]:
    """The folders that get a file of each slide, of those that the options of these names give."""
    named = ((overlays, PICTURE_ENDING, "--overlays"), (tissue_geojson, TISSUE_ENDING, "--tissue-geojson"))
    return [SlideFolder(folder, ending, option) for folder, ending, option in named if folder]


@contextmanager
def without_new_folders(*folders: Path) -> Iterator[None]:
    """If the block refuses, remove those of the folders and their parents that are new and have stayed empty."""
    new = _absent(folders)
    try:
        yield
    except G2LError:
        _remove_empty(new)
        raise


def _absent(folders: Sequence[Path]) -> set[Path]:
    """Those of the folders and their parents that are not there."""
    return {place for folder in folders for place in (folder, *folder.parents) if not os.path.lexists(place)}


def _remove_empty(folders: Collection[Path]) -> None:
    """Remove those of the folders that are there and empty."""
    for place in sorted(folders, key=lambda place: len(place.parts), reverse=True):
        with suppress(OSError):  # something is in it, or it was never made
            place.rmdir()


def require_folders(manifest: Manifest, folders: Sequence[SlideFolder]) -> None:
    """See that a plan could make and write the folders; leaves nothing behind.

    Raises:
        G2LError: as `make_way`.
    """
    new = _absent([folder.path for folder in folders])
    try:
        make_slide_folders(manifest, folders)
    finally:
        _remove_empty(new)


def require_way(manifest: Manifest, out: Path, folders: Sequence[SlideFolder]) -> None:
    """See that nothing is overwritten by a plan and the files beside it; writes nothing.

    Raises:
        G2LError: one exists that no earlier attempt wrote, or that was changed since, as tissue is in QuPath.
    """
    if out.is_file():
        remove_notes(out)
    require_new_file(out, "Delete it first, or choose another --out.")
    *tables, record_path = files_beside(out)
    hint, filled = "Delete it first, or choose another place.", set[Path]()
    if is_attempt(record_path, out):
        filled = folders_of_attempt(record_path)
    else:
        for path in (*tables, record_path):
            require_new_file(path, hint)
    for folder in folders:
        sheets = [DROPPED_SHEET, str(CLUSTER_SHEET)] if folder.ending == PICTURE_ENDING else []
        is_filled = folder.path.absolute() in filled
        for name in sheets if not is_filled else ():
            require_absent(folder.path / name, hint)
        for row in manifest.rows:
            path = folder.path / f"{row.slide_id}{folder.ending}"
            if not is_filled or (folder.ending == TISSUE_ENDING and not is_as_written(path, row.slide_id)):
                require_absent(path, hint)


def folders_of_attempt(record_path: Path) -> set[Path]:
    """The folders that an earlier attempt filled, by its record of options."""
    options = read_options(record_path, "plan")
    named = (options.get(name) for name in ("overlays", "tissue_geojson"))
    return {Path(str(folder)).absolute() for folder in named if folder}


def make_way(manifest: Manifest, out: Path, folders: Sequence[SlideFolder]) -> None:
    """Make the folders, and clear away what a killed run left half written; as `require_way`.

    Raises:
        G2LError: a folder cannot be made or written, or would hold two slides' files under one name.
    """
    make_slide_folders(manifest, folders)
    for folder in folders:
        for place in (folder.path, (folder.path / CLUSTER_SHEET).parent):
            remove_asides(place, recursive=False)
    for path in (out, *files_beside(out)):
        remove_asides_of(path)


def make_slide_folders(manifest: Manifest, folders: Sequence[SlideFolder]) -> None:
    """Make the folders.

    Raises:
        G2LError: as `make_way`.
    """
    for folder in folders:
        make_output_folder(folder.path, folder.option)
        require_names_apart(folder.path, [row.slide_id for row in manifest.rows])


def files_beside(out: Path) -> list[Path]:
    """The files that belong to a plan: its tables, and last the record of its options."""
    return [beside(out, ending) for ending in (".audit.csv", ".cases.csv", ".config.toml")]


def is_attempt(record_path: Path, out: Path) -> bool:
    """Whether this record of options is from an earlier attempt to make the plan `out`."""
    try:
        return Path(str(read_options(record_path, "plan").get("out", ""))).absolute() == out.absolute()
    except ConfigError:
        return False
