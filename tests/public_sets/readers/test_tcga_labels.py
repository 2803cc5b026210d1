"""Labels of TCGA slides, from a manifest of this project."""

from pathlib import Path

import pytest
from support import public_sets
from support.places import ROOT

from pipeline.base.errors import BenchmarkError


def test_slides_with_a_status(tmp_path: Path) -> None:
    members = public_sets.read("tp53", public_sets.tcga_labels(tmp_path))
    assert [(row["slide_id"], row["label"]) for row in members.rows] == [
        ("TCGA-A1-A0SK-01Z-00-DX1", "mutated"),
        ("TCGA-A2-A04P-01Z-00-DX1", "wild-type"),
        ("TCGA-E2-A14N-01Z-00-DX1", "mutated"),
    ]
    assert [(each.what, each.by_rule) for each in members.left_out] == [("TCGA-BH-A0B3-01Z-00-DX1", True)]


def test_the_projects_own_manifest_is_read() -> None:
    members = public_sets.read("tp53", ROOT / "data_manifests")
    labels = {row["case_id"]: row["label"] for row in members.rows}
    assert len(members.rows) + len(members.left_out) == 1134
    assert [list(labels.values()).count(label) for label in ("mutated", "wild-type")] == [340, 708]
    assert public_sets.failed(members) == {}


def test_a_slide_without_a_case_is_named(tmp_path: Path) -> None:
    root = public_sets.tcga_labels(tmp_path)
    text = (root / "tcga_brca.csv").read_text()
    (root / "tcga_brca.csv").write_text(text.replace(".svs,TCGA-A1-A0SK,", ".svs,,"))
    assert list(public_sets.failed(public_sets.read("tp53", root))) == ["TCGA-A1-A0SK-01Z-00-DX1"]


@pytest.mark.parametrize("word", ["NA", "unknown", " ", "a/b"])
def test_a_slide_without_an_id_is_named(tmp_path: Path, word: str) -> None:
    root = public_sets.tcga_labels(tmp_path)
    lines = (root / "tcga_brca.csv").read_text().splitlines(keepends=True)
    lines[1] = word + lines[1][lines[1].index(",") :]
    (root / "tcga_brca.csv").write_text("".join(lines))
    members = public_sets.read("tp53", root)
    ((what, why),) = public_sets.failed(members).items()
    assert what == (word.strip() or "TCGA-A1-A0SK")
    assert why.startswith(f"slide_id {word!r} ")
    assert "(line 2)" in why
    assert len(members.rows) == 2


def test_a_missing_manifest_and_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"tcga_brca\.csv"):
        public_sets.read("tp53", tmp_path)
    (tmp_path / "tcga_brca.csv").write_text("slide_id,case_id,center\na,b,c\n")
    with pytest.raises(BenchmarkError, match="lacks the column tp53"):
        public_sets.read("tp53", tmp_path)
