"""TCGA-TILs: a miniature with the real folders, names and list of patches."""

from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError

LIST = "images-tcga-tils-metadata.csv"


def test_label_case_centre_and_split(tmp_path: Path) -> None:
    members = public_sets.read("tils", public_sets.tcga_tils(tmp_path))
    assert len(members.rows) == 8
    assert members.rows[0] == {
        "path": f"images-tcga-tils/pancancer/train/til-negative/TCGA-A1-A0SK-01Z-00-DX1_{0:031x}2.png",
        "label": "no TILs",
        "case_id": "TCGA-A1-A0SK",
        "center": "UCSF",
        "split": "train",
    }
    assert public_sets.column(members, "split") == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    of_brca = public_sets.read("tils-brca", tmp_path)
    assert all("/brca/" in path for path in public_sets.column(of_brca, "path"))


def test_the_archives_folder_may_lie_below(tmp_path: Path) -> None:
    public_sets.tcga_tils(tmp_path / "TCGA-TILs")
    assert len(public_sets.read("tils", tmp_path).rows) == 8


def damaged(root: Path, old: str, new: str) -> dict[str, str]:
    """What is left out once the first `old` in the list of patches is `new`."""
    path = root / LIST
    path.write_text(path.read_text().replace(old, new, 1))
    return public_sets.failed(public_sets.read("tils", root))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("train,pancancer,TCGA-A1", "other,pancancer,TCGA-A1", "none that the set documents"),
        (",til-negative,", ",til-maybe,", "none that the set documents"),
        ("train,pancancer,TCGA-A1", "test,pancancer,TCGA-A1", "disagrees"),
        (
            "train,pancancer,TCGA-A1-A0SK-01Z-00-DX1,",
            "train,pancancer,TCGA-XX-A0SK-01Z-00-DX1,",
            "not that of the file",
        ),
        ("train,pancancer,TCGA-A1-A0SK-01Z-00-DX1,", "train,pancancer,A1,", "no TCGA barcode"),
    ],
)
def test_a_line_that_contradicts_itself_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    (line,) = damaged(public_sets.tcga_tils(tmp_path), old, new).values()
    assert why in line
    assert "line 2 of" in line


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    root = public_sets.tcga_tils(tmp_path)
    gone = sorted((root / "images-tcga-tils/pancancer").rglob("*.png"))[0]
    gone.unlink()
    assert public_sets.failed(public_sets.read("tils", root)) == {
        str(gone.relative_to(root)): "there is no such file (line 14 of images-tcga-tils-metadata.csv)"
    }


def test_a_missing_list_and_an_unknown_study_are_named(tmp_path: Path) -> None:
    root = public_sets.tcga_tils(tmp_path)
    text = (root / LIST).read_text()
    (root / LIST).write_text(text.replace("pancancer", "luad"))
    with pytest.raises(BenchmarkError, match="no study pancancer; it has brca, luad"):
        public_sets.read("tils", root)
    (root / LIST).write_text(text.replace("partition", "part"))
    with pytest.raises(BenchmarkError, match="lacks the column partition"):
        public_sets.read("tils", root)
    (root / LIST).unlink()
    with pytest.raises(BenchmarkError, match=LIST):
        public_sets.read("tils", root)
