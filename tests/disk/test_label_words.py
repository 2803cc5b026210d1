"""Words for a missing value: one rule for every column of every table that is read."""

from pathlib import Path

import pytest
from support.files import put

from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.cohort.manifest.read import parse_manifest
from pipeline.disk.label_words import cell_value, is_unknown, missing_notes, spelling_notes, visible
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
    "[Discrepancy]",
    "[Not Evaluated]",
    "[Pending]",
    "[Not Applicable]",
    "[unclear / illegible]",
    "not specified",
    "Unspecified",
    "undef",
    "not recorded",
    "Not Performed",
    "not done",
    "not determined",
    "not assessed",
    "not  tested",
    "not_reported",
    "TBD",
    "pending",
    "No data",
    "n\\a",
    "N A",
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
    "[Completed]",
    "[3+4]",
    "ND",
    "NR",
    "blank",
    "empty",
    "not detected",
    "no dysplasia",
    "n_b",
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


@pytest.mark.parametrize("word", ["ND", "nr", "Blank", "empty"])
def test_words_that_may_be_a_class_are_no_case(tmp_path: Path, word: str) -> None:
    """A centre stays: ND is a source site of TCGA."""
    table = put(tmp_path / "m.csv", f"slide_id,path,case_id,center\na,a.svs,{word},{word}\nb,b.svs,{word},{word}\n")
    rows = parse_manifest(table).rows
    assert [(row.case_id, row.has_case, row.center) for row in rows] == [("a", False, word), ("b", False, word)]
    text = f"slide_id,case_id,y\na,{word},1\nb,{word},0\n"
    with pytest.raises(BenchmarkError, match=f"line 2: case_id '{word}' stands for a missing value"):
        read_slide_set(put(tmp_path / "s.csv", text), "y", [])


def test_classes_that_may_be_missing_are_told() -> None:
    told = "In the column y, 'ND' (2), 'empty' (1) count as classes. Leave cells that are missing empty."
    assert missing_notes("y", ["ND", "a", "empty", " ND", ""]) == [told]
    assert [note[:11] for note in missing_notes("y", ["nd", "NA"])] == ["These words", "In the colu"]
    assert missing_notes("response", ["R", "NR", "r", "CR"]) == []
    assert missing_notes("response", ["CR", "NR"]) != []


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


def test_numbers_that_a_spreadsheet_has_saved_are_told() -> None:
    """One patient may be 001 in one table and 1 in another that was saved by Excel: on both sides of a split."""
    (note,) = spelling_notes("cases", ["001", "1", "1.0", "2", "02", "10", "A01", "A1", "0", "00", "1.5"])
    listed = note.partition("count as different: ")[2]
    assert listed == "'0' and '00'; '001' and '1' and '1.0'; '02' and '2'."


def test_names_that_differ_in_what_nobody_sees() -> None:
    """Such as what comes with a copy out of a web page: two cases of one patient, perhaps on both sides of a split."""
    names = ["c 7", "c\u00a07", "\u200bc 7", "c 7\ufeff", "d"]
    (note,) = spelling_notes("cases", names)
    assert all(repr(name) in note for name in names[:-1])
    assert r"\u200b" in note
    assert visible("a\u200b\u00adb c") == "ab c"
