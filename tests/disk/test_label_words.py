"""Words for a missing value: one rule for every column of every table that is read."""

from pathlib import Path

import pytest
from support.files import put

from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.cohort.manifest import parse_manifest
from pipeline.disk.label_words import cell_value, is_unknown, spelling_notes
from pipeline.evaluate.patch_benchmark.data import read_patch_set
from pipeline.evaluate.robustness.data import read_robustness_set
from pipeline.evaluate.slide_benchmark.data import read_slide_set

MISSING = (
    "",
    " ",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "<NA>",
    "nan",
    "-nan",
    "NaN",
    "NULL",
    "null",
    "None",
    "none",
    ".",
    "?",
    "-",
    "--",
    "'--",
    "---",
    "\u2013",
    "#VALUE!",
    "#REF!",
    "#NAME?",
    "#DIV/0!",
    "#NUM!",
    "#NULL!",
    "#WERT!",
    "#NV",
    "Err:502",
    "####",
    "[Not Available]",
    "unknown",
    "missing",
    "-1.#IND",
    "1.#QNAN",
    "(null)",
    '"NA"',
    "NaT",
    "\\N",
    "#N/D",
    "#\u00a1VALOR!",
    "#VALUE",
    "#REF",
    "#DIV/0",
    "N.D.",
    "n/d",
    "None.",
    "Not Available.",
)
VALUES = (
    "0",
    "1",
    "negative",
    "absent",
    "no",
    "false",
    "#12",
    "+",
    "-1",
    "n",
    "NAT",
    "Nancy",
    "nano",
    "x-",
    "A.",
    "3+4",
)


@pytest.mark.parametrize("cell", MISSING)
def test_words_for_a_missing_value(cell: str) -> None:
    assert is_unknown(cell)
    assert cell_value(cell) == ""


@pytest.mark.parametrize("cell", VALUES)
def test_words_that_say_something(cell: str) -> None:
    assert cell_value(f" {cell} ") == cell


@pytest.mark.parametrize("word", ["NA", "#N/A", "<NA>", "NULL", "none", ".", "?", "-", "#VALUE!"])
def test_a_manifest_s_missing_words_are_no_case_centre_or_split(tmp_path: Path, word: str) -> None:
    cells = ",".join([word] * 5)
    table = put(
        tmp_path / "m.csv", f"slide_id,path,case_id,center,mpp,split,sha256\na,a.svs,{cells}\nb,b.svs,{cells}\n"
    )
    a, b = parse_manifest(table).rows
    assert (a.case_id, b.case_id) == ("a", "b")  # never one case
    assert [(row.has_case, row.center, row.mpp, row.split, row.sha256) for row in (a, b)] == [(False, *[None] * 4)] * 2
    for cells in (f"{word},a.svs", f"a,{word}"):
        with pytest.raises(
            ManifestError, match=r"line 2: (slide_id|path) .* stands for a missing value|starts or ends"
        ):
            parse_manifest(put(tmp_path / "m.csv", f"slide_id,path\n{cells}\n"))


@pytest.mark.parametrize("word", ["none", "#N/A", "<NA>", ".", "?"])
def test_a_label_s_missing_words_are_no_class_and_told(tmp_path: Path, word: str) -> None:
    patches = read_patch_set(put(tmp_path / "p.csv", f"path,label\n1.png,x\n2.png,{word}\n3.png,y\n"))
    assert (patches.labels.tolist(), len(patches.exclusions)) == (["x", "y"], 1)
    note = f"These words in the column label count as a missing value: '{word}' (1). If one of them is a class"
    assert any(note in said for said in patches.notes())
    assert any(note in said for said in patches.warnings())
    slides = read_slide_set(put(tmp_path / "s.csv", f"slide_id,center,her2\na,{word},x\nb,,{word}\n"), "her2", [])
    assert any(note.replace("label", "her2", 1) in said for said in slides.notes)
    assert [exclusion.what for exclusion in slides.exclusions if exclusion.by_rule] == ["slide b"]


def test_other_columns_of_benchmarks(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="line 3: split is empty"):
        read_patch_set(put(tmp_path / "p.csv", "path,label,split\n1.png,x,train\n2.png,y,NA\n"))
    with pytest.raises(BenchmarkError, match="line 2: path is 'NA', which stands for a missing value"):
        read_patch_set(put(tmp_path / "p.csv", "path,label\nNA,x\n2.png,y\n"))
    with pytest.raises(BenchmarkError, match="line 2: slide_id 'NA' stands for a missing value"):
        read_slide_set(put(tmp_path / "s.csv", "slide_id,y\nNA,1\nb,0\n"), "y", [])
    text = "slide_id,patch_id,path,scanner\na,1,a.png,#N/A\nb,1,b.png,S\n"
    with pytest.raises(BenchmarkError, match="line 2: scanner is '#N/A', which stands for a missing value"):
        read_robustness_set(put(tmp_path / "r.csv", text))


def test_names_that_differ_in_accents_composed_only() -> None:
    (note,) = spelling_notes("cases", ["Jos\u00e9", "Jose\u0301", "Ann"])
    assert "and count as different" in note
