"""STAMP's files and trees, written as STAMP does: half precision, um, and slides in subfolders."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.embedded import ENCODER, GRID, embedded
from support.feature_files import COORDS, FEATURES, write_stamp_file
from support.limits import unlisted

from pipeline.base.errors import BenchmarkError
from pipeline.features.find import find_feature_tree
from pipeline.features.layouts import Place
from pipeline.features.read import read_facts, read_features
from pipeline.features.tool import FeatureFile
from pipeline.features.tools import stamp


def write_numbers(path: Path) -> None:
    """Features and coordinates that are not all the same."""
    with h5py.File(path, "w") as f:
        f["feats"] = FEATURES.astype(np.float16)
        f["coords"] = COORDS.astype(np.float32) * 0.25
        f.attrs.update(
            {
                "stamp_version": "2.3.0",
                "extractor": "virchow2",
                "unit": "um",
                "tile_size_um": 256.0,
                "tile_size_px": 224,
                "code_hash": "abc",
                "feat_type": "tile",
            }
        )


def test_stamp_has_half_precision_and_micrometres(tmp_path: Path) -> None:
    write_numbers(tmp_path / "s1.h5")
    found = read_features(find_feature_tree(tmp_path).files["s1"])
    np.testing.assert_array_equal(found.features, FEATURES.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.coords, COORDS * 0.25)
    assert (found.encoder, found.coords.dtype) == ("virchow2", np.float64)


@pytest.mark.parametrize("root", ["uni2-0a0a0a0a", "uni2", "renamed"])
def test_slides_in_subfolders_are_found_from_the_output_folder_and_from_the_extractor_s(
    tmp_path: Path, root: str
) -> None:
    """As of a GDC download: a folder a slide. With `generate_hash: false` the extractor's folder has no hash."""
    made = {
        name: write_stamp_file(tmp_path / root / sub / f"{name}.h5")
        for name, sub in (("TCGA-A", "1f3c-77"), ("TCGA-B", "deep/9b"), ("TCGA-C", "."))
    }
    (tmp_path / root / "1f3c-77" / "TCGA-A.jpg").touch()
    write_stamp_file(tmp_path / root / ".cache" / "TCGA-D.h5")
    assert find_feature_tree(tmp_path).files == made
    assert find_feature_tree(tmp_path / root).files == made
    (tmp_path / root / "TCGA-C.h5").unlink()  # no file right in it
    assert find_feature_tree(tmp_path / root).files.keys() == {"TCGA-A", "TCGA-B"}


def test_a_tree_in_a_folder_of_a_known_name_is_read_whole(tmp_path: Path) -> None:
    write_stamp_file(tmp_path / "features_uni2" / "a.h5")
    write_stamp_file(tmp_path / "features_uni2" / "u" / "b.h5")
    assert find_feature_tree(tmp_path).files.keys() == {"a", "b"}


@pytest.mark.parametrize(
    "folders", [("features_tcga", "cptac"), ("features_tcga", "features_cptac"), ("h5_files", "x")]
)
def test_subfolders_may_have_names_that_other_tools_give(tmp_path: Path, folders: tuple[str, str]) -> None:
    made = {
        name: write_stamp_file(tmp_path / "uni2-0a0a0a0a" / sub / f"{name}.h5")
        for name, sub in zip("ab", folders, strict=True)
    }
    assert find_feature_tree(tmp_path).files == made
    assert find_feature_tree(tmp_path / "uni2-0a0a0a0a").files == made
    write_stamp_file(tmp_path / "uni2-0a0a0a0a" / "y" / "d.h5", "virchow2")
    with pytest.raises(BenchmarkError, match="several extractors or runs of STAMP"):
        find_feature_tree(tmp_path / "uni2-0a0a0a0a")


def test_links_to_folders_are_followed_and_no_loop_is(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "out" / "uni2-0a0a0a0a", tmp_path / "elsewhere"
    a = write_stamp_file(root / "u1" / "a.h5")
    write_stamp_file(elsewhere / "deep" / "b.h5")
    write_stamp_file(tmp_path / "other" / "c.h5")  # above the folder that is named: not a part of it
    (root / "link").symlink_to(elsewhere)
    (root / "again").symlink_to(elsewhere / "deep")
    (root / "u0").symlink_to("u1")
    (root / "u1" / "up").symlink_to(root)
    (root / "top").symlink_to(tmp_path)
    (elsewhere / "deep" / "loop").symlink_to(elsewhere)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    for folder in (root, tmp_path / "out"):
        found = find_feature_tree(folder).files
        assert found.keys() == {"a", "b"}
        assert found["a"] == a
        assert found["b"].resolve() == elsewhere / "deep" / "b.h5"


@pytest.mark.parametrize(
    ("one", "two"), [(("uni2", "0a0a0a0a"), ("virchow2", "0a0a0a0a")), (("uni2", "0a0a0a0a"), ("uni2", "0b0b0b0b"))]
)
def test_several_extractors_or_runs_are_named_and_none_is_guessed(
    tmp_path: Path, one: tuple[str, str], two: tuple[str, str]
) -> None:
    for slide, (extractor, code_hash) in (("a", one), ("b", two)):
        write_stamp_file(tmp_path / f"{extractor}-{code_hash}" / "u" / f"{slide}.h5", extractor, code_hash)
    with pytest.raises(BenchmarkError, match="several extractors or runs of STAMP") as caught:
        find_feature_tree(tmp_path)
    for extractor, code_hash in (one, two):
        assert f"{tmp_path / f'{extractor}-{code_hash}'} ({extractor})" in str(caught.value)
    assert find_feature_tree(tmp_path / f"{two[0]}-{two[1]}").files.keys() == {"b"}


def test_a_newer_stamp_that_continued_one_folder_is_one_run(tmp_path: Path) -> None:
    write_stamp_file(tmp_path / "uni2" / "a.h5", code_hash="0a0a0a0a")
    write_stamp_file(tmp_path / "uni2" / "u" / "b.h5", code_hash="0b0b0b0b")
    assert find_feature_tree(tmp_path).files.keys() == {"a", "b"}


def test_what_is_not_of_stamp_is_not_looked_for_in_subfolders(tmp_path: Path) -> None:
    for name in ("s_patches", "t"):
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / f"{name}.h5", "w") as f:
            f["coords"] = np.zeros((3, 2))
            if name == "t":
                f["features"] = np.ones((3, 4))
    write_stamp_file(tmp_path / "slides" / "s.h5", feat_type="slide")
    with pytest.raises(BenchmarkError, match=r"no feature files .* nor STAMP's anywhere below it"):
        find_feature_tree(tmp_path)
    write_stamp_file(tmp_path / "u" / "s.h5")
    assert find_feature_tree(tmp_path).files.keys() == {"s"}
    with h5py.File(tmp_path / "own.h5", "w") as f:
        f["features"] = np.ones((3, 4))
    assert find_feature_tree(tmp_path).files.keys() == {"own"}  # TRIDENT's or CLAM's folder is what lies in it


# --- what a file says ---


def test_coordinates_and_sides_are_in_um(tmp_path: Path) -> None:
    facts = read_facts(write_stamp_file(tmp_path / "a.h5"))
    assert (facts.layout, facts.in_um, facts.patch_px, facts.side_um) == ("stamp", True, 224, 112)
    assert facts.side(0.25) == 448


@pytest.mark.parametrize("unit", [None, "px", "mm"])
def test_another_unit_is_refused(tmp_path: Path, unit: str | None) -> None:
    path = write_stamp_file(tmp_path / "a.h5")
    with h5py.File(path, "r+") as f:
        del f.attrs["unit"]
        if unit:
            f.attrs["unit"] = unit
    with pytest.raises(BenchmarkError, match=rf"a\.h5: STAMP's attribute unit is {unit!r}, not 'um'"):
        stamp.facts(FeatureFile(path))


def test_a_file_without_feats_is_left_to_others(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["features"] = FEATURES
    file = FeatureFile(tmp_path / "a.h5")
    assert (stamp.read(file), stamp.facts(file)) == (None, None)


def test_the_first_file_that_can_be_read_tells_whose_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "bad.h5").write_bytes(b"cut short")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["features"] = FEATURES
    own, slide = write_stamp_file(tmp_path / "a.h5"), write_stamp_file(tmp_path / "b.h5", feat_type="slide")
    bad, other = tmp_path / "bad.h5", tmp_path / "other.h5"
    assert stamp.holds([bad, own, other])
    assert not stamp.holds([bad, other, own])
    assert not stamp.holds([slide])
    assert not stamp.holds([bad])
    assert not stamp.holds([])


def test_files_right_in_a_folder_are_no_tree(tmp_path: Path) -> None:
    """And are not opened."""
    (tmp_path / "a.h5").write_bytes(b"cut short")
    assert stamp.find(tmp_path, "") == ([], tmp_path)


def test_what_is_written_has_places_in_um_and_a_version_that_every_stamp_reads(tmp_path: Path) -> None:
    assert stamp.TOOL.writer is not None
    place = Place(tmp_path, stamp.TOOL.writer, ENCODER, GRID)
    slide = embedded("odd.v2", "float16")
    place.write(slide)
    with h5py.File(tmp_path / "odd.v2.h5") as f:
        assert f["feats"].dtype == np.float16
        np.testing.assert_allclose(f["coords"][()], slide.coords_l0_px * 0.2527, rtol=1e-6)
        attributes = dict(f.attrs)
    assert (attributes["stamp_version"], attributes["extractor"], attributes["unit"]) == ("2.1.0", ENCODER, "um")
    assert (attributes["tile_size_um"], attributes["tile_size_px"]) == (32, 64)
    assert len(attributes["code_hash"]) == stamp.HASH_CHARS


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slides in it would lack their features without a word."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_stamp_file(tmp_path / name / "s.h5")
    monkeypatch.setattr(os, "scandir", unlisted(tmp_path / "b"))
    with pytest.raises(BenchmarkError, match=r"b: the folder cannot be listed \(Permission denied\)"):
        find_feature_tree(tmp_path)
