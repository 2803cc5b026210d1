"""TRIDENT's feature files (github.com/mahmoodlab/TRIDENT), also as Patho-Bench reads them.

{mag}x_{px}px_{overlap}px_overlap/patches/{slide}_patches.h5    `coords` with attributes
{mag}x_{px}px_{overlap}px_overlap/features_{encoder}/{slide}.h5    `features` and `coords`

Coordinates are level-0 pixels; the side of a patch is `patch_size_level0`, a whole number. TRIDENT rounds it down
(`patch_size * mag // target_mag`, 682 for 682.67: `trident/wsi_objects/WSI.py`): where the magnifications imply the
length, that length is taken. Read in TRIDENT's published code in 2026-11. Left out: contours and thumbnails.
"""

from pathlib import Path

from pipeline.base.units import magnification
from pipeline.cohort.plan_hdf5 import coords_attributes
from pipeline.features.files import read_hdf5_features, write_features
from pipeline.features.layouts import (
    MARK,
    EmbeddedSlide,
    Finish,
    Place,
    Writer,
    encoder_folder,
    hdf5_mark,
    marked_resampling,
)
from pipeline.features.tool import (
    LENGTH_ROUNDING,
    FeatureFile,
    PatchFacts,
    RawFeatures,
    Tool,
    files_apart,
    number,
    rounds_to,
)

DATASET = "features"
ATTRIBUTES = (
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "overlap",
    "name",
    "savetodir",
    "level0_width",
    "level0_height",
)
"""Of `coords`; a plan's own coordinates have them, too."""


def read(file: FeatureFile) -> RawFeatures | None:
    """The dataset `features`, whose attribute names the encoder."""
    if "encoder" not in (file.attributes(DATASET) or {}):
        return None
    stored = read_hdf5_features(file.path, DATASET)
    if stored is None:
        return None
    return RawFeatures(stored.values, stored.coords, stored.attributes["encoder"], stored.file_attributes.get(MARK))


def facts(file: FeatureFile) -> PatchFacts | None:
    """The attributes of `coords`; Patho-Bench's readers look for them on the file, too."""
    attributes = file.file_attributes() | file.coords_attributes()
    patch_px, side_l0 = number(attributes, "patch_size"), number(attributes, "patch_size_level0")
    if side_l0 is None:
        return None
    at_l0, target = number(attributes, "level0_magnification"), number(attributes, "target_magnification")
    length = patch_px * at_l0 / target if patch_px and at_l0 and target else 0.0
    implied = length > 0 and (rounds_to(length, side_l0, 1.0) or _is_whole_part(side_l0, length))
    width, height = attributes.get("level0_width"), attributes.get("level0_height")
    return PatchFacts(
        patch_px=patch_px,
        side_l0_px=length if implied else side_l0,
        unit_l0_px=0.0 if implied else 1.0,
        size_l0_px=None if width is None or height is None else (int(width), int(height)),
        resampling=marked_resampling(attributes.get(MARK)),
    )


def _is_whole_part(whole: float, length: float) -> bool:
    """Whether `whole` is the whole part of a length; both in level-0 pixels."""
    return -LENGTH_ROUNDING <= length - whole < 1


def coords_files(features: Path, folder: Path | None) -> list[Path]:
    """Where the coordinates alone are."""
    return files_apart(features, folder, "patches", f"{features.stem}_patches.h5")


def files(place: Place, slide_id: str) -> dict[str, Path]:
    """The files of a slide."""
    grid = place.grid
    job = place.folder / f"{magnification(grid.mpp):g}x_{grid.patch_px}px_{grid.overlap_px}px_overlap"
    return {
        "coords": job / "patches" / f"{slide_id}_patches.h5",
        "features": job / f"features_{encoder_folder(place.encoder)}" / f"{slide_id}.h5",
    }


def write(place: Place, slide: EmbeddedSlide, files: dict[str, Path], finish: Finish) -> None:
    """Coordinates, then features with the same coordinates."""
    slide_id, planned = slide.plan.slide_id, coords_attributes(slide.plan, place.grid)
    attributes = {name: planned[name] for name in ATTRIBUTES}
    coords = {"coords": slide.coords_l0_px}
    write_features(files["coords"], coords, {"coords": attributes}, {}, row_chunks=True)
    array_attributes = {"features": {"name": slide_id, "savetodir": "", "encoder": place.encoder}, "coords": attributes}
    arrays = {"features": slide.features, **coords}
    write_features(files["features"], arrays, array_attributes, {MARK: finish().text()}, row_chunks=True)


TOOL = Tool(
    name="TRIDENT",
    suffixes=(".h5", ".hdf5"),
    folders=(("features_*", "*_overlap/features_*"),),
    read=read,
    facts=facts,
    coords_files=coords_files,
    dropped_endings=(".ome",),  # of OME-TIFF, `.ome.tif` (docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff)
    writer=Writer(dtypes=("float32", "float16"), files=files, write=write, read_mark=hdf5_mark),
)
