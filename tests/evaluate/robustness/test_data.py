"""The CSV of a robustness benchmark: what is read, and what is refused by name and line."""

from pathlib import Path

import numpy as np
import pytest
from support.robustness_sets import Row, write_rows

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.robustness.data import RobustnessSet, read_robustness_set


def index_rows(subset: str = "") -> list[Row]:
    """Two classes by two centres, two slides each, two patches a slide."""
    rows = []
    for center in "xy":
        for slide in "12":
            for patch, label in enumerate(("tumour", "stroma")):
                row = {"slide_id": f"{center}{slide}", "patch_id": str(patch), "biological_class": label}
                row |= {"medical_center": center, "path": f"images/{center}{slide}_{patch}.png"}
                rows.append(row | ({"subset": subset} if subset else {}))
    return rows


def paired_rows() -> list[Row]:
    """Two scanners by two stainings, three places."""
    return [
        {"slide_id": f"{a}{b}", "patch_id": f"{i}_0", "scanner": a, "staining": b, "path": f"{a}{b}_{i}.png"}
        for a in "PQ"
        for b in "HM"
        for i in range(3)
    ]


def test_rows_for_the_index(tmp_path: Path) -> None:
    found = read_robustness_set(write_rows(tmp_path / "set.csv", index_rows()))
    assert found.paired is None
    assert found.index is not None
    assert found.index.subsets is None
    assert found.num_out_of_domain == 0
    for row, image, slide, label, center in zip(
        index_rows(), found.index.images, found.index.slides, found.index.classes, found.index.centers, strict=True
    ):
        assert found.paths[image] == tmp_path / row["path"]
        assert (slide, label, center) == (row["slide_id"], row["biological_class"], row["medical_center"])


def test_rows_for_pairs(tmp_path: Path) -> None:
    found = read_robustness_set(write_rows(tmp_path / "set.csv", paired_rows()), tmp_path)
    assert found.index is None
    assert found.paired is not None
    names = [
        f"{a}{b}_{i[0]}.png"
        for a, b, i in zip(found.paired.scanners, found.paired.stainings, found.paired.places, strict=True)
    ]
    assert [found.paths[i].name for i in found.paired.images] == names
    only = [{name: cell for name, cell in row.items() if name != "staining"} for row in paired_rows()]
    one = read_robustness_set(write_rows(tmp_path / "set.csv", only)).paired
    assert one is not None
    assert set(one.stainings.tolist()) == {""}


def test_columns_without_a_meaning_are_kept_by_name(tmp_path: Path) -> None:
    rows = [row | {"Stain": "HE", "note": ""} for row in index_rows("a")]
    found = read_robustness_set(write_rows(tmp_path / "set.csv", rows))
    assert found.unused_columns == ("stain", "note")
    assert found.select(np.ones(len(found.paths), np.bool_)).unused_columns == ("stain", "note")
    assert read_robustness_set(write_rows(tmp_path / "set.csv", index_rows("a"))).unused_columns == ()
    pairs = [row | {"medical_center": "x"} for row in paired_rows()]  # of the index, which lacks its other columns
    assert read_robustness_set(write_rows(tmp_path / "set.csv", pairs)).unused_columns == ("medical_center",)


def test_paths_hang_below_the_images_root(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = index_rows()
    rows[0]["path"] = "/somewhere/else.png"
    found = read_robustness_set(write_rows(tmp_path / "set.csv", rows), tmp_path / "other")
    assert found.index is not None
    assert found.paths[found.index.images[0]] == Path("/somewhere/else.png")
    assert found.paths[found.index.images[1]] == tmp_path / "other" / rows[1]["path"]
    with pytest.raises(BenchmarkError, match="is not a folder; correct --images-root"):
        read_robustness_set(write_rows(tmp_path / "set.csv", rows), tmp_path / "nowhere")


def test_the_order_of_rows_does_not_move_images(tmp_path: Path) -> None:
    forward = read_robustness_set(write_rows(tmp_path / "set.csv", index_rows()))
    backward = read_robustness_set(write_rows(tmp_path / "set.csv", index_rows()[::-1]))
    assert forward.paths == backward.paths == sorted(forward.paths)


def test_a_patch_of_several_subsets_is_one_image(tmp_path: Path) -> None:
    found = read_robustness_set(write_rows(tmp_path / "set.csv", index_rows("a") + index_rows("b")))
    assert len(found.paths) == 8
    assert found.index is not None
    assert found.index.subsets is not None
    assert found.index.images.tolist()[:8] == found.index.images.tolist()[8:]
    assert found.index.subsets.tolist() == ["a"] * 8 + ["b"] * 8


def test_out_of_domain_patches_do_not_count_for_the_index(tmp_path: Path) -> None:
    away = {"slide_id": "z", "medical_center": "unknown"}  # the index does not ask
    extra = [row | away | {"path": f"z{i}.png"} for i, row in enumerate(index_rows("OOD")[:2])]
    found = read_robustness_set(write_rows(tmp_path / "set.csv", index_rows("ID") + extra))
    assert found.num_out_of_domain == 2
    assert len(found.paths) == 8
    with pytest.raises(BenchmarkError, match="no patches for the robustness index"):
        read_robustness_set(write_rows(tmp_path / "set.csv", index_rows("OOD")))


def test_one_file_for_both(tmp_path: Path) -> None:
    rows = [row | {"scanner": row["slide_id"]} for row in index_rows("a") + index_rows("b")]
    found = read_robustness_set(write_rows(tmp_path / "set.csv", rows))
    assert found.index is not None
    assert found.paired is not None
    assert (len(found.index.images), len(found.paired.images)) == (16, 8)


def test_ids_are_text_as_they_are(tmp_path: Path) -> None:
    rows = index_rows()
    rows[0] |= {"patch_id": "007"}
    rows[2] |= {"patch_id": "7"}
    rows[0]["biological_class"] = rows[2]["biological_class"] = "1e3"
    found = read_robustness_set(write_rows(tmp_path / "set.csv", rows))
    assert found.index is not None
    assert found.index.classes.tolist().count("1e3") == 2
    upper = [{name.upper(): cell for name, cell in row.items()} for row in rows]
    again = read_robustness_set(write_rows(tmp_path / "set.csv", upper))
    assert again.index is not None
    assert again.index.classes.tolist() == found.index.classes.tolist()


def test_blanks_around_cells_do_not_count(tmp_path: Path) -> None:
    for rows in (index_rows("a") + index_rows("OOD")[:1], paired_rows()):
        plain = read_robustness_set(write_rows(tmp_path / "set.csv", rows))
        blank = [{name: f" {cell}\t" if i % 2 else cell for name, cell in row.items()} for i, row in enumerate(rows)]
        found = read_robustness_set(write_rows(tmp_path / "set.csv", blank))
        assert (found.paths, found.num_out_of_domain, found.notes) == (plain.paths, plain.num_out_of_domain, ())
        for read, expected in ((found.index, plain.index), (found.paired, plain.paired)):
            assert (read is None) == (expected is None)
            if read is not None:
                columns = zip(vars(read).values(), vars(expected).values(), strict=True)
                assert all(np.array_equal(a, b) for a, b in columns)


def test_names_that_differ_only_in_capitals_are_noted(tmp_path: Path) -> None:
    rows = index_rows("a") + index_rows("A")
    for i, name in ((1, "Stroma"), (3, "STROMA")):
        rows[i]["biological_class"] = rows[i + 8]["biological_class"] = name
    apart = [rows[0] | {"slide_id": "o", "path": f"o{i}.png", "patch_id": f"{i}"} for i in range(2)]
    rows += [apart[0] | {"subset": "ooD"}, apart[1] | {"subset": "OOD"}]
    found = read_robustness_set(write_rows(tmp_path / "set.csv", rows))
    assert found.num_out_of_domain == 2
    assert found.notes == (
        "These names of biological_class differ only in spelling (capitals, blanks, zeros, ...) and count as "
        "different: 'STROMA' and "
        "'Stroma' and 'stroma'.",
        "These names of subset differ only in spelling (capitals, blanks, zeros, ...) and count as different: "
        "'A' and 'a'.",
    )
    assert found.index is not None
    assert "STROMA" in found.index.classes
    assert found.select(np.ones(len(found.paths), np.bool_)).notes == found.notes
    pairs = [row | {"scanner": "p" if row["slide_id"] == "PM" else row["scanner"]} for row in paired_rows()]
    assert "scanner" in read_robustness_set(write_rows(tmp_path / "set.csv", pairs)).notes[0]


def test_columns_that_are_spelled_alike_are_refused(tmp_path: Path) -> None:
    rows = [row | {"Medical_Center": "z"} for row in index_rows()]
    with pytest.raises(BenchmarkError, match="columns medical_center, Medical_Center are spelled alike; keep one"):
        read_robustness_set(write_rows(tmp_path / "set.csv", rows))


@pytest.mark.parametrize("missing", ["path", "slide_id", "biological_class", "medical_center"])
def test_missing_columns_are_named_with_what_is_needed(missing: str, tmp_path: Path) -> None:
    rows = [{name: cell for name, cell in row.items() if name != missing} for row in index_rows()]
    with pytest.raises(BenchmarkError) as refused:
        read_robustness_set(write_rows(tmp_path / "set.csv", rows))
    assert "slide_id, patch_id, path, biological_class, medical_center, and may have subset" in str(refused.value)
    assert "paired robustness needs slide_id, patch_id, path and scanner or staining" in str(refused.value)


@pytest.mark.parametrize(
    ("line", "change", "words"),
    [
        (3, {"medical_center": " "}, "line 3: medical_center is empty"),
        (3, {"path": ""}, "line 3: path is empty"),
        (3, {"biological_class": "nan"}, "line 3: biological_class is 'nan', which stands for a missing value"),
        (4, {"medical_center": "NA"}, "line 4: medical_center is 'NA', which stands for a missing value"),
        (4, {"subset": ""}, "line 4: subset is empty"),
        (2, {"patch_id": "1"}, "line 3: patch '1' of slide 'x1' stands on line 2 already in subset 'a'; keep one row"),
        (5, {"medical_center": "y"}, "line 5: slide 'x2' has medical_center 'y' here and 'x' on line 4"),
        (5, {"path": "images/x1_0.png"}, "line 5: image 'images/x1_0.png' has patch 'x2 1' here and 'x1 0' on line 2"),
        (10, {"path": "n.png"}, "line 10: patch '0' of slide 'x1' has path 'n.png' here and 'images/x1_0.png'"),
        (10, {"biological_class": "fat"}, "line 10: patch '0' of slide 'x1' has biological_class 'fat' here and"),
    ],
)
def test_rows_that_contradict_each_other_are_named(line: int, change: Row, words: str, tmp_path: Path) -> None:
    rows = index_rows("a") + index_rows("b")
    rows[line - 2] |= change
    with pytest.raises(BenchmarkError) as refused:
        read_robustness_set(write_rows(tmp_path / "set.csv", rows))
    assert words in str(refused.value)


def test_a_slide_has_one_scanner(tmp_path: Path) -> None:
    rows = paired_rows()
    rows[1] |= {"scanner": "Q"}
    with pytest.raises(BenchmarkError, match="line 3: slide 'PH' has scanner 'Q' here and 'P' on line 2"):
        read_robustness_set(write_rows(tmp_path / "set.csv", rows))


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    for content, words in ((b"", "is empty"), (b"slide_id,patch_id,path,scanner\n", "no rows"), (b"\xff\xfe", "UTF-8")):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(BenchmarkError, match=words):
            read_robustness_set(tmp_path / "bad.csv")
    with pytest.raises(BenchmarkError, match="cannot read"):
        read_robustness_set(tmp_path / "absent.csv")
    (tmp_path / "bad.csv").write_text("slide_id,patch_id,path,scanner\n1,2,3\n")
    with pytest.raises(BenchmarkError, match="line 2: 3 cells where the header has 4"):
        read_robustness_set(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"biological_class": lambda row: "tumour"}, "at least two classes and two centres, not 1 and 2"),
        ({"medical_center": lambda row: "x"}, "at least two classes and two centres, not 2 and 1"),
        ({"biological_class": lambda row: f"of {row['medical_center']}"}, "no class is of more than one centre"),
        (
            {"medical_center": lambda row: row["biological_class"], "slide_id": lambda row: row["path"]},
            "no class is of more than one centre",
        ),
    ],
)
def test_sets_that_allow_one_value_only_are_refused(change, words: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [row | {name: of(row) for name, of in change.items()} for row in index_rows()]
    with pytest.raises(BenchmarkError, match=words):
        read_robustness_set(write_rows(tmp_path / "set.csv", rows))


def test_centres_with_one_class_each_are_refused(tmp_path: Path) -> None:
    rows = [
        row | {"medical_center": f"{i // 2}", "biological_class": "ab"[i // 2 % 2]}
        for i, row in enumerate(index_rows())
    ]
    with pytest.raises(BenchmarkError, match="no centre has two classes"):
        read_robustness_set(write_rows(tmp_path / "set.csv", rows))


def test_each_subset_is_looked_at(tmp_path: Path) -> None:
    single = [row for row in index_rows("b") if row["medical_center"] == "x"]
    with pytest.raises(BenchmarkError, match=r"set.csv, subset 'b': .* not 2 and 1"):
        read_robustness_set(write_rows(tmp_path / "set.csv", index_rows("a") + single))


def test_pairs_need_common_places(tmp_path: Path) -> None:
    rows = [row | {"patch_id": str(i)} for i, row in enumerate(paired_rows())]
    with pytest.raises(BenchmarkError, match="no patch_id is on two slides"):
        read_robustness_set(write_rows(tmp_path / "set.csv", rows))


def without(found: RobustnessSet, *names: str) -> RobustnessSet:
    return found.select(np.array([path.name not in names for path in found.paths]))


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    found = read_robustness_set(write_rows(tmp_path / "set.csv", index_rows("a") + index_rows("b")))
    left = without(found, "x1_0.png", "y2_1.png")
    assert [path.name for path in left.paths] == [p.name for p in found.paths if p.name not in ("x1_0.png", "y2_1.png")]
    assert left.index is not None
    assert left.index.subsets is not None
    assert len(left.index.images) == 12
    for image, slide, label, subset in zip(
        left.index.images, left.index.slides, left.index.classes, left.index.subsets, strict=True
    ):
        patch = {"tumour": 0, "stroma": 1}[str(label)]
        assert left.paths[image].name == f"{slide}_{patch}.png"
        assert subset in "ab"
    assert without(found).paths == found.paths


def test_pairs_without_images_that_cannot_be_read(tmp_path: Path) -> None:
    left = without(read_robustness_set(write_rows(tmp_path / "set.csv", paired_rows())), "PH_0.png")
    assert left.paired is not None
    assert len(left.paired.images) == 11
    assert left.paths[left.paired.images[0]].name == "PH_1.png"


def test_too_little_left_is_refused(tmp_path: Path) -> None:
    found = read_robustness_set(write_rows(tmp_path / "set.csv", index_rows()))
    with pytest.raises(BenchmarkError, match=r"without 4 of 8 images that cannot be used: .* not 2 and 1"):
        without(found, *(path.name for path in found.paths if path.name.startswith("x")))
    paired = read_robustness_set(write_rows(tmp_path / "set.csv", paired_rows()))
    with pytest.raises(BenchmarkError, match="without 9 of 12 images that cannot be used: no patch_id"):
        without(paired, *(path.name for path in paired.paths if not path.name.startswith("PH")))


def cases_of(path: Path) -> list[str]:
    index = read_robustness_set(path, with_cases=True).index
    assert index is not None
    assert index.cases is not None
    return list(index.cases.tolist())


def test_cases_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    rows = [row | {"patient": "p" + row["slide_id"][0]} for row in index_rows()]
    path = write_rows(tmp_path / "set.csv", rows)
    assert cases_of(path) == ["px"] * 4 + ["py"] * 4
    plain = read_robustness_set(path)
    assert plain.index is not None
    assert plain.index.cases is None
    assert plain.unused_columns == ("patient",)
    asked = read_robustness_set(path, with_cases=True)
    assert asked.unused_columns == ()
    usable = np.arange(len(asked.paths)) > 0
    left = asked.select(usable).index
    assert left is not None
    assert left.cases is not None
    assert left.cases.tolist() == ["px"] * 3 + ["py"] * 4
    samples = [row | {"patient": f"TCGA-A{row['slide_id'][0]}-0001-0{row['slide_id'][1]}A"} for row in index_rows()]
    noted = read_robustness_set(write_rows(tmp_path / "set.csv", samples), with_cases=True).notes
    assert any("2 patients have several names among the patients: TCGA-AX-0001 (" in note for note in noted)


def test_without_a_column_of_cases_barcodes_and_then_slides_are_cases(tmp_path: Path) -> None:
    assert cases_of(write_rows(tmp_path / "a.csv", index_rows())) == ["x1", "x1", "x2", "x2", "y1", "y1", "y2", "y2"]
    rows = [
        row | {"slide_id": f"TCGA-A{row['slide_id'][0]}-0001-01Z-00-DX{row['slide_id'][1]}"} for row in index_rows()
    ]
    assert cases_of(write_rows(tmp_path / "b.csv", rows)) == ["TCGA-AX-0001"] * 4 + ["TCGA-AY-0001"] * 4
    rows = [row | {"case_id": "-"} for row in index_rows()]
    assert len(set(cases_of(write_rows(tmp_path / "c.csv", rows)))) == 4


def test_columns_of_cases_that_cross_are_refused(tmp_path: Path) -> None:
    rows = [row | {"case_id": f"c{i % 3}", "patient_id": f"p{i % 2}"} for i, row in enumerate(index_rows())]
    with pytest.raises(BenchmarkError, match="case_id 'c0' is of patient_id"):
        read_robustness_set(write_rows(tmp_path / "set.csv", rows), with_cases=True)
