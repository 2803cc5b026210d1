"""An exported set of PathoROB, in miniature."""

from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.robustness.data import read_robustness_set


def test_the_table_is_one_that_evaluate_reads(tmp_path: Path) -> None:
    members = public_sets.read("pathorob-camelyon", public_sets.pathorob(tmp_path / "set"))
    assert len(members.rows) == 32
    public_sets.write_csv(tmp_path / "t.csv", list(members.rows[0]), [list(row.values()) for row in members.rows])
    read = read_robustness_set(tmp_path / "t.csv", members.images_root)
    assert read.index is not None
    assert len(read.paths) == 32
    assert set(read.index.centers.tolist()) == {"RUMC", "UMCU"}
    assert len(set(read.index.slides.tolist())) == 16


def test_missing_images_and_empty_cells_are_named(tmp_path: Path) -> None:
    root = public_sets.pathorob(tmp_path / "set")
    (root / "images/slide_3-1.png").unlink()
    text = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(text.replace("ID,slide_5,0,tumor,RUMC", "ID,slide_5,0,,RUMC"))
    members = public_sets.read("pathorob-camelyon", root)
    assert len(members.rows) == 30
    assert public_sets.failed(members) == {
        "slide_3-1.png": "there is no such image (line 9 of metadata.csv)",
        "slide_5-0.png": "biological_class is empty (line 12 of metadata.csv)",
    }


def test_what_is_no_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no images"):
        public_sets.read("pathorob-tcga", tmp_path)
    root = public_sets.pathorob(tmp_path / "set")
    (root / "metadata.csv").write_text("slide_id,patch_id\na,1\n")
    with pytest.raises(BenchmarkError, match="lacks the columns subset, biological_class, medical_center"):
        public_sets.read("pathorob-tcga", root)


def test_a_name_that_leads_elsewhere_is_no_image(tmp_path: Path) -> None:
    root = public_sets.pathorob(tmp_path / "set")
    public_sets.picture(tmp_path / "set" / "other-0.png", 1)
    with (root / "metadata.csv").open("a") as file:
        file.write("ID,../other,0,tumor,RUMC\n")
    assert list(public_sets.failed(public_sets.read("pathorob-tcga", root))) == ["../other-0.png"]
