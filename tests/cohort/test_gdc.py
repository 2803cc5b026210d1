"""Manifest rows from a download manifest of the GDC, and from its answer to a query."""

import json
import re
from pathlib import Path

import pytest
from support.files import GDC_HEADER, gdc_line, write
from support.places import ROOT

from pipeline.base.errors import ManifestError
from pipeline.cohort.barcodes import frozen_sections
from pipeline.cohort.gdc import (
    ANSWER_CASE,
    ANSWER_COLUMNS,
    ANSWER_LABELS,
    kinds_of_samples,
    rows_from_gdc,
    source_sites,
)
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.sources import make_manifest

ANSWER_HEADER = (
    "cases.0.project.project_id\tcases.0.samples.0.sample_type\tcases.0.submitter_id\texperimental_strategy\t"
    "file_id\tfile_name\tfile_size\tid\tmd5sum\tstate\n"
)
"""The columns that the GDC gives for the fields of `gdc_query.json`, sorted by name, with the file's id once more: by
the form of the answers that its documentation prints (decision 0061); nobody here has received one.
"""
LISTS = re.compile(r"\b(cases|samples|portions|analytes|aliquots)(?=\.)")
"""Fields that are lists: their entries are numbered in an answer."""


def answer_line(
    name: str, case: str, sample_type: str = "Primary Tumor", slide_type: str = "Diagnostic Slide", gdc_id: str = "u-1"
) -> str:
    fields = ("TCGA-PRAD", sample_type, case, slide_type, gdc_id, name, "1706305510", gdc_id, "e2ae6d54", "released")
    return "\t".join(fields) + "\n"


def test_the_query_asks_for_what_is_read() -> None:
    query = json.loads((ROOT / "data_manifests" / "gdc_query.json").read_text())
    filters = {each["content"]["field"]: each["content"]["value"] for each in query["filters"]["content"]}
    assert filters["cases.project.project_id"] == ["TCGA-PRAD"]
    assert filters["experimental_strategy"] == ["Diagnostic Slide"]
    assert query["format"] == "TSV"
    columns = [LISTS.sub(r"\1.0", field) for field in query["fields"].split(",")]
    assert ANSWER_HEADER.strip().split("\t") == sorted([*columns, "id"])  # which the GDC adds unasked
    assert {*ANSWER_COLUMNS, ANSWER_CASE, *ANSWER_LABELS.values()} <= set(ANSWER_HEADER.strip().split("\t"))


RECORDED_FIELDS = (
    "file_id,file_name,cases.submitter_id,cases.case_id,data_category,data_type,cases.samples.tumor_descriptor,"
    "cases.samples.tissue_type,cases.samples.sample_type,cases.samples.submitter_id,cases.samples.sample_id,"
    "cases.samples.portions.analytes.aliquots.aliquot_id,cases.samples.portions.analytes.aliquots.submitter_id"
)
RECORDED_ANSWER = (
    "cases.0.case_id\tcases.0.samples.0.portions.0.analytes.0.aliquots.0.aliquot_id\t"
    "cases.0.samples.0.portions.0.analytes.0.aliquots.0.submitter_id\tcases.0.samples.0.sample_id\t"
    "cases.0.samples.0.sample_type\tcases.0.samples.0.submitter_id\tcases.0.samples.0.tissue_type\t"
    "cases.0.samples.0.tumor_descriptor\tcases.0.submitter_id\tdata_category\tdata_type\tfile_id\tfile_name\tid\n"
    "f0d8a1fe-e313-44f1-99cc-b965cbeeff0e\t922226ba-6244-4953-ad42-f4daa474c288\tTCGA-C8-A27B-10A-01D-A167-09\t"
    "31139082-7978-45aa-9d8f-ac4789ac5cec\tBlood Derived Normal\tTCGA-C8-A27B-10A\tNormal\tNot Applicable\t"
    "TCGA-C8-A27B\tSequencing Reads\tAligned Reads\ta2ee0837-f3a9-42be-ba26-f2bb1d6a50c0\t"
    "922226ba-6244-4953-ad42-f4daa474c288_wxs_gdc_realn.bam\ta2ee0837-f3a9-42be-ba26-f2bb1d6a50c0\n"
)
"""A query's fields and the first row of what the GDC answered, as its API User's Guide prints them ("Search and
Retrieval", a POST for a TSV). Of sequences: it prints none of slides.
"""


def test_the_columns_rule_is_that_of_an_answer_that_the_gdc_gave(tmp_path: Path) -> None:
    """And as it is of no slides and has no sizes, it is refused by the names of the columns that it lacks."""
    header, row = (line.split("\t") for line in RECORDED_ANSWER.splitlines())
    assert header == sorted([*(LISTS.sub(r"\1.0", field) for field in RECORDED_FIELDS.split(",")), "id"])
    named = dict(zip(header, row, strict=True))
    assert named["id"] == named["file_id"]
    assert named[ANSWER_CASE] == "TCGA-C8-A27B"
    assert named[ANSWER_LABELS["sample_type"]] == "Blood Derived Normal"
    with pytest.raises(ManifestError) as refused:
        rows_from_gdc(write(tmp_path, RECORDED_ANSWER, "answer.tsv"))
    assert all(column in str(refused.value) for column in ("md5sum", "file_size"))


def test_rows_from_an_answer(tmp_path: Path) -> None:
    lines = [
        answer_line("TCGA-HC-7077-01Z-00-DX1.AA.svs", "TCGA-HC-7077"),
        answer_line("tcga-hc-7078-01z-00-dx1.BB.svs", "TCGA-HC-7078", "Solid Tissue Normal", gdc_id="u-2"),
        answer_line("C3L-00001-21.svs", "C3L-00001", gdc_id="u-3"),
    ]
    tsv = write(tmp_path, ANSWER_HEADER + "".join(lines), "prad.tsv")
    rows = {row.slide_id: row for row in rows_from_gdc(tsv)}
    assert rows["TCGA-HC-7077-01Z-00-DX1"] == ManifestRow(
        "TCGA-HC-7077-01Z-00-DX1",
        "u-1/TCGA-HC-7077-01Z-00-DX1.AA.svs",
        "TCGA-HC-7077",
        source_sites()["HC"],
        labels={
            "site": "HC",
            "file_name": "TCGA-HC-7077-01Z-00-DX1.AA.svs",
            "gdc_id": "u-1",
            "md5": "e2ae6d54",
            "bytes": "1706305510",
            "project": "TCGA-PRAD",
            "sample_type": "Primary Tumor",
            "slide_type": "Diagnostic Slide",
        },
    )
    assert rows["tcga-hc-7078-01z-00-dx1"].case_id == "TCGA-HC-7078"
    assert (rows["C3L-00001-21"].case_id, rows["C3L-00001-21"].center) == ("C3L-00001", None)
    assert kinds_of_samples(rows.values()) == (
        "by the GDC: 3 TCGA-PRAD; 2 Primary Tumor, 1 Solid Tissue Normal; 3 Diagnostic Slide"
    )
    said = make_manifest(tsv, tmp_path / "m.csv")
    assert f"note: {kinds_of_samples(rows.values())}" in said
    write_manifest(tmp_path / "again.csv", rows.values())
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()
    with pytest.raises(ManifestError, match="no slide file"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_an_answers_columns_come_in_any_order(tmp_path: Path, line_end: str) -> None:
    lines = [
        answer_line("TCGA-HC-7077-01Z-00-DX1.AA.svs", "TCGA-HC-7077"),
        answer_line("C3L-1.svs", "C3L-1", "", "", "u-2"),
    ]
    expected = rows_from_gdc(write(tmp_path, ANSWER_HEADER + "".join(lines), "sorted.tsv"))
    turned = ["\t".join(reversed(line.rstrip("\n").split("\t"))) for line in (ANSWER_HEADER, *lines)]
    (tmp_path / "turned.tsv").write_bytes("".join(line + line_end for line in turned).encode())
    assert rows_from_gdc(tmp_path / "turned.tsv") == expected


def test_an_answer_with_frozen_sections_is_warned_of(tmp_path: Path) -> None:
    lines = [
        answer_line("TCGA-HC-7077-01Z-00-DX1.AA.svs", "TCGA-HC-7077"),
        answer_line("TCGA-HC-7077-01A-01-TS1.CC.svs", "TCGA-HC-7077", slide_type="Tissue Slide", gdc_id="u-2"),
    ]
    said = make_manifest(write(tmp_path, ANSWER_HEADER + "".join(lines), "prad.tsv"), tmp_path / "m.csv")
    assert [line for line in said if line.startswith("warning: 1 of the slides are frozen sections (TS in the name)")]


def said_of_slides(tmp_path: Path, *kinds: tuple[str, str]) -> list[str]:
    """What `make-manifest` says of an answer with slides of these names and types, from its notes on."""
    lines = [answer_line(f"{name}.svs", name[:9], "", kind, f"u-{i}") for i, (name, kind) in enumerate(kinds)]
    (tmp_path / "m.csv").unlink(missing_ok=True)
    return make_manifest(write(tmp_path, ANSWER_HEADER + "".join(lines), "cptac.tsv"), tmp_path / "m.csv")[1:]


def test_tissue_slides_beside_diagnostic_ones_are_warned_of_by_the_answers_own_type(tmp_path: Path) -> None:
    diagnostic, tissue = ("C3L-00001-21", "Diagnostic Slide"), ("C3L-00002-22", "Tissue Slide")
    note, warning = said_of_slides(tmp_path, diagnostic, tissue)
    assert note == "note: by the GDC: 2 TCGA-PRAD; 1 Diagnostic Slide, 1 Tissue Slide"
    assert warning.startswith(
        "warning: 1 of the slides are tissue slides by slide_type beside 1 diagnostic ones: C3L-00002-22.svs. In TCGA "
    )
    assert "other projects may file any slide so" in warning
    assert len(said_of_slides(tmp_path, diagnostic)) == 1
    assert len(said_of_slides(tmp_path, tissue, ("C3L-00001-21", "Tissue Slide"))) == 1
    assert len(said_of_slides(tmp_path, tissue, ("C3L-00001-21", ""), ("C3L-00003-21", "something else"))) == 1


def test_a_barcodes_section_says_more_than_the_answers_type() -> None:
    kinds = frozen_sections([("TCGA-HC-7077-01Z-00-DX1.svs", "Tissue Slide"), ("C3L-1.svs", "diagnostic slide ")])
    assert kinds == []
    (frozen,) = frozen_sections([("TCGA-HC-7077-01A-01-TS1.svs", "Tissue Slide"), ("C3L-1.svs", "Diagnostic Slide")])
    assert frozen.startswith("1 of the slides are frozen sections (TS in the name) beside 1 diagnostic ones: TCGA-HC")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            answer_line("TCGA-HC-7077-01Z-00-DX1.svs", "TCGA-HC-9999"),
            "is of case 'TCGA-HC-9999' by cases.0.submitter_id",
        ),
        (answer_line("C3L-1.svs", ""), "line 2: 'C3L-1.svs' has no TCGA barcode"),
        (answer_line("C3L-1.pdf", "C3L-1"), "line 2: 'C3L-1.pdf' is not a slide"),
        (answer_line("", "C3L-1"), "line 2: no filename"),
    ],
)
def test_answers_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        rows_from_gdc(write(tmp_path, ANSWER_HEADER + text, "answer.tsv"))
    assert message in str(caught.value)


def test_a_file_of_several_cases_is_refused(tmp_path: Path) -> None:
    header = ANSWER_HEADER.strip() + "\tcases.1.submitter_id\n"
    lines = [
        answer_line("C3L-1.svs", "C3L-1").strip() + "\t\n",
        answer_line("C3L-2.svs", "C3L-2").strip() + "\tC3L-3\n",
    ]
    with pytest.raises(ManifestError, match=r"line 3: 'C3L-2.svs' is of several cases \(C3L-2, C3L-3\)"):
        rows_from_gdc(write(tmp_path, header + "".join(lines), "answer.tsv"))


def test_an_answer_without_a_column_that_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="lacks the columns md5sum, file_size"):
        rows_from_gdc(write(tmp_path, "file_id\tfile_name\nu-1\tTCGA-HC-7077-01Z-00-DX1.svs\n", "answer.tsv"))


def test_rows_from_gdc(tmp_path: Path) -> None:
    lines = [
        gdc_line("TCGA-3C-AALI-01Z-00-DX1.F6E9.svs", "id-1"),
        gdc_line("TCGA-A1-A0SB-01Z-00-DX1.AAAA.svs", "id-3"),
        gdc_line("TCGA-A1-A0SB-01Z-00-DX1.BBBB.svs", "id-2"),
    ]
    tsv = write(tmp_path, GDC_HEADER + "".join(reversed(lines)), "gdc.txt")
    rows = rows_from_gdc(tsv)
    assert rows[0] == ManifestRow(
        slide_id="TCGA-3C-AALI-01Z-00-DX1",
        path="id-1/TCGA-3C-AALI-01Z-00-DX1.F6E9.svs",
        case_id="TCGA-3C-AALI",
        center="Columbia University",
        labels={
            "site": "3C",
            "file_name": "TCGA-3C-AALI-01Z-00-DX1.F6E9.svs",
            "gdc_id": "id-1",
            "md5": "e2ae6d54",
            "bytes": "1706305510",
        },
    )
    assert [row.slide_id for row in rows[1:]] == ["TCGA-A1-A0SB-01Z-00-DX1.AAAA", "TCGA-A1-A0SB-01Z-00-DX1.BBBB"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id,path\na,a.svs\n", "lacks the columns id, filename, md5, size; split at tabs, it has"),
        (GDC_HEADER, "has a header but no rows"),
        (GDC_HEADER + "id\tx.svs\n", "line 2: 2 cells where the header has 5"),
        (GDC_HEADER + gdc_line("GTEX-1.svs"), "line 2: 'GTEX-1.svs' has no TCGA barcode"),
        (GDC_HEADER + gdc_line("TCGA-3C-AALIX.svs"), "has no TCGA barcode"),
        (GDC_HEADER + gdc_line("TCGA-00-AALI-01.svs"), "line 2: 'TCGA-00-AALI-01.svs' has the unknown site code '00'"),
        (GDC_HEADER + gdc_line("TCGA-3C-AALI-01.bam"), "line 2: 'TCGA-3C-AALI-01.bam' is not a slide"),
        (GDC_HEADER + 2 * gdc_line("TCGA-3C-AALI-01.A.svs"), "slide_id 'TCGA-3C-AALI-01.A' is given on lines 2, 3"),
    ],
)
def test_gdc_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        rows_from_gdc(write(tmp_path, text, "gdc.txt"))
    assert message in str(caught.value)


NAME = "TCGA-3C-AALI-01Z-00-DX1.A.svs"


@pytest.mark.parametrize(
    ("name", "gdc_id", "message"),
    [
        (f"b/../../{NAME}", "u-1", "has a slash"),
        (f"b\\{NAME}", "u-1", "has a slash, a backslash"),
        (f".{NAME}", "u-1", "starts with a dot"),
        (NAME.replace(".", "..", 1), "u-1", "has two dots in a row"),
        (NAME, "/etc", "id '/etc' has a slash"),
        (NAME, "../../x", "starts with a dot"),
        (NAME, "x..y", "id 'x..y' has two dots in a row"),
    ],
)
def test_names_that_lead_to_another_folder_are_refused(tmp_path: Path, name: str, gdc_id: str, message: str) -> None:
    for text in (GDC_HEADER + gdc_line(name, gdc_id), ANSWER_HEADER + answer_line(name, "TCGA-3C-AALI", gdc_id=gdc_id)):
        with pytest.raises(ManifestError, match="line 2") as caught:
            rows_from_gdc(write(tmp_path, text, "gdc.txt"))
        assert message in str(caught.value)


def test_a_file_name_that_gives_no_slide_id_is_refused(tmp_path: Path) -> None:
    text = ANSWER_HEADER + answer_line("NA.svs", "C3L-1")
    with pytest.raises(ManifestError, match="line 2: slide_id 'NA' stands for a missing value"):
        rows_from_gdc(write(tmp_path, text, "gdc.txt"))


def test_one_file_under_two_cases_is_refused(tmp_path: Path) -> None:
    md5 = "e2ae6d543180fb8004c30a8f13fde42d"
    first, second, copy = (
        gdc_line(f"TCGA-3C-{case}-01Z-00-DX{n}.A.svs", f"u-{case}-{n}").replace("e2ae6d54", md5)
        for case, n in (("AALI", 1), ("AALJ", 1), ("AALI", 2))
    )
    with pytest.raises(ManifestError, match=rf"line 3: md5 {md5} is of TCGA-3C-AALI \(line 2\) and of TCGA-3C-AALJ"):
        rows_from_gdc(write(tmp_path, GDC_HEADER + first + second.replace(md5, md5.upper()), "gdc.txt"))
    assert len(rows_from_gdc(write(tmp_path, GDC_HEADER + first + copy, "gdc.txt"))) == 2


def test_source_sites() -> None:
    sites = source_sites()
    assert len(sites) == 831
    assert sites["3C"] == "Columbia University"
    assert all(name == name.strip() != "" for name in sites.values())
