"""CLAM's files, written as CLAM does: the same features twice, and the side of a patch by its level."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.embedded import ENCODER, GRID, SLIDES, embedded
from support.feature_files import COORDS, FEATURES

from pipeline.base.errors import BenchmarkError
from pipeline.features.find import find_feature_tree
from pipeline.features.layouts import Place
from pipeline.features.read import read_facts, read_features
from pipeline.features.tool import FeatureFile
from pipeline.features.tools import clam


def test_clam_writes_the_same_twice_and_one_counts(tmp_path: Path) -> None:
    (tmp_path / "h5_files").mkdir()
    (tmp_path / "pt_files").mkdir()
    with h5py.File(tmp_path / "h5_files" / "s1.h5", "w") as f:
        f["features"], f["coords"] = FEATURES, COORDS.astype(np.int32)
    torch.save(torch.from_numpy(FEATURES), tmp_path / "pt_files" / "s1.pt")
    assert find_feature_tree(tmp_path).files == {"s1": tmp_path / "h5_files" / "s1.h5"}
    from_h5 = read_features(tmp_path / "h5_files" / "s1.h5")
    from_pt = read_features(tmp_path / "pt_files" / "s1.pt")
    np.testing.assert_array_equal(from_h5.features, from_pt.features)
    np.testing.assert_array_equal(from_h5.coords, COORDS)
    assert (from_pt.coords, from_pt.encoder) == (None, None)
    (tmp_path / "h5_files" / "s1.h5").unlink()
    assert find_feature_tree(tmp_path).files == {"s1": tmp_path / "pt_files" / "s1.pt"}


def with_coords_attributes(path: Path, **attributes: object) -> FeatureFile:
    with h5py.File(path, "w") as f:
        f["coords"] = COORDS
        f["coords"].attrs.update(attributes)
    return FeatureFile(path)


def test_the_side_of_a_patch_is_that_of_its_level_times_the_downsample(tmp_path: Path) -> None:
    pair = np.array([4.0, 4.002])
    facts = clam.facts(with_coords_attributes(tmp_path / "a.h5", patch_size=256, patch_level=1, downsample=pair))
    assert facts is not None
    assert (facts.patch_px, facts.level) == (256, 1)
    assert facts.side_l0_px == pytest.approx(256 * 4.001)
    assert facts.unit_l0_px == facts.downsample == pytest.approx(4.001)  # whole pixels of the level
    assert (facts.in_um, facts.size_l0_px, facts.nominal_um) == (False, None, None)


@pytest.mark.parametrize("attributes", [{}, {"patch_size": 256}, {"downsample": 4.0}])
def test_coordinates_that_do_not_say_the_side_say_nothing(tmp_path: Path, attributes: dict[str, object]) -> None:
    assert clam.facts(with_coords_attributes(tmp_path / "a.h5", **attributes)) is None


def test_a_file_without_features_is_not_read_and_may_name_its_encoder(tmp_path: Path) -> None:
    assert clam.read(with_coords_attributes(tmp_path / "a.h5", patch_size=256)) is None
    with h5py.File(tmp_path / "b.h5", "w") as f:
        f["features"], f.attrs["encoder"] = FEATURES, "uni"
    raw = clam.read(FeatureFile(tmp_path / "b.h5"))
    assert raw is not None
    assert (raw.encoder, raw.coords) == ("uni", None)


def test_coordinates_lie_beside_the_features_folder_in_it_or_in_a_named_one(tmp_path: Path) -> None:
    features = tmp_path / "out" / "pt_files" / "s.v2.pt"
    assert clam.coords_files(features, None) == [
        tmp_path / "out" / "patches" / "s.v2.h5",
        tmp_path / "out" / "pt_files" / "patches" / "s.v2.h5",
    ]
    assert clam.coords_files(features, tmp_path / "c") == [tmp_path / "c" / "s.v2.h5"]


@pytest.mark.parametrize("slide_id", SLIDES)
def test_our_mark_adds_the_size_that_was_asked_for(tmp_path: Path, slide_id: str) -> None:
    """CLAM's own attributes have whole pixels of the level; the features' file is told by its mark."""
    assert clam.TOOL.writer is not None
    place = Place(tmp_path, clam.TOOL.writer, ENCODER, GRID)
    slide = embedded(slide_id, "float32")
    place.write(slide)
    geometry = slide.plan.geometry
    facts = read_facts(place.files(slide_id)["features"])
    assert (facts.layout, facts.patch_px, facts.nominal_um) == ("clam", 64, 32)
    assert facts.side(geometry.slide_mpp) == pytest.approx(geometry.patch_l0_px)
    with h5py.File(place.files(slide_id)["coords"]) as f:
        attributes = dict(f["coords"].attrs)
    assert attributes["patch_size"] == round(geometry.patch_level_px)
    assert attributes["patch_level"] == geometry.level
    assert attributes["downsample"].tolist() == [geometry.downsample] * 2
    assert attributes["level_dim"].tolist() == list(slide.level_size_px)


def test_a_mark_that_is_damaged_is_named(tmp_path: Path) -> None:
    with_coords_attributes(tmp_path / "a.h5", patch_size=256, downsample=1.0)
    with h5py.File(tmp_path / "a.h5", "r+") as f:
        f.attrs["g2l"] = "{}"
    with pytest.raises(BenchmarkError, match=r"a\.h5: what it says of its patches cannot be read \(no 'made_by'\)"):
        read_facts(tmp_path / "a.h5")
