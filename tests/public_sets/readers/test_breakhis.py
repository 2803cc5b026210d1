"""BreakHis: a miniature with the real folders and names."""

from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError
from pipeline.public_sets.readers.breakhis import read_members


@pytest.mark.parametrize(("name", "zoom"), [("breakhis", 40), ("breakhis-100x", 100)])
def test_one_magnification_with_type_case_and_slide(tmp_path: Path, name: str, zoom: int) -> None:
    members = public_sets.read(name, public_sets.breakhis(tmp_path))
    assert len(members.rows) == 10
    assert all(f"-{zoom}-" in path and f"/{zoom}X/" in path for path in public_sets.column(members, "path"))
    pairs = dict(zip(public_sets.column(members, "slide_id"), public_sets.column(members, "case_id"), strict=True))
    assert pairs == {
        "14-9133": "14-9133",
        "14-23060AB": "14-23060",
        "14-23060CD": "14-23060",
        "14-2523": "14-2523",
        "14-13412": "14-13412",
    }
    assert set(public_sets.column(members, "label")) == {"fibroadenoma", "ductal carcinoma"}


@pytest.mark.parametrize(
    "start", [".", "BreaKHis_v1", "BreaKHis_v1/histology_slides", "BreaKHis_v1/histology_slides/breast"]
)
def test_the_root_may_be_any_folder_above_the_classes(tmp_path: Path, start: str) -> None:
    public_sets.breakhis(tmp_path)
    members = public_sets.read("breakhis", tmp_path / start)
    assert len(members.rows) == 10
    assert members.images_root is not None
    assert all((members.images_root / path).is_file() for path in public_sets.column(members, "path"))


@pytest.mark.parametrize(
    "name",
    [
        "40X/SOB_B_DC-14-2523-40-001.png",  # ductal carcinoma is malignant
        "40X/SOB_M_DC-14-2523-100-001.png",  # another magnification than the folder's
        "40X/SOB_M_XX-14-2523-40-001.png",
        "40X/DC-2523.png",
    ],
)
def test_a_name_that_contradicts_itself_is_named(tmp_path: Path, name: str) -> None:
    folder = "breast/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523"
    public_sets.breakhis(tmp_path)
    public_sets.picture(tmp_path / "BreaKHis_v1/histology_slides" / folder / name, 1)
    members = public_sets.read("breakhis", tmp_path)
    assert (len(members.rows), list(public_sets.failed(members))) == (10, [f"{folder}/{name}"])


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    public_sets.breakhis(tmp_path)
    folder = tmp_path / "BreaKHis_v1/histology_slides/breast"
    (folder / "README.txt").write_text("about")
    (folder / "._SOB_B_A-14-22549AB-40-001.png").write_bytes(b"")
    members = public_sets.read("breakhis", tmp_path)
    assert (len(members.rows), members.left_out) == (10, ())


def test_missing_folders_and_magnifications_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no BreaKHis_v1/histology_slides"):
        public_sets.read("breakhis", tmp_path)
    public_sets.breakhis(tmp_path)
    with pytest.raises(BenchmarkError, match="has no field at 400X"):
        public_sets.read("breakhis-400x", tmp_path)
    with pytest.raises(BenchmarkError, match="magnification 50X"):
        read_members(tmp_path, tmp_path, {"magnification": "50X"})
