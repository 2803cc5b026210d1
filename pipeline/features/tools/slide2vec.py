"""slide2vec's feature files (github.com/clemsgrs/slide2vec).

tile_embeddings/{slide}.pt, or .npz             features as a bare tensor, or `features` with their `tile_index`
tile_embeddings/{slide}.meta.json               the encoder and, in newer versions, the size of a patch
tiles/{slide}.coordinates.npz                   `x`, `y` and `tile_index` of all tiles
tiles/{slide}.coordinates.meta.json             the size of a patch, in its table `tiling`
process_list.csv                                where slides and coordinates are, for `Pipeline.run_with_coordinates`

Coordinates are level-0 pixels; the side of a patch is `tile_size_lv0`, a whole number, the rounding of
`requested_tile_size_px * requested_spacing_um`. Read in slide2vec's published code in 2026-11 (7.1.4 with
hs2p 6.1.0, which refuses a description with a key too few or too many). Left out: folders of several annotations.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import is_there, reading
from pipeline.disk.files import write_bytes, write_json
from pipeline.disk.tables import write_records
from pipeline.disk.tensor_files import read_npz
from pipeline.features.files import read_beside, read_tensor, tensor_bytes
from pipeline.features.layouts import MARK, EmbeddedSlide, Finish, Place, Writer, json_mark, marked_resampling
from pipeline.features.tool import FeatureFile, PatchFacts, RawFeatures, Tool, number

TENSOR, ARCHIVE = ".pt", ".npz"
FOLDER = "tile_embeddings"
COORDINATES = ".coordinates.npz"
PROCESS_LIST = "process_list.csv"
NO_SEGMENTATION: dict[str, Any] = {
    "tissue_method": "g2l",
    "requested_seg_downsample": 1,
    "seg_downsample": 1,
    "seg_level": 0,
    "seg_spacing_um": 0.0,
    **dict.fromkeys(("sthresh", "sthresh_up", "mthresh", "close", "sam2_checkpoint_path", "sam2_config_path")),
    **dict.fromkeys(("mask_path", "tissue_mask_tissue_value", "mask_level", "mask_spacing_um")),
}
"""How hs2p found the tissue: not at all."""
NO_FILTERING: dict[str, Any] = {
    **dict.fromkeys(("a_t", "a_h", "fraction_threshold", "qc_spacing_um", "blur_threshold"), 0.0),
    **dict.fromkeys(("filter_white", "filter_black", "filter_grayspace", "filter_blur"), False),
    **dict.fromkeys(("white_threshold", "black_threshold"), 0),
    **dict.fromkeys(("grayspace_saturation_threshold", "grayspace_fraction_threshold"), 0.0),
}
"""Which tiles hs2p dropped: none."""


def read(file: FeatureFile) -> RawFeatures | None:
    """The features, with the coordinates of their tiles. A tensor is slide2vec's if one of its other files is there.

    Raises:
        BenchmarkError: an archive has no features.
    """
    path = file.path
    if path.suffix == TENSOR:
        if not (is_there(_meta_file(path)) or _coords_file(path)):
            return None
        values: NDArray[Any] = read_tensor(path)
        index = None
    else:
        arrays, names = read_npz(path, ("features", "tile_index"))
        if "features" not in arrays:
            raise BenchmarkError(f"{path}: no array features; it holds {', '.join(names) or 'nothing'}")
        values, index = arrays["features"], arrays.get("tile_index")
    about = read_beside(_meta_file(path))
    return RawFeatures(values, _coords(path, len(values), index), about.get("encoder_name"), about.get(MARK))


def _meta_file(path: Path) -> Path:
    """The description beside a feature file."""
    return path.with_name(f"{path.stem}.meta.json")


def _coords_file(path: Path) -> Path | None:
    """The file of coordinates of a feature file in slide2vec's folders; `None` if there is none."""
    source = path.parent.parent / "tiles" / f"{path.stem}{COORDINATES}"
    return source if path.parent.name == FOLDER and is_there(source) else None


def _coords(path: Path, num_rows: int, index: NDArray[Any] | None) -> NDArray[Any] | None:
    """(x, y) of the rows; `None` without a file of coordinates, or if it has another number of tiles.

    `index` is each row's `tile_index`; without it, rows are in the order of the file.

    Raises:
        BenchmarkError: `index` names tiles that the file does not have, or the file has not one index a tile.
    """
    source = _coords_file(path)
    if source is None:
        return None
    with reading(source, "not a readable file of coordinates", BenchmarkError):
        tiles, _ = read_npz(source, ("x", "y", "tile_index"))
    coords, tile_index = np.stack([tiles["x"], tiles["y"]], axis=1), tiles["tile_index"]
    if index is not None:
        if tile_index.shape != (len(coords),) or len(np.unique(tile_index)) < len(coords):
            raise BenchmarkError(f"{path}: {source} lacks a tile_index for each tile: which tiles are the features of?")
        unknown = ~np.isin(index, tile_index)
        if unknown.any():
            raise BenchmarkError(
                f"{path}: {int(unknown.sum())} of {num_rows} rows have a tile_index that {source} has "
                f"not (the first: {index[unknown][0]}). Was it tiled anew since?"
            )
        order = np.argsort(tile_index)
        places = np.searchsorted(tile_index, index, sorter=order)
        coords = coords[order[places]]
    return coords if len(coords) == num_rows else None


def facts(file: FeatureFile) -> PatchFacts | None:
    """The description beside the features, else that beside the coordinates.

    Raises:
        BenchmarkError: a description is damaged.
    """
    path = file.path
    if path.suffix not in (TENSOR, ARCHIVE):
        return None
    beside_coords = path.parent.parent / "tiles" / f"{path.stem}.coordinates.meta.json"
    for place, table in ((_meta_file(path), None), (beside_coords, "tiling")):
        values = read_beside(place)
        if table is not None:
            values = values.get(table, {})
        if (side := number(values, "tile_size_lv0")) is not None:
            patch_px, mpp = number(values, "requested_tile_size_px"), number(values, "requested_spacing_um")
            return PatchFacts(
                patch_px=patch_px,
                side_l0_px=side,
                nominal_um=patch_px * mpp if patch_px and mpp else None,
                resampling=marked_resampling(values.get(MARK)),
            )
    return None


def files(place: Place, slide_id: str) -> dict[str, Path]:
    """The files of a slide."""
    features = place.folder / FOLDER
    return {
        "coords": place.folder / "tiles" / f"{slide_id}{COORDINATES}",
        "tiling": place.folder / "tiles" / f"{slide_id}.coordinates.meta.json",
        "tensor": features / f"{slide_id}{TENSOR}",
        "meta": features / f"{slide_id}.meta.json",
    }


def write(place: Place, slide: EmbeddedSlide, files: dict[str, Path], finish: Finish) -> None:
    """Coordinates with their description, then features as a bare tensor, then theirs."""
    buffer = io.BytesIO()
    x, y = slide.coords_l0_px.T
    index = np.arange(len(x), dtype=np.int32)
    np.savez(buffer, tile_index=index, x=x, y=y, tissue_fractions=slide.tissue_fraction.astype(np.float32))
    write_bytes(files["coords"], buffer.getvalue())
    write_json(files["tiling"], tiling_record(place, slide))
    write_bytes(files["tensor"], tensor_bytes(slide.features))
    num_tiles, width = slide.features.shape
    meta = {
        "sample_id": slide.plan.slide_id,
        "encoder_name": place.encoder,
        "num_tiles": num_tiles,
        "feature_dim": width,
        "tile_size_lv0": round(slide.plan.geometry.patch_l0_px),
        "requested_tile_size_px": place.grid.patch_px,
        "requested_spacing_um": place.grid.mpp,
        MARK: finish().text(),
    }
    write_json(files["meta"], meta)


def tiling_record(place: Place, slide: EmbeddedSlide) -> dict[str, Any]:
    """The description beside the coordinates, with all keys of hs2p 6.1.0.

    slide2vec reads squares of whole pixels and resizes them, so that where a patch is no whole number of pixels of its
    level, it reads up to half a pixel more or less than `embed` did.
    """
    plan, grid = slide.plan, place.grid
    geometry, side_l0_px = plan.geometry, round(plan.geometry.patch_l0_px)
    read_px = round(geometry.patch_level_px)
    sizes = plan.identity.level_sizes_px or (plan.size_l0_px,)
    reader = {"backend": "openslide", "requested_backend": "openslide"}
    no_mask = {"mask_path": None, "mask_backend": None, "requested_mask_backend": None}
    return {
        "provenance": {
            "sample_id": plan.slide_id,
            "image_path": plan.path,
            "spacing_at_level_0": geometry.slide_mpp,
            **reader,
            **no_mask,
        },
        "slide": {
            "dimensions": list(plan.size_l0_px),
            "base_spacing_um": geometry.slide_mpp,
            "level_downsamples": [plan.size_l0_px[0] / width for width, _ in sizes],
        },
        "tiling": {
            "requested_tile_size_px": grid.patch_px,
            "requested_spacing_um": grid.mpp,
            "read_level": geometry.level,
            "read_tile_size_px": read_px,
            "read_spacing_um": geometry.slide_mpp * geometry.downsample,
            "tile_size_lv0": side_l0_px,
            "tolerance": 0.0,
            "step_px_lv0": round(side_l0_px * grid.stride_px / grid.patch_px),
            "overlap": grid.overlap_px / grid.patch_px,
            "min_tissue_fraction": grid.min_tissue,
            "is_within_tolerance": read_px == grid.patch_px,
            "n_tiles": len(slide.coords_l0_px),
        },
        "segmentation": NO_SEGMENTATION | {"ref_tile_size_px": grid.patch_px},
        "filtering": NO_FILTERING,
        "artifact": {
            "coordinate_space": "level0_px",
            "tile_order": "y_then_x",
            "annotation": None,
            "selection_strategy": None,
            "output_mode": None,
        },
    }


def write_list(place: Place, slides: dict[str, str]) -> None:
    """`process_list.csv`: the slides that have coordinates with a description, which those of 0.2.0 and before lack.
    Without any, a list of an earlier call is removed.

    Its paths are absolute, as slide2vec opens them from wherever it runs.
    """
    rows = []
    for slide_id, path in slides.items():
        placed = files(place, slide_id)
        if not all(is_there(placed[kind]) for kind in ("coords", "tiling")):
            continue
        about = read_beside(placed["tiling"])
        rows.append(
            {
                "sample_id": slide_id,
                "annotation": "tissue",
                "image_path": path,
                "mask_path": "",
                "requested_backend": "openslide",
                "backend": "openslide",
                "spacing_at_level_0": about["slide"]["base_spacing_um"],
                "tiling_status": "success",
                "num_tiles": about["tiling"]["n_tiles"],
                "coordinates_npz_path": os.path.realpath(placed["coords"]),
                "coordinates_meta_path": os.path.realpath(placed["tiling"]),
                "error": "",
                "traceback": "",
            }
        )
    if rows:
        write_records(place.folder / PROCESS_LIST, rows)
    else:
        (place.folder / PROCESS_LIST).unlink(missing_ok=True)


TOOL = Tool(
    name="slide2vec",
    suffixes=(TENSOR, ARCHIVE),
    folders=((FOLDER,),),
    not_features=(COORDINATES,),
    read=read,
    facts=facts,
    writer=Writer(dtypes=("float32", "float16"), files=files, write=write, read_mark=json_mark, write_list=write_list),
)
