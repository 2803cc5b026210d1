"""BRACS RoIs: a miniature with the real folders and names."""

from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError


@pytest.mark.parametrize("start", [".", "BRACS_RoI", "BRACS_RoI/latest_version"])
def test_label_slide_and_split(tmp_path: Path, start: str) -> None:
    members = public_sets.read("bracs", public_sets.bracs(tmp_path) / start)
    assert len(members.rows) == 8
    assert members.rows[0] == {
        "path": "test/0_N/BRACS_291_N_4.png",
        "label": "normal",
        "slide_id": "BRACS_291",
        "split": "test",
    }
    assert sorted(public_sets.column(members, "split")) == ["test"] * 2 + ["train"] * 4 + ["val"] * 2


@pytest.mark.parametrize(
    "odd",
    ["train/0_N/BRACS_264_IC_1.png", "train/1_N/BRACS_264_N_9.png", "other/0_N/BRACS_264_N_9.png", "train/0_N/264.png"],
)
def test_a_name_that_contradicts_its_folder_is_named(tmp_path: Path, odd: str) -> None:
    root = public_sets.bracs(tmp_path)
    public_sets.picture(root / "BRACS_RoI/latest_version" / odd, 1)
    members = public_sets.read("bracs", root)
    assert (len(members.rows), list(public_sets.failed(members))) == (8, [odd])


def test_a_folder_without_rois(tmp_path: Path) -> None:
    (tmp_path / "latest_version").mkdir()
    with pytest.raises(BenchmarkError, match="has no RoI of BRACS"):
        public_sets.read("bracs", tmp_path)


def test_a_class_that_is_a_link_is_read(tmp_path: Path) -> None:
    root = public_sets.bracs(tmp_path / "bracs")
    before = public_sets.read("bracs", root)
    (place,) = root.rglob("test/6_IC")
    (tmp_path / "large").mkdir()
    place.rename(tmp_path / "large/6_IC")
    place.symlink_to(tmp_path / "large/6_IC")
    assert public_sets.read("bracs", root) == before


def test_a_class_that_cannot_be_followed_is_named(tmp_path: Path) -> None:
    root = public_sets.bracs(tmp_path / "bracs")
    (place,) = root.rglob("test/6_IC")
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "gone")
    assert list(public_sets.failed(public_sets.read("bracs", root))) == ["test/6_IC"]
