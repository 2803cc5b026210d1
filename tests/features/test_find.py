"""Where feature files are found: STAMP's trees, written as STAMP does; what could be meant in two ways is named."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.feature_files import FEATURES, write_stamp_file, write_trident_file

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.features.find import FeatureTree, find_feature_tree


def test_folders_of_other_tools_are_still_one_choice(tmp_path: Path) -> None:
    write_stamp_file(tmp_path / "features_a" / "a.h5")
    (tmp_path / "features_b").mkdir()
    with h5py.File(tmp_path / "features_b" / "b.h5", "w") as f:
        f["features"] = np.ones((3, 4))
    with pytest.raises(BenchmarkError, match="several folders with features; name one of them"):
        find_feature_tree(tmp_path)


def test_a_benchmark_reads_such_a_tree(tmp_path: Path) -> None:
    for name in "ab":
        write_stamp_file(tmp_path / "f" / "uni2-0a0a0a0a" / name / f"{name}.h5")
    (tmp_path / "labels.csv").write_text("slide_id,y\na,0\nb,1\n")
    found = read_slide_set(tmp_path / "labels.csv", "y", [("uni2", tmp_path / "f")])
    assert [bag.slides for bag in found.bags] == [("a",), ("b",)]


def test_a_damaged_file_of_a_tree_is_kept_to_fail_by_its_name(tmp_path: Path) -> None:
    write_stamp_file(tmp_path / "u1" / "a.h5")
    (tmp_path / "u0").mkdir()
    (tmp_path / "u0" / "b.h5").write_bytes(b"cut short")
    assert find_feature_tree(tmp_path).files.keys() == {"a", "b"}
    (tmp_path / "0.h5").write_bytes(b"cut short")
    write_stamp_file(tmp_path / "c.h5")
    assert find_feature_tree(tmp_path).files.keys() == {"0", "a", "b", "c"}


@pytest.mark.parametrize("root", ["uni2-0a0a0a0a", "uni2", "renamed"])
def test_files_of_one_name_in_a_tree_are_called_by_their_paths_in_it(tmp_path: Path, root: str) -> None:
    """From the output folder and from the extractor's, if its name says that it is it; the others keep their names."""
    tree = tmp_path / root
    made = {name: write_stamp_file(tree / f"{name}.h5") for name in ("./s", "u1/s", "u2/deep/s", "u2/t")}
    made["t"] = made.pop("u2/t")
    assert find_feature_tree(tree) == FeatureTree(tree, made)
    prefix, top = ("renamed/", tmp_path) if root == "renamed" else ("", tree)
    assert find_feature_tree(tmp_path) == FeatureTree(
        top, {name if name == "t" else f"{prefix}{name}".replace("/./", "/"): path for name, path in made.items()}
    )
    (tree / "s.h5").unlink()
    (tree / "u1" / "s.h5").unlink()
    assert find_feature_tree(tree).files.keys() == {"s", "t"}


def test_a_benchmark_takes_such_a_path_for_an_id_and_leaves_a_name_of_two_out(tmp_path: Path) -> None:
    for name in ("u1/s", "u2/s", "u2/t"):
        write_stamp_file(tmp_path / "f" / "uni2-0a0a0a0a" / f"{name}.h5")
    (tmp_path / "labels.csv").write_text("slide_id,y\nu1/s,0\nt,1\ns,1\n")
    found = read_slide_set(tmp_path / "labels.csv", "y", [("uni2", tmp_path / "f")])
    assert [bag.slides for bag in found.bags] == [("t",), ("u1/s",)]
    assert [each.what for each in found.exclusions] == ["slide s"]


def test_several_folders_are_named_and_none_is_guessed(tmp_path: Path) -> None:
    write_trident_file(tmp_path / "features_uni" / "s1.h5")
    write_trident_file(tmp_path / "features_conch" / "s1.h5")
    with pytest.raises(BenchmarkError, match=r"several.*\n.*features_conch\n.*features_uni"):
        find_feature_tree(tmp_path)


def test_folders_without_features(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no such folder"):
        find_feature_tree(tmp_path / "gone")
    with pytest.raises(BenchmarkError, match="no feature files"):
        find_feature_tree(tmp_path)


def test_the_same_slide_twice(tmp_path: Path) -> None:
    write_trident_file(tmp_path / "s1.h5")
    torch.save(torch.from_numpy(FEATURES), tmp_path / "s1.pt")
    with pytest.raises(BenchmarkError, match=r"slide s1.*s1\.h5 and .*s1\.pt"):
        find_feature_tree(tmp_path)
