"""Where feature files are found: STAMP's trees, written as STAMP does; what could be meant in two ways is named."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.features.find import FeatureTree, find_feature_tree


def write_stamp(path: Path, extractor: str = "uni2", code_hash: str = "0a0a0a0a", feat_type: str = "tile") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        f["feats"], f["coords"] = np.ones((3, 4), np.float16), np.zeros((3, 2), np.float32)
        f.attrs.update({"stamp_version": "2.3.0", "extractor": extractor, "unit": "um", "tile_size_um": 112.0,
                        "tile_size_px": 224, "code_hash": code_hash, "feat_type": feat_type})  # fmt: skip
    return path


@pytest.mark.parametrize("root", ["uni2-0a0a0a0a", "uni2", "renamed"])
def test_slides_in_subfolders_are_found_from_the_output_folder_and_from_the_extractor_s(
    tmp_path: Path, root: str
) -> None:
    """As of a GDC download: a folder a slide. With `generate_hash: false` the extractor's folder has no hash."""
    made = {
        name: write_stamp(tmp_path / root / sub / f"{name}.h5")
        for name, sub in (("TCGA-A", "1f3c-77"), ("TCGA-B", "deep/9b"), ("TCGA-C", "."))
    }
    (tmp_path / root / "1f3c-77" / "TCGA-A.jpg").touch()
    write_stamp(tmp_path / root / ".cache" / "TCGA-D.h5")
    assert find_feature_tree(tmp_path).files == made
    assert find_feature_tree(tmp_path / root).files == made
    (tmp_path / root / "TCGA-C.h5").unlink()  # no file right in it
    assert find_feature_tree(tmp_path / root).files.keys() == {"TCGA-A", "TCGA-B"}


def test_a_tree_in_a_folder_of_a_known_name_is_read_whole(tmp_path: Path) -> None:
    write_stamp(tmp_path / "features_uni2" / "a.h5")
    write_stamp(tmp_path / "features_uni2" / "u" / "b.h5")
    assert find_feature_tree(tmp_path).files.keys() == {"a", "b"}


@pytest.mark.parametrize(
    "folders", [("features_tcga", "cptac"), ("features_tcga", "features_cptac"), ("h5_files", "x")]
)
def test_subfolders_may_have_names_that_other_tools_give(tmp_path: Path, folders: tuple[str, str]) -> None:
    made = {
        name: write_stamp(tmp_path / "uni2-0a0a0a0a" / sub / f"{name}.h5")
        for name, sub in zip("ab", folders, strict=True)
    }
    assert find_feature_tree(tmp_path).files == made
    assert find_feature_tree(tmp_path / "uni2-0a0a0a0a").files == made
    write_stamp(tmp_path / "uni2-0a0a0a0a" / "y" / "d.h5", "virchow2")
    with pytest.raises(BenchmarkError, match="several extractors or runs of STAMP"):
        find_feature_tree(tmp_path / "uni2-0a0a0a0a")


def test_folders_of_other_tools_are_still_one_choice(tmp_path: Path) -> None:
    write_stamp(tmp_path / "features_a" / "a.h5")
    (tmp_path / "features_b").mkdir()
    with h5py.File(tmp_path / "features_b" / "b.h5", "w") as f:
        f["features"] = np.ones((3, 4))
    with pytest.raises(BenchmarkError, match="several folders with features; name one of them"):
        find_feature_tree(tmp_path)


def test_links_to_folders_are_followed_and_no_loop_is(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "out" / "uni2-0a0a0a0a", tmp_path / "elsewhere"
    a = write_stamp(root / "u1" / "a.h5")
    write_stamp(elsewhere / "deep" / "b.h5")
    write_stamp(tmp_path / "other" / "c.h5")  # above the folder that is named: not a part of it
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


def test_a_benchmark_reads_such_a_tree(tmp_path: Path) -> None:
    for name in "ab":
        write_stamp(tmp_path / "f" / "uni2-0a0a0a0a" / name / f"{name}.h5")
    (tmp_path / "labels.csv").write_text("slide_id,y\na,0\nb,1\n")
    found = read_slide_set(tmp_path / "labels.csv", "y", [("uni2", tmp_path / "f")])
    assert [bag.slides for bag in found.bags] == [("a",), ("b",)]


def test_a_damaged_file_of_a_tree_is_kept_to_fail_by_its_name(tmp_path: Path) -> None:
    write_stamp(tmp_path / "u1" / "a.h5")
    (tmp_path / "u0").mkdir()
    (tmp_path / "u0" / "b.h5").write_bytes(b"cut short")
    assert find_feature_tree(tmp_path).files.keys() == {"a", "b"}
    (tmp_path / "0.h5").write_bytes(b"cut short")
    write_stamp(tmp_path / "c.h5")
    assert find_feature_tree(tmp_path).files.keys() == {"0", "a", "b", "c"}


@pytest.mark.parametrize("root", ["uni2-0a0a0a0a", "uni2", "renamed"])
def test_files_of_one_name_in_a_tree_are_called_by_their_paths_in_it(tmp_path: Path, root: str) -> None:
    """From the output folder and from the extractor's, if its name says that it is it; the others keep their names."""
    tree = tmp_path / root
    made = {name: write_stamp(tree / f"{name}.h5") for name in ("./s", "u1/s", "u2/deep/s", "u2/t")}
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
        write_stamp(tmp_path / "f" / "uni2-0a0a0a0a" / f"{name}.h5")
    (tmp_path / "labels.csv").write_text("slide_id,y\nu1/s,0\nt,1\ns,1\n")
    found = read_slide_set(tmp_path / "labels.csv", "y", [("uni2", tmp_path / "f")])
    assert [bag.slides for bag in found.bags] == [("t",), ("u1/s",)]
    assert [each.what for each in found.exclusions] == ["slide s"]


@pytest.mark.parametrize(
    ("one", "two"), [(("uni2", "0a0a0a0a"), ("virchow2", "0a0a0a0a")), (("uni2", "0a0a0a0a"), ("uni2", "0b0b0b0b"))]
)
def test_several_extractors_or_runs_are_named_and_none_is_guessed(
    tmp_path: Path, one: tuple[str, str], two: tuple[str, str]
) -> None:
    for slide, (extractor, code_hash) in (("a", one), ("b", two)):
        write_stamp(tmp_path / f"{extractor}-{code_hash}" / "u" / f"{slide}.h5", extractor, code_hash)
    with pytest.raises(BenchmarkError, match="several extractors or runs of STAMP") as caught:
        find_feature_tree(tmp_path)
    for extractor, code_hash in (one, two):
        assert f"{tmp_path / f'{extractor}-{code_hash}'} ({extractor})" in str(caught.value)
    assert find_feature_tree(tmp_path / f"{two[0]}-{two[1]}").files.keys() == {"b"}


def test_a_newer_stamp_that_continued_one_folder_is_one_run(tmp_path: Path) -> None:
    write_stamp(tmp_path / "uni2" / "a.h5", code_hash="0a0a0a0a")
    write_stamp(tmp_path / "uni2" / "u" / "b.h5", code_hash="0b0b0b0b")
    assert find_feature_tree(tmp_path).files.keys() == {"a", "b"}


def test_what_is_not_of_stamp_is_not_looked_for_in_subfolders(tmp_path: Path) -> None:
    for name in ("s_patches", "t"):
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / f"{name}.h5", "w") as f:
            f["coords"] = np.zeros((3, 2))
            if name == "t":
                f["features"] = np.ones((3, 4))
    write_stamp(tmp_path / "slides" / "s.h5", feat_type="slide")
    with pytest.raises(BenchmarkError, match=r"no feature files .* nor STAMP's anywhere below it"):
        find_feature_tree(tmp_path)
    write_stamp(tmp_path / "u" / "s.h5")
    assert find_feature_tree(tmp_path).files.keys() == {"s"}
    with h5py.File(tmp_path / "own.h5", "w") as f:
        f["features"] = np.ones((3, 4))
    assert find_feature_tree(tmp_path).files.keys() == {"own"}  # TRIDENT's or CLAM's folder is what lies in it
