"""slide2vec's files, written as slide2vec does: features by their tile's index, and the size of a patch beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.feature_files import COORDS, FEATURES

from pipeline.base.errors import BenchmarkError
from pipeline.features.find import find_feature_tree
from pipeline.features.read import read_features
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
