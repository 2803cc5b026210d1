"""Which feature file is of which slide: names, paths, and what is not guessed."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.features.slide_files import SlideFiles, files_of_slides, read_trees


def write(folder: Path, names: Sequence[str]) -> Path:
    """Files as STAMP writes them, below its folder of an extractor; their values are their place in `names`."""
    for i, name in enumerate(names):
        path = folder / "uni-abcdef01" / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as f:
            f["feats"], f["coords"] = np.full((2, 3), i, np.float16), np.zeros((2, 2))
            f.attrs.update({"extractor": "uni", "code_hash": "abcdef01", "feat_type": "tile"})
    return folder


def found(folder: Path, names: Sequence[str], cells: Sequence[str]) -> SlideFiles:
    return files_of_slides(cells, read_trees([("m", write(folder, names))]))


def paths(folder: Path, files: SlideFiles) -> dict[str, str]:
    root = folder / "uni-abcdef01"
    return {slide: path.relative_to(root).as_posix() for slide, path in files.files["m"].items()}


@pytest.mark.parametrize(
    ("names", "cell", "slide", "file"),
    [
        (["s0", "s1"], "s0", "s0", "s0.h5"),
        (["s0", "s1"], "s0.svs", "s0", "s0.h5"),
        (["s0.v2", "s1"], "s0.v2", "s0.v2", "s0.v2.h5"),
        (["s0", "s1"], "sub/s0.h5", "s0", "s0.h5"),  # the folder has no subfolders
        (["a/s0", "a/s1"], "s0", "s0", "a/s0.h5"),
        (["a/s0", "b/s0"], "b/s0.h5", "b/s0", "b/s0.h5"),
        (["a/s0", "b/s0"], "/data/slides/b/s0.svs", "b/s0", "b/s0.h5"),
        (["a/s0", "s0"], "a/s0", "a/s0", "a/s0.h5"),
        (["a/s0", "s0"], "./s0", "./s0", "s0.h5"),
        (["a/b/s0", "c/b/s1"], "b/s0", "s0", "a/b/s0.h5"),
    ],
)
def test_a_cell_names_a_file(tmp_path: Path, names: list[str], cell: str, slide: str, file: str) -> None:
    files = found(tmp_path, names, [cell])
    assert files.ids == (slide,)
    assert paths(tmp_path, files) == {slide: file}
    assert files.unclear == {}
    assert files.num_files == {"m": 2}


BARCODE = "TCGA-3C-AALI-01Z-00-DX1"
UUID = "F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291"
OTHER_UUID = "0123abcd-0123-4567-89ab-0123456789ab"


@pytest.mark.parametrize(
    ("names", "cell", "file"),
    [
        ([f"{BARCODE}.{UUID}"], BARCODE, f"{BARCODE}.{UUID}.h5"),
        ([f"{BARCODE}.{UUID}"], f"{BARCODE}.svs", f"{BARCODE}.{UUID}.h5"),
        ([BARCODE], f"folder/{BARCODE}.{UUID}.svs", f"{BARCODE}.h5"),
        ([f"brca/{BARCODE}.{OTHER_UUID}"], f"brca/{BARCODE}", f"brca/{BARCODE}.{OTHER_UUID}.h5"),
        ([BARCODE, f"{BARCODE}.{UUID}"], BARCODE, f"{BARCODE}.h5"),
        ([f"{BARCODE}.{OTHER_UUID}"], f"{BARCODE}.{UUID}", None),
        ([f"{BARCODE}.{UUID}"], BARCODE.replace("DX1", "DX"), None),
        ([f"{BARCODE}.{UUID}"], "TCGA-3C-AALI", None),  # a case is no slide
        ([f"brca/{BARCODE}.{UUID}"], f"luad/{BARCODE}", None),
        ([f"s0.{UUID}"], "s0", None),
    ],
)
def test_the_gdc_s_uuid_may_be_left_out(tmp_path: Path, names: list[str], cell: str, file: str | None) -> None:
    """Tools call features by the slide's file, with the UUID; tables and `g2l make-manifest` by the barcode alone."""
    files = found(tmp_path, [*names, "other"], [cell])
    assert list(paths(tmp_path, files).values()) == ([] if file is None else [file])


def test_a_barcode_of_two_files_is_not_clear(tmp_path: Path) -> None:
    files = found(tmp_path, [f"{BARCODE}.{UUID}", f"{BARCODE}.{OTHER_UUID}"], [BARCODE])
    assert (files.files, list(files.unclear)) == ({"m": {}}, [BARCODE])


def test_one_model_s_files_may_have_the_uuid_and_another_s_not(tmp_path: Path) -> None:
    trees = [("a", write(tmp_path / "a", [BARCODE])), ("b", write(tmp_path / "b", [f"{BARCODE}.{UUID}"]))]
    for cell in (BARCODE, f"{BARCODE}.{UUID}"):
        files = files_of_slides([cell], read_trees(trees))
        assert {model: set(of_model) for model, of_model in files.files.items()} == {
            model: set(files.ids) for model in "ab"
        }


@pytest.mark.parametrize(
    ("names", "cells", "unclear"),
    [
        (["a/s0", "a/s1"], ["b/s0"], []),  # another subfolder's file is not taken
        (["a/s0", "b/s0"], ["s0"], ["s0"]),
        (["a/x/s0", "b/x/s0"], ["x/s0"], ["x/s0"]),
        (["s0", "s1"], ["t0"], []),
        (["s0", "s1"], ["a/t0.h5"], []),
    ],
)
def test_what_is_not_there_or_not_clear_is_not_guessed(
    tmp_path: Path, names: list[str], cells: list[str], unclear: list[str]
) -> None:
    files = found(tmp_path, names, cells)
    assert files.files == {"m": {}}
    assert list(files.unclear) == unclear
    assert all("could be meant" in why and names[0] in why for why in files.unclear.values())


def test_a_file_is_of_one_slide(tmp_path: Path) -> None:
    """Two cells with the same end, and a second model whose folder has no subfolders to tell them by."""
    trees = read_trees([("m", write(tmp_path / "m", ["a/s0", "b/s0"])), ("n", write(tmp_path / "n", ["s0", "s1"]))])
    files = files_of_slides(["a/s0", "b/s0", "s1"], trees)
    assert files.ids == ("a/s0", "b/s0", "s1")
    assert files.files["m"].keys() == {"a/s0", "b/s0"}
    assert files.files["n"].keys() == {"s1"}
    assert "could be of b/s0 as well" in files.unclear["a/s0"]


def test_a_cell_that_is_not_clear_takes_no_file_from_one_that_is(tmp_path: Path) -> None:
    files = found(tmp_path, ["a/s0", "b/s0"], ["a/s0", "s0"])
    assert paths(tmp_path, files) == {"a/s0": "a/s0.h5"}
    assert list(files.unclear) == ["s0"]


def test_two_models_need_not_have_the_same_names_twice(tmp_path: Path) -> None:
    trees = read_trees(
        [("m", write(tmp_path / "m", ["a/s0", "b/s0", "b/s1"])), ("n", write(tmp_path / "n", ["a/s0", "b/s1"]))]
    )
    files = files_of_slides(["a/s0.h5", "b/s1.h5"], trees)
    assert files.ids == ("a/s0", "s1")
    assert all(files.files[model].keys() == {"a/s0", "s1"} for model in "mn")


def test_of_cases_names_that_several_files_have_are_listed(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", ["brca/T1-DX1", "luad/T1-DX1", "brca/T1-DX2", "brca/T2-DX1", "1/5", "2/5", "3/6"])
    csv = tmp_path / "cases.csv"
    csv.write_text("PATIENT,label\nT1,x\nT2,y\n1,x\n5,y\n6,x\n")
    set_of = read_slide_set(csv, "label", [("m", folder)])
    assert {bag.name: bag.slides for bag in set_of.bags} == {"T1": ("T1-DX2",), "T2": ("T2-DX1",), "6": ("6",)}
    assert set_of.incomplete == ("T1",)
    left_out = {exclusion.what: exclusion.why for exclusion in set_of.exclusions}
    assert "have one name" in left_out["slide T1-DX1 of case T1"]
    assert "have one name" in left_out["slide 5"]
    assert left_out["case 1"] == "no feature file is named after it"  # a subfolder is no case
    assert not any(exclusion.by_rule for exclusion in set_of.exclusions)


def test_a_table_with_paths_is_paired_by_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", [f"{sub}/s{i}" for sub in "ab" for i in range(4) if (sub, i) != ("b", 3)])
    csv = tmp_path / "slides.csv"
    csv.write_text("FILENAME,PATIENT,label\n" + "".join(f"b/s{i}.h5,P{i},{'xy'[i % 2]}\n" for i in range(4)))
    set_of = read_slide_set(csv, "label", [("m", folder)])
    assert {s: path.parent.name for s, path in set_of.files["m"].items()} == {f"b/s{i}": "b" for i in range(3)}
    assert [e.what for e in set_of.exclusions] == ["slide b/s3.h5 of case P3", "case P3"]
    assert any("m: 4 feature files belong to no row" in note for note in set_of.notes)
