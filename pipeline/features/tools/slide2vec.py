"""slide2vec's feature files (github.com/clemsgrs/slide2vec).

tile_embeddings/{slide}.pt, or .npz             features as a bare tensor, or `features` with their `tile_index`
tile_embeddings/{slide}.meta.json               the encoder and, in newer versions, the size of a patch
tiles/{slide}.coordinates.npz                   `x`, `y` and `tile_index` of all tiles
tiles/{slide}.coordinates.meta.json             the size of a patch, in its table `tiling`

Coordinates are level-0 pixels; the side of a patch is `tile_size_lv0`, a whole number, the rounding of
`requested_tile_size_px * requested_spacing_um`. Read in slide2vec's published code in 2026-11. Left out: folders of
several annotations.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import is_there, reading
from pipeline.disk.files import write_bytes, write_json
from pipeline.disk.tensor_files import read_npz
from pipeline.features.files import read_beside, read_tensor, tensor_bytes
from pipeline.features.layouts import MARK, EmbeddedSlide, Finish, Place, Writer, json_mark, marked_resampling
from pipeline.features.tool import FeatureFile, PatchFacts, RawFeatures, Tool, number

TENSOR, ARCHIVE = ".pt", ".npz"
FOLDER = "tile_embeddings"
COORDINATES = ".coordinates.npz"


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
    return RawFeatures(values, _coords(path, len(values), index), read_beside(_meta_file(path)).get("encoder_name"))


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
        "tensor": features / f"{slide_id}{TENSOR}",
        "meta": features / f"{slide_id}.meta.json",
    }


def write(place: Place, slide: EmbeddedSlide, files: dict[str, Path], finish: Finish) -> None:
    """Coordinates, then features as a bare tensor, then the description."""
    buffer = io.BytesIO()
    x, y = slide.coords_l0_px.T
    index = np.arange(len(x), dtype=np.int32)
    np.savez(buffer, tile_index=index, x=x, y=y, tissue_fractions=slide.tissue_fraction.astype(np.float32))
    write_bytes(files["coords"], buffer.getvalue())
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


TOOL = Tool(
    name="slide2vec",
    suffixes=(TENSOR, ARCHIVE),
    folders=((FOLDER,),),
    not_features=(COORDINATES,),
    read=read,
    facts=facts,
    writer=Writer(dtypes=("float32", "float16"), files=files, write=write, read_mark=json_mark),
)
