"""TRIDENT's files, written as TRIDENT does: where they are found, what they say, and the side that it rounds down."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from support.embedded import ENCODER, GRID, embedded
from support.feature_files import COORDS, FEATURES, write_plain_file, write_trident_file
from support.features import FeatureSlide, write_trident

from pipeline.config.plan import PlanConfig
from pipeline.features.find import find_feature_tree
from pipeline.features.layouts import Place
from pipeline.features.read import read_facts, read_features
from pipeline.features.tool import FeatureFile
from pipeline.features.tools import trident


def test_trident(tmp_path: Path) -> None:
    job = tmp_path / "20x_256px_0px_overlap"
    write_trident_file(job / "features_uni_v1" / "TCGA-AA-0001-01Z-00-DX1.0A1B.h5")
    (job / "features_uni_v1" / "TCGA-AA-0001-01Z-00-DX1.0A1B.h5.lock").touch()
    (job / "patches").mkdir()
    for named in (tmp_path, job, job / "features_uni_v1"):
        (slide, path), *others = find_feature_tree(named).files.items()
        assert (slide, others) == ("TCGA-AA-0001-01Z-00-DX1.0A1B", [])
    found = read_features(path)
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.coords, COORDS)
    assert (found.encoder, found.features.dtype, found.coords.dtype) == ("uni_v1", np.float32, np.int64)


def test_trident_rounds_the_side_of_a_patch_down(tmp_path: Path) -> None:
    """64 px at 40x seen at 15x are 170.67 level-0 pixels, and 170 in TRIDENT's file, 171 in others'; 169 stands."""
    slides = [FeatureSlide("s0", FEATURES, COORDS, 0.25, 64, 0.5, (9000, 9000))]
    sides = {}
    for said in (170, 171, 169):
        features = write_trident(tmp_path / str(said), slides)
        for path in (features / "features_tiny").iterdir():
            with h5py.File(path, "r+") as f:
                f["coords"].attrs.update(
                    {"patch_size_level0": said, "level0_magnification": 40, "target_magnification": 15}
                )
        sides[said] = read_facts(features / "features_tiny" / "s0.h5").side(0.25)
    assert sides == {170: pytest.approx(64 * 40 / 15), 171: pytest.approx(64 * 40 / 15), 169: 169}


def with_attributes(path: Path, of_coords: dict[str, object], file_attributes: dict[str, object]) -> FeatureFile:
    return FeatureFile(write_plain_file(path, COORDS, of_coords, file_attributes))


def test_what_is_not_trident_s_is_left_to_others(tmp_path: Path) -> None:
    """Features that name no encoder, and coordinates that do not say the side in level-0 pixels."""
    file = with_attributes(tmp_path / "a.h5", {"patch_size": 256, "patch_level": 0}, {})
    assert (trident.read(file), trident.facts(file)) == (None, None)


def test_attributes_are_looked_for_on_the_file_too(tmp_path: Path) -> None:
    """Those of the coordinates count where both say something."""
    said = {"patch_size": 256, "patch_size_level0": 512, "level0_width": 9000, "level0_height": 8000}
    file = with_attributes(tmp_path / "a.h5", {"patch_size": 224}, said)
    facts = trident.facts(file)
    assert facts is not None
    assert (facts.patch_px, facts.side_l0_px, facts.size_l0_px) == (224, 512, (9000, 8000))


@pytest.mark.parametrize(("said", "unit"), [(682, 0.0), (683, 0.0), (684, 1.0), (681, 1.0)])
def test_a_side_that_the_magnifications_do_not_imply_stands(tmp_path: Path, said: int, unit: float) -> None:
    """256 px of 30x at 80x are 682.67 level-0 pixels: rounded down or to the nearest."""
    said_by = {"patch_size": 256, "patch_size_level0": said, "level0_magnification": 80, "target_magnification": 30}
    facts = trident.facts(with_attributes(tmp_path / "a.h5", said_by, {}))
    assert facts is not None
    assert facts.unit_l0_px == unit
    assert facts.side_l0_px == pytest.approx(said if unit else 256 * 80 / 30)


def test_coordinates_lie_in_the_job_s_folder_or_in_a_named_one(tmp_path: Path) -> None:
    features = tmp_path / "job" / "features_uni" / "s.v2.h5"
    near, _ = trident.coords_files(features, None)
    assert near == tmp_path / "job" / "patches" / "s.v2_patches.h5"
    assert trident.coords_files(features, tmp_path / "c") == [tmp_path / "c" / "s.v2_patches.h5"]


@pytest.mark.parametrize(("stride", "overlap"), [(None, 0), (64, 0), (48, 16), (80, 0)])
def test_the_folder_s_name_tells_the_grid_and_the_encoder(tmp_path: Path, stride: int | None, overlap: int) -> None:
    grid = PlanConfig(patch_px=64, mpp=0.5, stride_px=stride).grid
    assert trident.TOOL.writer is not None
    place = Place(tmp_path, trident.TOOL.writer, ENCODER, grid)
    job = tmp_path / f"20x_64px_{overlap}px_overlap"
    assert place.files("s") == {
        "coords": job / "patches" / "s_patches.h5",
        "features": job / "features_hf-hub_owner_name_v2" / "s.h5",
    }


def test_a_row_is_a_chunk_and_datasets_may_grow(tmp_path: Path) -> None:
    assert trident.TOOL.writer is not None
    place = Place(tmp_path, trident.TOOL.writer, ENCODER, GRID)
    slide = embedded("even", "float32")
    place.write(slide)
    with h5py.File(place.files("even")["features"]) as f:
        assert (f["features"].chunks, f["features"].maxshape) == ((1, 5), (None, 5))
        assert f["coords"].chunks == (1, 2)
        assert dict(f["features"].attrs) == {"name": "even", "savetodir": "", "encoder": ENCODER}
        np.testing.assert_array_equal(f["coords"][()], slide.coords_l0_px)
