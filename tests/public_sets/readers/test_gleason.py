"""Arvaniti's TMAs: a miniature with the folders and names of the authors' script."""

import shutil
from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError


def test_label_case_and_the_sets_split(tmp_path: Path) -> None:
    members = public_sets.read("gleason", public_sets.gleason(tmp_path))
    assert len(members.rows) == 16
    assert {(row["case_id"], row["split"]) for row in members.rows} == {
        ("ZT111_4_A_1_12", "train"),
        ("ZT199_1_B_3_4", "train"),
        ("ZT76_39_A_1_1", "val"),
        ("ZT80_38_A_1_1", "test"),
    }
    assert {row["path"][-5]: row["label"] for row in members.rows} == {
        "0": "benign",
        "1": "Gleason 3",
        "2": "Gleason 4",
        "3": "Gleason 5",
    }
    assert [each.by_rule for each in members.left_out] == [True]  # the second pathologist's


def test_evas_variant_scores_the_validation_tma(tmp_path: Path) -> None:
    members = public_sets.read("gleason-eva", public_sets.gleason(tmp_path))
    assert {(row["case_id"][:4], row["split"]) for row in members.rows} == {
        ("ZT11", "train"),
        ("ZT19", "train"),
        ("ZT76", "test"),
    }
    assert public_sets.failed(members) == {}


@pytest.mark.parametrize(
    "odd",
    [
        "train_validation_patches_750/ZT80_38_A_1_1/ZT80_38_A_1_1_patch_1_class_0.jpg",
        "test_patches_750/patho_1/ZT76_39_A_1_1/ZT76_39_A_1_1_patch_1_class_0.jpg",
        "train_validation_patches_750/ZT99_1_A_1_1/ZT99_1_A_1_1_patch_1_class_0.jpg",
        "train_validation_patches_750/ZT76_39_A_1_1/ZT76_39_A_1_2_patch_1_class_0.jpg",
        "train_validation_patches_750/ZT76_39_A_1_1/ZT76_39_A_1_1_patch_1_class_4.jpg",
    ],
)
def test_a_name_outside_the_set_is_named(tmp_path: Path, odd: str) -> None:
    root = public_sets.gleason(tmp_path)
    public_sets.picture(root / odd, 1)
    members = public_sets.read("gleason", root)
    assert (len(members.rows), list(public_sets.failed(members))) == (16, [odd])


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    root = public_sets.gleason(tmp_path)
    shutil.rmtree(root / "test_patches_750/patho_1")
    with pytest.raises(BenchmarkError, match="holds no test_patches_750/patho_1"):
        public_sets.read("gleason", root)
