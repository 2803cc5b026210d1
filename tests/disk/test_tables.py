"""Tables: the one reader refuses what is none in named errors, and the one writer writes no formulas."""

import contextlib
import csv
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import call_g2l
from support.extraction import write_cohort

from pipeline.base.errors import BenchmarkError, G2LError, ManifestError
from pipeline.cohort.audit import AuditRow, write_audit
from pipeline.cohort.manifest.read import parse_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.sources import list_slides
from pipeline.disk.tables import (
    MAX_SHOWN_PROBLEMS,
    alike_columns,
    guarded,
    read_table,
    refuse,
    table_text,
    unguarded,
    write_records,
)
from pipeline.evaluate.patch_benchmark.data import read_patch_set
from pipeline.evaluate.robustness.data import read_robustness_set
from pipeline.evaluate.slide_benchmark.data import read_slide_set

FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-1+2", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1", "'=1", "-", "-x")
PLAIN = ("-1.5", "+3", "1e-5", "-.5e+3", "a=b", "'quoted'", "", "TCGA-3C-AALI", "5-6", "a; b", "a;b=c", "a\n\nb\r\nc")
SPLIT = (
    "a;=cmd()",
    "a\t=cmd()",
    "a\n=cmd()",
    "a\r\n=cmd()",
    "a; =cmd()",
    "a;\t=cmd()",
    'a;"=cmd()',
    "a;'=cmd()",
    "a;''=1;=2;'+3",
    "=1;-2\t@3",
    "a;-5",
    " \t=1",
    "a;\uff1d1",
)
"""Formulas for a spreadsheet that splits cells at semicolons or tabs."""


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_is_written_as_text_and_read_back(tmp_path: Path, cell: str) -> None:
    write_records(tmp_path / "t.csv", [{"name": cell, cell: "x"}])
    with open(tmp_path / "t.csv", newline="") as f:
        written = list(csv.reader(f))
    text = f"'{cell[0]}'{cell[1:]}" if cell[0] in "\t\r" else f"'{cell}"
    assert written == [["name", text], [text, "x"]]
    (record,) = read_table(tmp_path / "t.csv", ("name",), ",")[0]
    assert record[1] == {"name": cell, cell.strip(): "x"}


@pytest.mark.parametrize("cell", PLAIN)
def test_numbers_and_plain_text_stay_as_they_are(cell: str) -> None:
    assert (guarded(cell), unguarded(cell)) == (cell, cell)


def test_numbers_stay_numbers() -> None:
    assert table_text(["a", "b", "c"], [[-1.5, None, float("-inf")]]) == "a,b,c\n-1.5,,-inf\n"


@pytest.mark.parametrize("mark", [";", "\t"])
@pytest.mark.parametrize("cell", SPLIT)
def test_no_spreadsheet_that_splits_elsewhere_sees_a_formula(tmp_path: Path, cell: str, mark: str) -> None:
    rows = [["x", cell], [cell, "y"], ["x,y", cell]]
    write_records(tmp_path / "t.csv", [{"name": a, "other": b} for a, b in rows])
    with open(tmp_path / "t.csv", newline="") as f:
        shown = [part for row in csv.reader(f, delimiter=mark) for part in row]
    assert not [part for part in shown if part.lstrip().startswith(("=", "+", "-", "@", "\uff1d"))]
    records = read_table(tmp_path / "t.csv", ("name",), ",")[0]
    assert [list(record.values()) for _, record in records] == rows


def test_long_cells_are_guarded_in_time() -> None:
    """Not in time that grows with the square of the length."""
    for cell in ("\t" * 100_000, "; " * 50_000, ";'" * 50_000, ";" + " " * 100_000):
        assert unguarded(guarded(cell)) == cell


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")) | st.text("a'\"=-1;\t\r\n ,"))
def test_every_cell_is_read_back(cell: str) -> None:
    assert unguarded(guarded(cell)) == cell


def test_the_audit_has_no_formulas(tmp_path: Path) -> None:
    row = AuditRow("=HYPERLINK(1)", "failed", "@reason", path="-1.svs", case_id="+case", mpp=0.5)
    write_audit([row], tmp_path / "audit.csv")
    with open(tmp_path / "audit.csv", newline="") as f:
        (written,) = csv.DictReader(f)
    assert [written[name] for name in ("slide_id", "reason", "path", "case_id", "mpp")] == [
        "'=HYPERLINK(1)",
        "'@reason",
        "'-1.svs",
        "'+case",
        "0.5",
    ]


def test_a_manifest_of_formulas_reads_back(tmp_path: Path) -> None:
    row = ManifestRow("=a", "-a.svs", "@case", "+center", 0.5, labels={"=label": "-x", "number": "-1.5"})
    write_manifest(tmp_path / "m.csv", [row])
    assert parse_manifest(tmp_path / "m.csv").rows == (row,)
    assert ",-1.5" in (tmp_path / "m.csv").read_text()


READERS = {
    "manifest": (parse_manifest, "slide_id,path,case_id,mpp,split\na,a.svs,k,0.5,train\nb,b.svs,l,0.25,\n"),
    "gdc": (list_slides, "id\tfilename\tmd5\tsize\nu1\tTCGA-3C-AALI-01.svs\tx\t1\n"),
    "patches": (read_patch_set, "path,label,case_id,split\n1.png,x,k,train\n2.png,y,l,test\n"),
    "slides": (lambda path: read_slide_set(path, "label", []), "slide_id,case_id,label\na,k,0\nb,l,1\n"),
    "robustness": (read_robustness_set, "slide_id,patch_id,path,biological_class,medical_center\na,1,a.png,t,c\n"),
}
"""By what is read: its reader, and a table that it knows."""


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.encode("utf-16"), "is UTF-16, not UTF-8 text"),
        (lambda text: text.replace("a", "é").encode("cp1252"), "is not UTF-8 text (line"),
        (lambda text: text.encode()[:30] + b"\0" + text.encode()[30:], "it contains NUL bytes"),
        (lambda text: (text + '"' + "x" * 200_000).encode(), "not well-formed CSV"),
        (lambda text: ("x" * 500_000).encode(), "not well-formed CSV from line 1 on: field larger"),
        (
            lambda text: b"\x89HDF\r\n\x1a\n\0\0",
            "is an HDF5 file (a plan, or features), not a table; a CSV in UTF-8 is expected",
        ),
        (lambda text: b"PK\x03\x04\x14\0\xff", "is a zip archive or an Excel file, not a table"),
        (lambda text: b"\xff\x01\0\x02", "is a binary file, not a table"),
        (lambda text: b"", "is empty; its first line must name the columns"),
    ],
    ids=["utf-16", "cp1252", "NUL bytes", "open quote", "long field", "hdf5", "excel", "binary", "empty"],
)
def test_what_is_no_table_is_a_named_error(tmp_path: Path, name: str, damage: object, words: str) -> None:
    reader, text = READERS[name]
    path = tmp_path / "t.csv"
    path.write_bytes(damage(text))  # type: ignore[operator]
    with pytest.raises((ManifestError, BenchmarkError)) as caught:
        reader(path)  # type: ignore[operator]
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_a_slide_instead_of_a_table_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.disk.tables.MAX_TABLE_BYTES", 1 << 20)
    with open(tmp_path / "slide.svs", "wb") as f:
        f.truncate((1 << 20) + 1)
    with pytest.raises(ManifestError, match="larger than 1 MiB; is it a table"):
        parse_manifest(tmp_path / "slide.svs")


ODD = (
    b"1e999",
    b"-1e999",
    b"nan",
    b"-0.5",
    b"\0",
    b'"',
    b"\r",
    b"\n",
    b"\xff\xfe",
    b",",
    b"\t",
    b"=cmd()",
    b"..",
    b"/",
    "\u0301".encode(),
    b"9" * 400,
    b"'",
    b";",
    b"\xed\xa0\x80",
    b"#N/A",
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some changed, cut out, put in or doubled."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(changed) + 1)
        stop = min(len(changed), start + rng.choice((0, 0, 1, 3, 20)))
        changed[start:stop] = rng.choice((rng.choice(ODD), rng.randbytes(rng.randint(0, 4)), bytes(changed[:start])))
    return bytes(changed)


@pytest.mark.parametrize("name", READERS)
def test_damaged_tables_give_named_errors(tmp_path: Path, name: str) -> None:
    """Bytes changed, cut, doubled and put in; cells that overflow: never anything but one of our errors."""
    reader, text = READERS[name]
    path = tmp_path / "t.csv"
    read = 0
    for seed in range(120):
        rng = random.Random(f"{name} {seed}")
        path.write_bytes(damaged(text.encode(), rng))
        with contextlib.suppress(G2LError):
            reader(path)  # type: ignore[operator]
            read += 1
    assert read < 90


def test_lines_above_the_head_are_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('# an open " quote\r\n\nslide_id,path\na,b\nc\n')
    records, problems = read_table(tmp_path / "t.csv", ("path",), ",", first_line=3)
    assert records == [(4, {"slide_id": "a", "path": "b"})]
    assert [line for line, _ in problems] == [5]


def test_line_ends_and_marks_do_not_matter(tmp_path: Path) -> None:
    text = READERS["manifest"][1]
    for number, data in enumerate((b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r").encode())):
        (tmp_path / f"{number}.csv").write_bytes(data)
        assert [row.slide_id for row in parse_manifest(tmp_path / f"{number}.csv").rows] == ["a", "b"]


@pytest.mark.parametrize("line", ["sep={}", "SEP={}\r", '"sep={}"', "sep={},,", "\ufeffsep={}"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_first_line_for_excel_says_what_separates_the_cells(tmp_path: Path, line: str, mark: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(line.format(mark) + "\n" + "slide_id|path\na|b,c\nd\n".replace(",", "").replace("|", mark))
    for delimiter in (",", "\t"):
        records, problems = read_table(table, ("path",), delimiter)  # type: ignore[arg-type]
        assert records == [(3, {"slide_id": "a", "path": "bc"})]
        assert [number for number, _ in problems] == [4]


def test_semicolons_without_that_line_are_refused_with_what_mends_them(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("slide_id;path\na;b,c\n")
    with pytest.raises(ManifestError, match=r"lacks the columns slide_id, path.*line sep=; above its header"):
        read_table(table, ("slide_id", "path"), ",")
    table.write_text("sep=;\n" + table.read_text())
    assert read_table(table, ("slide_id", "path"), ",")[0] == [(3, {"slide_id": "a", "path": "b,c"})]


def test_a_column_that_is_wrong_throughout_hides_no_other_problem(tmp_path: Path) -> None:
    many = [(line, f"mpp '0,{line}' is not a number") for line in range(2, 60)]
    files = [(line, f"no slide file /slides/{line}.svs") for line in (57, 58)]
    with pytest.raises(ManifestError) as caught:
        refuse(tmp_path / "t.csv", [*many, *files])
    told = str(caught.value).splitlines()
    assert told[1] == "  line 2: mpp '0,2' is not a number"
    assert told[-3:] == [*(f"  line {line}: {problem}" for line, problem in files), "  and 40 more"]
    assert len(told) == 1 + MAX_SHOWN_PROBLEMS + 1


def test_another_separator_for_excel_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=|\nslide_id|path\na|b\n")
    with pytest.raises(
        ManifestError, match=r"says in line 1 that '\|' separates its cells; save it with commas instead"
    ):
        read_table(tmp_path / "t.csv", ("path",), ",")
    (tmp_path / "t.csv").write_text("sep=;\n")
    with pytest.raises(ManifestError, match="is empty; its first line must name"):
        read_table(tmp_path / "t.csv", ("path",), ",")
    (tmp_path / "t.csv").write_text("sepal,sep=x\n1,2\n")
    assert read_table(tmp_path / "t.csv", ("sepal",), ",")[0] == [(2, {"sepal": "1", "sep=x": "2"})]


def test_last_columns_that_are_empty_are_dropped(tmp_path: Path) -> None:
    """With their lines as a spreadsheet leaves them: of full length, or shorter."""
    table = tmp_path / "t.csv"
    table.write_text("slide_id,path,, \na,b,,\n\nc,d\ne,f, \ng\n")
    records, problems = read_table(table, ("path",), ",")
    assert [(line, *record.values()) for line, record in records] == [(2, "a", "b"), (4, "c", "d"), (5, "e", "f")]
    assert problems == [(6, "1 cells where the header has 2; put quotes around a cell with a separator")]
    for text in ("path,\na,x\n", "path,,\na,,\nb,,x\n", ",path\n,a\n", "path,,label\na,,x\n"):
        table.write_text(text)
        with pytest.raises(ManifestError, match=r"repeated or unnamed columns: \[''\]; give each its own name"):
            read_table(table, ("path",), ",")
    table.write_text("path,label\na,x,\n")  # a line alone is no column
    assert read_table(table, ("path",), ",")[0] == []


@pytest.mark.slow
def test_plan_and_make_manifest_of_damaged_input_never_trace_back(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    text = write_cohort(cohort).read_text()
    text = text.replace("case_id", "case_id,center,mpp,split,sha256").replace(",c", ",c,x,0.5,,")
    gdc = READERS["gdc"][1]
    for seed in range(60):
        rng = random.Random(seed)
        manifest, listed = cohort / "damaged.csv", tmp_path / "gdc.tsv"
        manifest.write_bytes(damaged(text.encode(), rng))
        listed.write_bytes(damaged(gdc.encode(), rng))
        out = tmp_path / f"{seed}.h5"
        for call in (
            ("plan", manifest, "--out", out, "--patch-px", 64, "--patches-per-slide", 2, "--min-tissue", 0),
            ("make-manifest", listed, "--out", tmp_path / f"{seed}.csv"),
        ):
            code, said, err = call_g2l(*call)
            assert code in (0, 1, 3), (seed, call)
            assert "Traceback" not in said + err, (seed, call)
            assert code == 0 or err.strip() or said.strip(), (seed, call)


def test_columns_that_differ_in_capitals_only_are_named() -> None:
    assert alike_columns(["path", "Label", "x", "label"]) == [
        (1, "columns Label, label are spelled alike; keep one of them")
    ]
    assert alike_columns(["path", "label"]) == []


def test_pipes_and_devices_are_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.csv")
    for path in (tmp_path / "p.csv", Path("/dev/zero")):
        with pytest.raises(ManifestError, match=rf"cannot read {path}: a pipe or device, not a file"):
            read_table(path, ("path",), ",")
