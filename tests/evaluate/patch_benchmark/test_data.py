"""Reading the patches of a benchmark, from tables and folders, sound and broken."""

from pathlib import Path

import numpy as np
import pytest
from support.files import put, touch

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.patch_benchmark.data import PatchSet, read_patch_set
from pipeline.report.content import Exclusion


def test_a_table_with_everything(tmp_path: Path) -> None:
    odd = '<script>alert("x")</script>'
    path = put(
        tmp_path / "patches.csv",
        "path,label,group,center,split,note\n"
        'a.png,"<script>alert(""x"")</script>",c1,north,train,\n'
        "/elsewhere/b.png,Überwachung,c2,süd,test,x\n"
        '\n"with, comma.png","x, y",c2,north,test,\n',
    )
    found = read_patch_set(path)
    assert found.labels.tolist() == [odd, "Überwachung", "x, y"]
    assert found.paths == [tmp_path / "a.png", Path("/elsewhere/b.png"), tmp_path / "with, comma.png"]
    assert found.groups is not None
    assert found.groups.tolist() == ["c1", "c2", "c2"]
    assert found.centers is not None
    assert found.centers.tolist() == ["north", "süd", "north"]
    assert found.splits is not None
    assert found.splits.tolist() == ["train", "test", "test"]
    assert (found.name, found.source, len(found)) == ("patches", path, 3)


def test_paths_hang_below_the_root(tmp_path: Path) -> None:
    path = put(tmp_path / "patches.csv", "path,label\na.png,x\n")
    assert read_patch_set(path, tmp_path / ".." / tmp_path.name).paths == [tmp_path / ".." / tmp_path.name / "a.png"]
    with pytest.raises(BenchmarkError, match="--images-root"):
        read_patch_set(path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("columns", "used"),
    [
        ("slide_id", "slide_id"),
        ("slide_id,case", "case"),
        ("case,case_id", "case_id"),
        ("case_id,group", "group"),
        ("slide_id,patient", "patient"),
        ("slide_id,patient_id", "patient_id"),
        ("patient_id,case", "case"),
        ("Case_ID", "case_id"),
        ("other", ""),
    ],
)
def test_the_column_of_groups(tmp_path: Path, columns: str, used: str) -> None:
    cells = ",".join(f"of {name.lower()}" for name in columns.split(","))
    found = read_patch_set(put(tmp_path / "patches.csv", f"path,label,{columns}\na.png,x,{cells}\nb.png,y,{cells}\n"))
    assert found.group_column == used
    if used:
        assert found.groups is not None
        assert found.groups.tolist() == [f"of {used}"] * 2
        assert np.array_equal(found.groups_or_own(), found.groups)
    else:
        assert found.groups is None
        assert len(np.unique(found.groups_or_own())) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "no rows"),
        ("path,class\na.png,x\n", "lacks the column label"),
        ("image,label\na.png,x\n", "lacks the column path"),
        ("path,label\na.png,\nb.png,NaN\n", "none of its 2 rows has a label"),
        ("path,label\n,x\n", "line 2: path is empty"),
        ("path,label,group\na.png,x,\nb.png,y,c\n", "line 2: group is empty; .*or leave the column out"),
        ("path,label,patient\na.png,x,c\nb.png,y,NaN\n", "line 3: patient is 'NaN', which stands for a missing value"),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "line 3: split is empty"),
        ("path,label,split\na.png,x,train\nb.png,y,dev\n", "line 3: split 'dev' is not one of train, val, test"),
        ("path,label\na.png,x\nb.png,y\n./a.png,y\n", "line 4: path './a.png' is on line 2 as well"),
        ("path,label\na.png\n", "line 2: 1 cells where the header has 2"),
        ("path,label,Group,group\na.png,x,1,2\n", "Group.*spelled alike"),
        ("path;label\na.png;x\n", "separated by semicolons; save it with commas instead"),
        (",path,label\n0,a.png,x\n", r"If pandas wrote row numbers into the first one, use to_csv\(index=False\)"),
        ("path,label,case,patient\na.png,x,A,1\nb.png,y,A,2\n", "case 'A' is of patient '1' and '2'"),
    ],
)
def test_broken_tables_name_their_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        read_patch_set(put(tmp_path / "patches.csv", text))


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError) as caught:
        read_patch_set(put(tmp_path / "patches.csv", "path,label,group\na.png,x,\n,x,c\na.png,x,c\n"))
    assert [f"line {line}" in str(caught.value) for line in (2, 3, 4)] == [True] * 3


@pytest.mark.parametrize("word", ["", "NA", "nan", "[Not Available]", "Unknown"])
def test_rows_without_a_label_are_listed(tmp_path: Path, word: str) -> None:
    found = read_patch_set(
        put(tmp_path / "patches.csv", f"path,label,group\na.png,x,1\nb.png,{word},\nc.png,absent,2\n")
    )
    assert found.labels.tolist() == ["x", "absent"]
    assert found.exclusions == (Exclusion("b.png", f"label is {word!r}: no label (line 3)", by_rule=True),)
    assert found.select(np.array([1])).exclusions == found.exclusions
    assert f"{found.source}: left out for want of a label: 1 patch; the report lists them" in found.warnings()


@pytest.mark.parametrize("name", ["center", "centre", "Medical_Center"])
def test_a_missing_centre_is_none(tmp_path: Path, name: str) -> None:
    found = read_patch_set(
        put(tmp_path / "patches.csv", f"path,label,group,{name}\na.png,x,1,n\nb.png,y,2,NA\nc.png,y,2,\n")
    )
    assert found.centers is not None
    assert found.centers.tolist() == ["n", "", ""]
    assert found.notes() == ["2 of 3 patches have no centre; no centre's numbers count them."]
    nowhere = read_patch_set(put(tmp_path / "patches.csv", f"path,label,group,{name}\na.png,x,1,NA\nb.png,y,2,\n"))
    assert nowhere.centers is None


def test_what_the_file_does_not_say_is_told(tmp_path: Path) -> None:
    found = read_patch_set(
        put(tmp_path / "patches.csv", "path,label,Site,center,centre\na.png,x,1,n,m\nb.png,y,2,n,m\n")
    )
    for note, words in zip(
        found.notes(), ("take every patch for independent", "Unused columns of the CSV: 'Site', 'centre'."), strict=True
    ):
        assert words in note
        assert found.warnings().count(f"{found.source}: {note}") == 1
    (note,) = read_patch_set(put(tmp_path / "patches.csv", "path,label,slide_id\na.png,x,1\nb.png,y,2\n")).notes()
    assert "A patient may have several slides, which then stand on both sides" in note
    assert read_patch_set(put(tmp_path / "patches.csv", "path,label,case\na.png,x,1\nb.png,y,2\n")).warnings() == []


@pytest.mark.parametrize(
    "rows",
    [
        "case\na.png,x,TCGA-3C-AALI-01A\nb.png,y,TCGA-3C-AALI-11A\n",
        "case\nTCGA-3C-AALI_1.png,x,1\nTCGA-3C-AALI_2.png,y,2\n",
    ],
)
def test_a_patient_of_several_cases_is_told(tmp_path: Path, rows: str) -> None:
    (note,) = read_patch_set(put(tmp_path / "patches.csv", f"path,label,{rows}")).notes()
    assert note.startswith("By TCGA barcodes 1 patient has several names among the cases: TCGA-3C-AALI (")


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"cannot read .*nothing\.csv"):
        read_patch_set(tmp_path / "nothing.csv")


def test_splits_may_be_in_capitals(tmp_path: Path) -> None:
    table = read_patch_set(put(tmp_path / "patches.csv", "path,label,split\na.png,x,Train\nb.png,y,TEST\n"))
    assert table.splits is not None
    assert table.splits.tolist() == ["train", "test"]
    touch(tmp_path / "set", *(f"{split}/{name}/1.png" for split in ("Train", "TEST") for name in ("a", "b")))
    found = read_patch_set(tmp_path / "set")
    assert found.labels.tolist() == ["a", "b"] * 2
    assert found.splits is not None
    assert found.splits.tolist() == ["test", "test", "train", "train"]


def test_labels_in_two_spellings_are_told(tmp_path: Path) -> None:
    found = read_patch_set(
        put(tmp_path / "patches.csv", "path,label,case\na.png,Tumour,1\nb.png,tumour,2\nc.png,normal,c 3\n")
    )
    assert found.notes() == [
        "These labels differ only in spelling (capitals, blanks, zeros, ...) and count as different: "
        "'Tumour' and 'tumour'."
    ]


def test_groups_of_several_centres_are_told(tmp_path: Path) -> None:
    path = put(
        tmp_path / "patches.csv", "path,label,patient,center\na.png,x,1,n\nb.png,y,1,s\nc.png,x,2,s\nd.png,x,2,\n"
    )
    note = "1 of 2 patients are of several centres: '1' (n, s). If numbers start again at each centre"
    assert any(found.startswith(note) for found in read_patch_set(path).notes())


def test_some_rows(tmp_path: Path) -> None:
    path = put(tmp_path / "patches.csv", "path,label,group,center\na.png,x,1,n\nb.png,y,2,s\nc.png,z,3,n\n")
    whole = read_patch_set(path)
    found = whole.select(np.array([2, 0]))
    assert isinstance(found, PatchSet)
    assert found.labels.tolist() == ["z", "x"]
    assert [p.name for p in found.paths] == ["c.png", "a.png"]
    assert found.groups is not None
    assert found.groups.tolist() == ["3", "1"]
    assert found.splits is None
    assert (found.group_column, found.name) == ("group", "patches")
    assert found.hash() != whole.hash() == read_patch_set(path).hash()
    assert found.hash() == read_patch_set(path).select(np.array([2, 0])).hash()
