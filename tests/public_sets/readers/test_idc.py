"""Kaggle's IDC: a miniature with the real folders and names."""

import shutil
from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError


def test_label_and_case_are_from_folder_and_name(tmp_path: Path) -> None:
    members = public_sets.read("idc", public_sets.idc(tmp_path / "idc", patients=2, each=2))
    assert members.rows == (
        {"path": "8863/0/8863_idx5_x1_y1251_class0.png", "label": "no IDC", "case_id": "8863"},
        {"path": "8863/1/8863_idx5_x51_y1251_class1.png", "label": "IDC", "case_id": "8863"},
        {"path": "8864/0/8864_idx5_x1_y1251_class0.png", "label": "no IDC", "case_id": "8864"},
        {"path": "8864/1/8864_idx5_x51_y1251_class1.png", "label": "IDC", "case_id": "8864"},
    )
    assert (members.left_out, members.notes) == ((), ())


def test_the_second_copy_in_the_archive_is_passed_over(tmp_path: Path) -> None:
    root = public_sets.idc(tmp_path / "idc", patients=2)
    shutil.copytree(root, tmp_path / "copy")
    shutil.move(tmp_path / "copy", root / "IDC_regular_ps50_idx5")
    members = public_sets.read("idc", root)
    assert len(members.rows) == 8
    assert "8 images in IDC_regular_ps50_idx5" in members.notes[0]
    assert len(public_sets.read("idc", root / "IDC_regular_ps50_idx5").rows) == 8


def test_the_copy_alone_is_the_set(tmp_path: Path) -> None:
    public_sets.idc(tmp_path / "idc" / "IDC_regular_ps50_idx5", patients=2)
    assert len(public_sets.read("idc", tmp_path / "idc").rows) == 8


@pytest.mark.parametrize(
    "odd",
    [
        "8863/0/8863_idx5_x1_y1_class1.png",
        "8863/1/8864_idx5_x1_y1_class1.png",
        "8863/2/a.png",
        "8863/0/8863_class0.png",
    ],
)
def test_a_name_that_contradicts_its_folder_is_named(tmp_path: Path, odd: str) -> None:
    root = public_sets.idc(tmp_path / "idc", patients=2)
    public_sets.picture(root / odd, 7)
    members = public_sets.read("idc", root)
    assert (len(members.rows), list(public_sets.failed(members))) == (8, [odd])


def test_another_folder_is_no_idc(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no IDC_regular_ps50_idx5"):
        public_sets.read("idc", tmp_path)
    with pytest.raises(BenchmarkError, match="is not a folder"):
        public_sets.read("idc", tmp_path / "nowhere")
