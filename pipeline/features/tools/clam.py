"""CLAM's feature files (github.com/mahmoodlab/CLAM), and HDF5 files that hold features and say no more.

patches/{slide}.h5       `coords` with attributes
h5_files/{slide}.h5      `features` and `coords`, without attributes
pt_files/{slide}.pt      the same features as a bare tensor

Coordinates are level-0 pixels; the side of a patch is `patch_size`, whole pixels of the level that was read, times
`downsample`. `g2l embed` marks the features with the size and resolution that were asked for, for which CLAM has no
attribute. Read in CLAM's published code in 2026-11. Left out: masks.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.base.outside import parse_object
from pipeline.disk.files import write_bytes
from pipeline.features.files import read_hdf5_features, read_tensor, tensor_bytes, write_features
from pipeline.features.layouts import MARK, EmbeddedSlide, Finish, Place, Writer, hdf5_mark, marked_resampling
from pipeline.features.tool import FeatureFile, PatchFacts, RawFeatures, Tool, files_apart, number

TENSOR = ".pt"


def read(file: FeatureFile) -> RawFeatures | None:
    """A bare tensor, or the dataset `features`; a file may name its encoder."""
    if file.path.suffix == TENSOR:
        return RawFeatures(read_tensor(file.path))
    stored = read_hdf5_features(file.path, "features")
    if stored is None:
        return None
    about = stored.file_attributes
    return RawFeatures(stored.values, stored.coords, about.get("encoder"), about.get(MARK))


def facts(file: FeatureFile) -> PatchFacts | None:
    """The attributes of `coords`, and what the mark of `g2l embed` adds to them."""
    own = file.file_attributes()
    attributes = own | file.coords_attributes()
    patch_level_px, downsample = number(attributes, "patch_size"), number(attributes, "downsample")
    if patch_level_px is None or downsample is None:
        return None
    level = attributes.get("patch_level")
    found = PatchFacts(
        patch_px=patch_level_px,
        side_l0_px=patch_level_px * downsample,
        unit_l0_px=downsample,
        level=None if level is None else int(level),
        downsample=downsample,
    )
    if MARK not in own:
        return found
    asked = parse_object(own[MARK])["made_by"]["settings"]
    return replace(
        found,
        patch_px=asked["patch_px"],
        nominal_um=asked["patch_px"] * asked["mpp"],
        resampling=marked_resampling(own[MARK]),
    )


def coords_files(features: Path, folder: Path | None) -> list[Path]:
    """Where the coordinates are."""
    return files_apart(features, folder, "patches", f"{features.stem}.h5")


def files(place: Place, slide_id: str) -> dict[str, Path]:
    """The files of a slide."""
    return {
        "coords": place.folder / "patches" / f"{slide_id}.h5",
        "tensor": place.folder / "pt_files" / f"{slide_id}{TENSOR}",
        "features": place.folder / "h5_files" / f"{slide_id}.h5",
    }


def write(place: Place, slide: EmbeddedSlide, files: dict[str, Path], finish: Finish) -> None:
    """Coordinates, then features as a tensor, then features with coordinates."""
    geometry = slide.plan.geometry
    attributes = {
        "patch_size": round(geometry.patch_level_px),
        "patch_level": geometry.level,
        "downsample": (geometry.downsample, geometry.downsample),
        "downsampled_level_dim": slide.level_size_px,
        "level_dim": slide.level_size_px,
        "name": slide.plan.slide_id,
        "save_path": "",
    }
    write_features(files["coords"], {"coords": slide.coords_l0_px}, {"coords": attributes}, {})
    write_bytes(files["tensor"], tensor_bytes(slide.features))
    arrays = {"features": slide.features, "coords": slide.coords_l0_px.astype(np.int32)}
    write_features(files["features"], arrays, {}, {"encoder": place.encoder, MARK: finish().text()})


TOOL = Tool(
    name="CLAM",
    suffixes=(".h5", ".hdf5", TENSOR),
    folders=(("h5_files",), ("pt_files",)),
    read=read,
    facts=facts,
    coords_files=coords_files,
    writer=Writer(dtypes=("float32",), files=files, write=write, read_mark=hdf5_mark),
)
