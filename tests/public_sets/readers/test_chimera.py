"""CHIMERA, task 1: a miniature with the real folders and names."""

from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError


def test_label_and_case_of_every_slide(tmp_path: Path) -> None:
    members = public_sets.read("chimera", public_sets.chimera(tmp_path))
    assert [(row["slide_id"], row["case_id"], row["label"]) for row in members.rows[:3]] == [
        ("1003_1", "1003", "recurrence"),
        ("1003_2", "1003", "recurrence"),
        ("1004_1", "1004", "no recurrence"),
    ]
    assert (len(members.rows), members.images_root) == (8, None)
    assert public_sets.read("chimera", tmp_path / "task1").rows == members.rows


@pytest.mark.parametrize("text", ["", "{}", '{"BCR": "yes"}', '{"BCR": 2}', "[1]", '{"BCR": null}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    root = public_sets.chimera(tmp_path)
    (root / "task1/clinical_data/1004.json").write_text(text)
    members = public_sets.read("chimera", root)
    assert len(members.rows) == 6
    assert list(public_sets.failed(members)) == ["1004/1004_1.tif", "1004/1004_2.tif"]
    assert all(why.startswith("1004.json: no usable record") for why in public_sets.failed(members).values())


def test_a_missing_record_and_an_odd_name_are_named(tmp_path: Path) -> None:
    root = public_sets.chimera(tmp_path)
    (root / "task1/clinical_data/1003.json").unlink()
    (root / "task1/pathology/images/1005/1006_1.tif").write_bytes(b"")
    members = public_sets.read("chimera", root)
    assert list(public_sets.failed(members)) == ["1003/1003_1.tif", "1003/1003_2.tif", "1005/1006_1.tif"]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "task1/pathology/images").mkdir(parents=True)
    with pytest.raises(BenchmarkError, match="holds no clinical_data"):
        public_sets.read("chimera", tmp_path)
