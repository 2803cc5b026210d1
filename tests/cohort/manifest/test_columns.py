"""Columns of a manifest: other names of cases, and names that are nearly known ones."""

from pathlib import Path

import pytest
from support.files import write

from pipeline.cohort.manifest.read import parse_manifest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("annotaions", "annotations"),
        ("annotation", "annotations"),
        ("mmp", "mpp"),
        ("cas", "case_id"),
        ("caseid", "case_id"),
        ("patients", "case_id"),
        ("centre", "center"),
        ("spilt", "split"),
        ("sha-256", "sha256"),
        ("mpp_override", "mpp_overrides"),
        ("annotation_file", "annotations"),
        ("Annotations Path", "annotations"),
        ("mpp_x", "mpp"),
        ("center_name", "center"),
    ],
)
def test_a_column_that_is_nearly_a_known_one_is_noted(tmp_path: Path, typed: str, meant: str) -> None:
    table = write(tmp_path, f"slide_id,path,{typed}\na,a.svs,x\n")
    note = f"{table}: the column {typed!r} is only kept as a label; rename it if {meant} is meant"
    assert parse_manifest(table).notes == (note,)
    if meant == "case_id":
        meant = "case_id,patient"
    both = write(tmp_path, f"slide_id,path,{typed},{meant}\na,a.svs{',' * (meant.count(',') + 2)}\n")
    assert parse_manifest(both).notes == ()


def test_other_labels_are_kept_without_a_word(tmp_path: Path) -> None:
    labels = "site,class,stage,grade,sex,age,race,patient_age,patient_sex,stain,scanner,block,project_id,submitter_id,"
    labels += "sample_type,image_id,er_status,her2,md5,bytes,fold,set,batch,plate,date,hospital,label,slide,file_name"
    row = ",".join(["x"] * len(labels.split(",")))
    table = write(tmp_path, f"slide_id,path,{labels}\na,a.svs,{row}\n")
    manifest = parse_manifest(table)
    assert manifest.notes == ()
    assert list(manifest.rows[0].labels) == labels.split(",")


@pytest.mark.parametrize("name", ["patient_id", "Patient ID", "patient", "CASE"])
@pytest.mark.parametrize("empty", ["", "case_id"])
def test_cases_may_stand_in_a_column_of_another_name(tmp_path: Path, name: str, empty: str) -> None:
    """As in tables of `evaluate`; said in one line, and no label then."""
    table = tmp_path / "m.csv"
    columns = f",{empty}" * bool(empty)
    gap = "," * bool(empty)
    table.write_text(f"slide_id,path{columns},{name},grade\na,a.svs{gap},p1,2\nb,b.svs{gap},p1,3\nc,c.svs{gap},NA,3\n")
    manifest = parse_manifest(table)
    assert [(row.case_id, row.has_case) for row in manifest.rows] == [("p1", True), ("p1", True), ("c", False)]
    assert [dict(row.labels) for row in manifest.rows] == [{"grade": "2"}, {"grade": "3"}, {"grade": "3"}]
    assert manifest.notes == (f"{table}: the column {name} is taken for case_id",)


def test_case_id_comes_before_other_names_and_patients_before_cases(tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_text("slide_id,path,patient_id,case_id\na,a.svs,p,c\nb,b.svs,p,\n")
    manifest = parse_manifest(table)
    assert [(row.case_id, dict(row.labels)) for row in manifest.rows] == [
        ("c", {"patient_id": "p"}),
        ("b", {"patient_id": "p"}),
    ]
    table.write_text("slide_id,path,case,patient\na,a.svs,c1,p\nb,b.svs,c2,p\n")
    manifest = parse_manifest(table)
    assert [(row.case_id, sorted(row.labels)) for row in manifest.rows] == [("p", ["case"])] * 2
    table.write_text("slide_id,path,patient\na,a.svs,\nb,b.svs,NA\n")
    manifest = parse_manifest(table)
    assert ([row.has_case for row in manifest.rows], manifest.notes) == ([False, False], ())


@pytest.mark.parametrize(("column", "other"), [("case_id", "Patient ID"), ("patient", "case")])
def test_cases_that_only_another_column_gives_are_noted_and_not_mixed_in(
    tmp_path: Path, column: str, other: str
) -> None:
    """Else a patient may be on both sides of the split without a word."""
    table = write(tmp_path, f"slide_id,path,{column},{other}\na,a.svs,p1,p1\nb,b.svs,,p1\nc,c.svs,NA,p2\nd,d.svs,,\n")
    manifest = parse_manifest(table)
    assert [(row.case_id, row.has_case) for row in manifest.rows] == [
        ("p1", True),
        ("b", False),
        ("c", False),
        ("d", False),
    ]
    assert manifest.notes[-1] == (
        f"{table}: {other} gives the case of 2 rows without a {column}, each of which counts as a case of its own; "
        f"fill {column} from {other}, or remove {other}"
    )
    assert len(manifest.notes) == (1 if column == "case_id" else 2)
    table.write_text(f"slide_id,path,{column},{other}\na,a.svs,p1,\nb,b.svs,p1,p1\nc,c.svs,,NA\n")
    assert not any("gives the case" in note for note in parse_manifest(table).notes)
