"""slide2vec's files, written as slide2vec does: features by their tile's index, and the size of a patch beside them."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.embedded import ENCODER, GRID, SLIDES, embedded
from support.feature_files import COORDS, FEATURES

from pipeline.base.errors import BenchmarkError, EmbedError
from pipeline.features.find import find_feature_tree
from pipeline.features.layouts import Place
from pipeline.features.read import read_features
from pipeline.features.registry import find_writer
from pipeline.features.tool import FeatureFile
from pipeline.features.tools import slide2vec


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_slide2vec(tmp_path: Path, suffix: str) -> None:
    folder, tiles = tmp_path / "tile_embeddings", tmp_path / "tiles"
    folder.mkdir()
    tiles.mkdir()
    order = np.array([3, 1, 0, 4, 2])
    if suffix == ".pt":
        torch.save(torch.from_numpy(FEATURES).to(torch.float16), folder / "s1.pt")
        order = np.arange(5)
    else:
        np.savez_compressed(folder / "s1.npz", features=FEATURES.astype(np.float16), tile_index=order)
    (folder / "s1.meta.json").write_text(json.dumps({"encoder_name": "h-optimus-0", "num_tiles": 5}))
    (folder / "empty.meta.json").write_text(json.dumps({"encoder_name": "h-optimus-0", "num_tiles": 0}))
    np.savez(
        tiles / "s1.coordinates.npz",
        tile_index=np.arange(5),
        x=COORDS[:, 0],
        y=COORDS[:, 1],
        tissue_fractions=np.ones(5),
    )
    assert find_feature_tree(tmp_path).files == {"s1": folder / f"s1{suffix}"}
    found = read_features(folder / f"s1{suffix}")
    np.testing.assert_array_equal(found.features, FEATURES.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.coords, COORDS[order])
    assert found.encoder == "h-optimus-0"


def write_archive(root: Path, index: NDArray[np.int64], tiles: NDArray[np.int64]) -> Path:
    """Features of the tiles `index`, and a file of coordinates of the tiles `tiles`."""
    for name in ("tile_embeddings", "tiles"):
        (root / name).mkdir()
    path = root / "tile_embeddings" / "s1.npz"
    np.savez(path, features=FEATURES[: len(index)], tile_index=index)
    x, y = COORDS[: len(tiles)].T
    np.savez(root / "tiles" / "s1.coordinates.npz", tile_index=tiles, x=x, y=y)
    return path


def test_rows_are_placed_by_their_index_not_by_their_order(tmp_path: Path) -> None:
    """Also where the coordinates are of more tiles, in another order."""
    path = write_archive(tmp_path, np.array([7, 2, 9]), np.array([9, 0, 2, 7, 5]))
    raw = slide2vec.read(FeatureFile(path))
    assert raw is not None
    np.testing.assert_array_equal(raw.coords, COORDS[[3, 2, 0]])


@pytest.mark.parametrize(
    ("index", "tiles", "words"),
    [
        (
            [0, 1, 5],
            [0, 1, 2, 3, 4],
            r"1 of 3 rows have a tile_index that .*s1\.coordinates\.npz has not .the first: 5",
        ),
        ([0, 1], [0, 1, 1], "lacks a tile_index for each tile"),
    ],
)
def test_an_index_without_its_tile_is_refused(tmp_path: Path, index: list[int], tiles: list[int], words: str) -> None:
    path = write_archive(tmp_path, np.array(index), np.array(tiles))
    with pytest.raises(BenchmarkError, match=rf"s1\.npz: .*{words}"):
        slide2vec.read(FeatureFile(path))


def test_coordinates_of_another_number_of_tiles_are_not_those_of_a_tensor(tmp_path: Path) -> None:
    """A tensor has no index: its rows are in the order of the file, or their places are not known."""
    path = write_archive(tmp_path, np.arange(3), np.arange(5)).with_suffix(".pt")
    for rows, known in ((5, True), (3, False)):
        torch.save(torch.from_numpy(FEATURES[:rows]), path)
        raw = slide2vec.read(FeatureFile(path))
        assert raw is not None
        assert (raw.coords is not None) == known


def test_a_tensor_alone_is_left_to_others(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(FEATURES), tmp_path / "s1.pt")
    assert slide2vec.read(FeatureFile(tmp_path / "s1.pt")) is None
    (tmp_path / "s1.meta.json").write_text('{"encoder_name": "uni"}')
    raw = slide2vec.read(FeatureFile(tmp_path / "s1.pt"))
    assert raw is not None
    assert (raw.encoder, raw.coords) == ("uni", None)


@pytest.mark.parametrize("beside", ["features", "coordinates"])
def test_the_size_of_a_patch_is_read_from_either_description(tmp_path: Path, beside: str) -> None:
    path = write_archive(tmp_path, np.arange(3), np.arange(3))
    assert slide2vec.facts(FeatureFile(path)) is None
    said = {"tile_size_lv0": 127, "requested_tile_size_px": 64, "requested_spacing_um": 0.5}
    if beside == "features":
        path.with_name("s1.meta.json").write_text(json.dumps(said))
    else:
        (tmp_path / "tiles" / "s1.coordinates.meta.json").write_text(json.dumps({"tiling": said}))
    facts = slide2vec.facts(FeatureFile(path))
    assert facts is not None
    assert (facts.patch_px, facts.side_l0_px, facts.nominal_um) == (64, 127, 32)
    assert facts.side(0.2527) == pytest.approx(32 / 0.2527)  # of which 127 is the rounding
    assert facts.side(0.25) == 127  # of which it is not


def test_a_description_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = write_archive(tmp_path, np.arange(3), np.arange(3))
    path.with_name("s1.meta.json").write_text("{")
    with pytest.raises(BenchmarkError, match=r"s1\.meta\.json: not a readable description of the features"):
        slide2vec.facts(FeatureFile(path))
    assert slide2vec.facts(FeatureFile(path.with_suffix(".h5"))) is None  # no file of slide2vec's


# --- what slide2vec needs to run on tiles of `g2l embed` ---

KEYS = {
    "provenance": "backend image_path mask_backend mask_path requested_backend requested_mask_backend sample_id "
    "spacing_at_level_0",
    "slide": "base_spacing_um dimensions level_downsamples",
    "tiling": "is_within_tolerance min_tissue_fraction n_tiles overlap read_level read_spacing_um read_tile_size_px "
    "requested_spacing_um requested_tile_size_px step_px_lv0 tile_size_lv0 tolerance",
    "segmentation": "close mask_level mask_path mask_spacing_um ref_tile_size_px requested_seg_downsample "
    "sam2_checkpoint_path sam2_config_path seg_downsample seg_level seg_spacing_um sthresh sthresh_up mthresh "
    "tissue_mask_tissue_value tissue_method",
    "filtering": "a_h a_t black_threshold blur_threshold filter_black filter_blur filter_grayspace filter_white "
    "fraction_threshold grayspace_fraction_threshold grayspace_saturation_threshold qc_spacing_um white_threshold",
    "artifact": "annotation coordinate_space output_mode selection_strategy tile_order",
}
"""Keys of hs2p 6.1.0, which refuses others."""
COLUMNS = (
    "sample_id,annotation,image_path,mask_path,requested_backend,backend,tiling_status,num_tiles,coordinates_npz_path,"
    "coordinates_meta_path,error,traceback"
)
"""Columns that slide2vec 7.1.4 asks for."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder of three slides."""
    place = Place(tmp_path / "out", find_writer("pt"), ENCODER, GRID)
    for slide_id in SLIDES:
        place.write(embedded(slide_id, "float32"))
    return place


def test_the_description_of_tiles_has_the_keys_of_hs2p_and_whole_pixels(place: Place) -> None:
    for slide_id, (mpp, level, _) in SLIDES.items():
        about = json.loads(place.files(slide_id)["tiling"].read_text())
        assert {name: set(table) for name, table in about.items()} == {k: set(v.split()) for k, v in KEYS.items()}
        tiling, side_px = about["tiling"], GRID.patch_px * GRID.mpp / mpp
        assert (tiling["read_level"], tiling["n_tiles"]) == (level, 9)
        assert tiling["tile_size_lv0"] == tiling["step_px_lv0"] == round(side_px)
        assert tiling["read_tile_size_px"] == round(side_px / SLIDES[slide_id][2])
        assert about["slide"]["base_spacing_um"] == mpp


def test_the_list_says_where_slides_and_tiles_are(place: Place) -> None:
    place.write_list({slide_id: f"/slides/{slide_id}.svs" for slide_id in [*SLIDES, "failed"]})
    with (place.folder / "process_list.csv").open(newline="") as file:
        rows = {row["sample_id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == SLIDES.keys()
    for slide_id, row in rows.items():
        assert row.keys() >= set(COLUMNS.split(","))
        assert row["image_path"] == f"/slides/{slide_id}.svs"
        assert (row["tiling_status"], row["num_tiles"]) == ("success", "9")
        tiles = np.load(row["coordinates_npz_path"])
        np.testing.assert_array_equal(tiles["x"], embedded(slide_id, "float32").coords_l0_px[:, 0])
        assert json.loads(Path(row["coordinates_meta_path"]).read_text())["tiling"]["n_tiles"] == 9


def test_a_folder_of_an_earlier_version_is_finished_and_not_listed(place: Place) -> None:
    """It has no descriptions beside its coordinates."""
    for slide_id in SLIDES:
        path = place.files(slide_id)["tiling"]
        marked = place.marked_file(slide_id)
        mark = place.read_mark(slide_id)
        assert mark is not None
        earlier = replace(mark, files={kind: size for kind, size in mark.files.items() if kind != "tiling"})
        marked.write_text(json.dumps(json.loads(marked.read_text()) | {"g2l": earlier.text()}))
        assert place.read_mark(slide_id) is None  # not what the mark says
        path.unlink()
        assert place.read_mark(slide_id) == earlier
    (place.folder / "process_list.csv").write_text("of an earlier call")
    place.write_list(dict.fromkeys(SLIDES, "x"))
    assert not (place.folder / "process_list.csv").exists()


def test_a_list_that_cannot_be_written_is_named(place: Place) -> None:
    (place.folder / "process_list.csv").mkdir()
    with pytest.raises(EmbedError, match=r"cannot write the list of slides in .*out"):
        place.write_list(dict.fromkeys(SLIDES, "x"))
