"""The manifest: what is read, what is refused and in which words, splits, and the two committed manifests."""

import csv
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.files import GDC_HEADER, touch, write
from support.places import ROOT

from pipeline.base.errors import ManifestError
from pipeline.cohort.gdc import rows_from_gdc, source_sites
from pipeline.cohort.manifest.read import parse_manifest, read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow, row_hash, row_split
from pipeline.disk.label_words import case_value, is_unknown
from pipeline.disk.tables import MAX_SHOWN_PROBLEMS, composed

TCGA_BRCA = ROOT / "data_manifests" / "tcga_brca.csv"
DEMO = ROOT / "data_manifests" / "demo.csv"
SHA = "ab" * 32
FULL = f"""slide_id,path,case_id,center,mpp,split,sha256,stain,note
b,sub/b.svs,case 2,Lyon,0.25,val,{SHA.upper()},H&E,"two, three"
a,a.svs,,,,,,,
c,/else/c.ndpi,case 2,,,val,,IHC,
"""
LONG = "x" * 201
cells = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\."), min_size=1
).filter(lambda text: composed(text) == text and not is_unknown(text))
ids = cells.filter(lambda text: len(text.encode()) <= 200)
manifest_rows = st.lists(
    st.builds(
        ManifestRow,
        slide_id=ids,
        path=st.just(""),
        case_id=cells.filter(case_value),
        center=st.none() | cells,
        mpp=st.none() | st.floats(0.05, 5),
        split=st.just("val"),
        sha256=st.none() | st.just(SHA),
        labels=st.fixed_dictionaries({"first, label": st.just("") | cells, "second": cells}),
    ),
    min_size=1,
    unique_by=lambda row: row.slide_id,
).map(lambda rows: [replace(row, path=f"slides/{i} é,.svs") for i, row in enumerate(rows)])


def refusal(path: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(path)
    return str(caught.value)


def test_a_file_of_annotations_belongs_to_its_row(tmp_path: Path) -> None:
    for name in ("a.svs", "b.svs", "a.geojson"):
        (tmp_path / name).write_bytes(name.encode())
    text = "slide_id,path,annotations\na,a.svs,a.geojson\nb,b.svs,\n"
    manifest = read_manifest(write(tmp_path, text))
    a, b = manifest.rows
    assert (manifest.annotations_path(a), manifest.annotations_path(b)) == (tmp_path / "a.geojson", None)
    assert "annotations" not in a.labels
    plain = ManifestRow("a", "a.svs", "a")
    assert row_hash(b) == row_hash(ManifestRow("b", "b.svs", "b"))
    assert row_hash(a) == row_hash(replace(plain, annotations="a.geojson")) != row_hash(plain)
    write_manifest(tmp_path / "again.csv", manifest.rows)
    assert read_manifest(tmp_path / "again.csv").rows == manifest.rows


def test_every_column_is_read(tmp_path: Path) -> None:
    manifest = parse_manifest(write(tmp_path, FULL))
    a, b, c = manifest.rows
    assert b == ManifestRow(
        "b", "sub/b.svs", "case 2", "Lyon", 0.25, "val", SHA, {"stain": "H&E", "note": "two, three"}
    )
    assert a == ManifestRow("a", "a.svs", "a", labels={"stain": "", "note": ""})
    assert [row.line for row in (a, b, c)] == [3, 2, 4]
    assert len({a, b, c}) == 3  # rows can be hashed
    assert manifest.slides_root == tmp_path
    assert manifest.slide_path(b) == tmp_path / "sub" / "b.svs"
    assert manifest.slide_path(c) == Path("/else/c.ndpi")


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + FULL.encode(),
        FULL.replace("\n", "\r\n").encode(),
        FULL.rstrip("\n").encode(),
        FULL.replace("\n", "\n\n").encode(),
        FULL.replace("slide_id,path,case_id", "Slide_ID, Path ,CASE_ID").encode(),
        FULL.replace("slide_id,path,case_id,center", "Slide ID,PATH,case - id,Center ").encode(),
        b"sep=,\n" + FULL.encode(),
        FULL.replace("\n", ",,\n").encode(),
        FULL.replace("case 2", " case 2 ").replace("0.25", " 0.250 ").encode(),
    ],
    ids=[
        "bom",
        "crlf",
        "no final newline",
        "blank lines",
        "header in capitals",
        "blanks",
        "sep",
        "empty columns",
        "spaces",
    ],
)
def test_form_of_the_file_does_not_matter(tmp_path: Path, text: bytes) -> None:
    assert parse_manifest(write(tmp_path, text)).rows == parse_manifest(write(tmp_path, FULL, "b.csv")).rows


def test_line_numbers_count_lines_of_the_file(tmp_path: Path) -> None:
    text = 'slide_id,path,note\n\na,a.svs,"two\nlines"\nb,b.svs,\n'
    assert [row.line for row in parse_manifest(write(tmp_path, text)).rows] == [3, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty; its first line must name the columns slide_id, path"),
        (b"\n \n", "is empty"),
        (b"slide_id,path\n", "has a header but no rows"),
        (b"slide_id,file\na,b\n", "lacks the column path; split at commas, it has ['slide_id', 'file']"),
        (b"slide_id;path\na;b\n", "it has ['slide_id;path']"),
        (b"slide_id,path,x,x\na,a,1,2\n", "repeated or unnamed columns: ['x']"),
        (b"slide_id,path,split,Split\na,a,,\n", "repeated or unnamed columns: ['split']"),
        (
            b"slide_id,path,case_id,Case ID\na,a,k,l\n",
            "repeated or unnamed columns: ['case_id'] ('Case ID' is read so); give each its own name",
        ),
        (b"slide_id,path,\na,a,x\n", "repeated or unnamed columns: ['']"),
        ("slide_id,path\n".encode("utf-16"), "is UTF-16, not UTF-8 text (line 1); save it as CSV UTF-8"),
        (b"II*\0\x08\0\0\0", "is not a text file"),
        (b"slide_id,path\na,a\nb,caf\xe9\n", "is not UTF-8 text (line 3)"),
        (b'slide_id,path\na,"a.svs\nb,b.svs\n', "not well-formed CSV from line 2 on"),
        (b"slide_id,path\na\n", "line 2: 1 cells where the header has 2"),
        (b"slide_id,path\na,b,c\n", "line 2: 3 cells where the header has 2"),
        (b"slide_id,path\n,x.svs\n", "line 2: slide_id '' is empty"),
        (b"slide_id,path\na, \n", "line 2: path is empty"),
        (b"slide_id,path\na/b,x.svs\n", "slide_id 'a/b' has a slash"),
        (b"slide_id,path\na\\b,x.svs\n", "slide_id 'a\\\\b' has a slash, a backslash"),
        (b"slide_id,path\na\tb,x.svs\n", "slide_id 'a\\tb' has a slash, a backslash or a character that does not"),
        (b"slide_id,path\n.,x.svs\n", "slide_id '.' starts or ends with a space, or starts with a dot"),
        (b"slide_id,path\n..,x.svs\n", "slide_id '..' starts"),
        (b"slide_id,path\na ,x.svs\n", "slide_id 'a ' starts or ends with a space"),
        (f"slide_id,path\n{LONG},x.svs\n".encode(), "is longer than 200 bytes"),
        (b"slide_id,path\na,x\nb,y\na,z\n", "line 2: slide_id 'a' is given on lines 2, 4;"),
        (b"slide_id,path,mpp\na,x,40\n", "line 2: implausible mpp 40 from the manifest: must be 0.05 to 5 um/px"),
        (b"slide_id,path,mpp\na,x,1e999\n", "line 2: implausible mpp inf"),
        (b"slide_id,path,mpp\na,x,-0.5\n", "line 2: implausible mpp -0.5"),
        (b"slide_id,path,mpp\na,x,0_5\n", "line 2: mpp '0_5' is not a number"),
        (b"slide_id,path,mpp\na,x,20x\n", "line 2: mpp '20x' is not a number; give um/px at level 0"),
        (b"slide_id,path,split\na,x,test\n", "line 2: split 'test' is not one of train, val, or empty"),
        (b"slide_id,path,sha256\na,x,12ab\n", "line 2: sha256 '12ab' is not 64 hexadecimal digits"),
        (b"slide_id,path\na,x.svs\nb,y/../x.svs\n", "x.svs has several ids on lines 2, 3; keep one row per file"),
        (
            b"slide_id,path,case_id,split\na,x,k,train\nb,y,k,val\nc,z,k,train\n",
            "line 2: case 'k' is in more than one split: train on lines 2, 4, val on line 3; give all its rows",
        ),
        (
            b"slide_id,path,case_id,split\na,x,k,\nb,y,k,val\n",
            "case 'k' is in more than one split: val on line 3, none given on line 2",
        ),
    ],
)
def test_refusals(tmp_path: Path, text: bytes, message: str) -> None:
    told = refusal(write(tmp_path, text))
    assert message in told
    assert str(tmp_path / "manifest.csv") in told


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.csv").endswith("none.csv: No such file or directory")
    assert f"is a folder, not a table. A manifest of the slides in it is made with: g2l make-manifest {tmp_path}" in (
        refusal(tmp_path)
    )
    (tmp_path / "zarr.json").touch()
    assert f"{tmp_path} is a store, not a table" in refusal(tmp_path)


def test_all_problems_are_told_in_the_order_of_lines(tmp_path: Path) -> None:
    text = "slide_id,path,mpp,split,case_id\nz,z.svs,9,,k\n,q.svs,,,\na,a.svs,,Train,k\na,b.svs,x,,\n"
    told = refusal(write(tmp_path, text)).splitlines()
    assert [line.split(":")[0].strip() for line in told[1:]] == ["line 2", "line 3", "line 4", "line 4", "line 5"]
    assert "more than one split" not in "".join(told)  # `Train` is told as a wrong split only


def test_long_lists_are_cut(tmp_path: Path) -> None:
    rows = "".join(f"s{i},s{i}.svs,test\n" for i in range(MAX_SHOWN_PROBLEMS + 7))
    told = refusal(write(tmp_path, "slide_id,path,split\n" + rows)).splitlines()
    assert len(told) == 1 + MAX_SHOWN_PROBLEMS + 1
    assert told[-1] == "  and 7 more"


@pytest.mark.slow
@settings(deadline=None)
@given(rows=manifest_rows, seed=st.integers(0, 99))
def test_written_rows_read_back_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[ManifestRow], seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.csv"
    write_manifest(path, rows)
    written, manifest = path.read_bytes(), parse_manifest(path)
    assert list(manifest.rows) == sorted(rows, key=lambda row: row.slide_id)
    write_manifest(path, random.Random(seed).sample(rows, len(rows)))
    assert path.read_bytes() == written

    with open(path, encoding="utf-8", newline="") as f:
        header, *lines = list(csv.reader(f))
    random.Random(seed).shuffle(lines)
    with open(path, "w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([header, *lines])
    assert parse_manifest(path) == manifest


def test_written_columns(tmp_path: Path) -> None:
    rows = [
        ManifestRow("b", "b.svs", "k", labels={"y": "1"}),
        ManifestRow("a", "a.svs", "k", mpp=0.1 + 0.2, labels={"x": ""}),
    ]
    write_manifest(tmp_path / "m.csv", rows)
    assert (tmp_path / "m.csv").read_text().splitlines() == [
        "slide_id,path,case_id,mpp,x,y",
        "a,a.svs,k,0.30000000000000004,,",
        "b,b.svs,k,,,1",
    ]
    write_manifest(tmp_path / "m.csv", [])
    assert (tmp_path / "m.csv").read_text() == "slide_id,path,case_id\n"


def test_demo_manifest() -> None:
    (row,) = parse_manifest(DEMO).rows
    assert (row.slide_id, row.path, row.case_id) == ("CMU-1-Small-Region", "CMU-1-Small-Region.svs", "CMU-1")
    assert (row.center, row.labels) == ("CMU", {})
    assert row.sha256 == "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def test_tcga_brca_manifest() -> None:
    rows = parse_manifest(TCGA_BRCA).rows
    tp53 = {row.case_id: row.labels["tp53"] for row in rows}
    assert len(rows) == 1134
    assert len(tp53) == 1063
    assert len({row.center for row in rows}) == 39
    assert sum(int(row.labels["bytes"]) for row in rows) == 1_160_190_101_109
    # The list has 1,097 cases: 347, 736, and 14 without a status. 35 have no slide here; one case is not in the list.
    assert Counter(tp53.values()) == {"mutated": 340, "wild-type": 708, "unknown": 15}
    assert all(re.fullmatch("[0-9a-f]{32}", row.labels["md5"]) for row in rows)
    held_out = [row for row in rows if row_split(row, 0.1) == "val"]
    assert (len(held_out), len({row.case_id for row in held_out})) == (107, 104)  # as the README says


def test_tcga_brca_manifest_reads_once_the_slides_are_there(tmp_path: Path) -> None:
    manifest = parse_manifest(TCGA_BRCA, tmp_path)
    touch(tmp_path, *(row.path for row in manifest.rows))
    assert read_manifest(TCGA_BRCA, tmp_path) == manifest


def test_readme_rebuilds_the_gdc_manifest(tmp_path: Path) -> None:
    readme = (ROOT / "data_manifests" / "README.md").read_text()
    command = readme.split("<!-- tested: rebuild -->")[1].split("<!-- end -->")[0].strip()
    command = command.replace("python", f'"{sys.executable}"', 1).replace("MANIFEST.txt", f'"{tmp_path}/MANIFEST.txt"')
    subprocess.run(["bash", "-c", command], cwd=ROOT, check=True)
    rebuilt = rows_from_gdc(tmp_path / "MANIFEST.txt")
    committed = parse_manifest(TCGA_BRCA).rows
    assert rebuilt == [
        replace(row, labels={name: cell for name, cell in row.labels.items() if name != "tp53"}) for row in committed
    ]


def test_build_script_gives_the_committed_bytes(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "data_manifests"))
    try:
        from build_tcga_brca import write_source_sites, write_tcga_brca
    finally:
        sys.path.pop(0)
    rows = parse_manifest(TCGA_BRCA).rows
    gdc = GDC_HEADER + "".join(
        "\t".join([*(row.labels[name] for name in ("gdc_id", "file_name", "md5", "bytes")), "released"]) + "\n"
        for row in reversed(rows)
    )
    tp53 = {row.case_id: row.labels["tp53"].replace("unknown", "") for row in rows}
    tp53.pop("TCGA-FA-A7DS")  # not in the list
    lists = "case_id,tp53\n" + "".join(f"{case_id},{status}\n" for case_id, status in tp53.items())
    write_tcga_brca(write(tmp_path, gdc, "gdc.txt"), write(tmp_path, lists, "tp53.csv"), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == TCGA_BRCA.read_bytes()

    sites = "TSS Code\tSource Site\tStudy Name\tBCR\n"
    sites += "".join(f"{code}\t {name} \tx\ty\n" for code, name in source_sites().items())
    write_source_sites(write(tmp_path, sites, "sites.tsv"), tmp_path / "sites.csv")
    committed = ROOT / "pipeline" / "data" / "tcga_source_sites.csv"
    assert (tmp_path / "sites.csv").read_bytes() == committed.read_bytes()


@pytest.mark.parametrize(("cell", "kept"), [("yes", "yes"), ("Yes", "yes"), ("no", None), ("", None)])
def test_a_row_says_that_its_mpp_overrides(tmp_path: Path, cell: str, kept: str | None) -> None:
    (tmp_path / "a.svs").write_bytes(b"")
    path = tmp_path / "m.csv"
    path.write_text(f"slide_id,path,mpp,mpp_overrides\na,a.svs,0.25,{cell}\n")
    manifest = read_manifest(path)
    (row,) = manifest.rows
    assert (row.mpp, row.mpp_overrides, dict(row.labels)) == (0.25, kept, {})
    write_manifest(path, manifest.rows)
    assert read_manifest(path).rows == manifest.rows
    assert ("mpp_overrides" in path.read_text()) == (kept is not None)


@pytest.mark.parametrize("cells", ["0.25,perhaps", ",yes"])
def test_an_override_that_says_nothing(tmp_path: Path, cells: str) -> None:
    (tmp_path / "a.svs").write_bytes(b"")
    (tmp_path / "m.csv").write_text(f"slide_id,path,mpp,mpp_overrides\na,a.svs,{cells}\n")
    with pytest.raises(ManifestError, match=r"line 2: mpp_overrides '\w+' is not yes \(with an mpp\), no, or empty"):
        read_manifest(tmp_path / "m.csv")
