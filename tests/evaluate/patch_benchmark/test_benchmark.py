"""The patch benchmark: what it sees of its inputs before anything is computed."""

from pathlib import Path

import numpy as np
import pytest
from support.labelled_patches import NUM, cohort, config, patches_of, write_patches

from pipeline.base.errors import G2LError
from pipeline.evaluate.patch_benchmark.section import patch_section, prepare

SPLITS = ["train"] * 12 + ["test"] * 12


def test_folds_go_by_the_case_and_slides_are_counted(tmp_path: Path) -> None:
    pictures, columns = cohort()
    more = {"group": [f"roi{i}" for i in range(NUM)], "Slide_ID": [f"S{i}" for i in range(NUM)]}
    found = patches_of(write_patches(tmp_path, pictures, columns | more))
    assert found.group_column == "case_id"
    assert {words: len(set(names)) for words, names in found.within.items()} == {"groups": NUM, "slides": NUM}
    assert found.notes() == ["The column group divides cases, so that folds and intervals go by case_id, not by it."]
    assert found.unused_columns == ()
    for fold in prepare(found, config()).task.folds:
        assert found.groups is not None
        assert not set(found.groups[fold.train]) & set(found.groups[fold.test])


def test_gaps_in_a_column_of_cases_part_no_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The case is given of half of the patches, the patient of all; then the patient of one patch of each case only."""
    pictures, columns = cohort()
    cases = columns["case_id"]
    half = [case if i < NUM // 2 else "" for i, case in enumerate(cases)]
    found = patches_of(write_patches(tmp_path, pictures, columns | {"case_id": half, "Patient": cases}))
    assert (found.group_column, found.notes()) == ("patient", [])
    assert found.groups is not None
    assert found.groups.tolist() == cases
    one = ["" if i % 2 else f"P{i // 4}" for i in range(NUM)]
    found = patches_of(write_patches(tmp_path, pictures, columns | {"patient": one}))
    assert found.groups is not None
    assert found.groups.tolist() == [f"P{i // 4}" for i in range(NUM)]
    assert "12 of 24 rows have no patient, and that of rows of the same case_id" in capsys.readouterr().err
    gap = [*half[:-1], ""]
    with pytest.raises(G2LError, match="line 14: case_id is empty"):
        patches_of(write_patches(tmp_path, pictures, columns | {"case_id": gap}))


def test_a_tissue_microarray_goes_by_patients(tmp_path: Path) -> None:
    pictures, columns = cohort()
    slides = [f"TMA{i % 3}" for i in range(NUM)]
    found = patches_of(write_patches(tmp_path, pictures, columns | {"slide_id": slides}))
    assert found.group_column == "case_id"
    (note,) = found.notes()
    assert note.startswith("3 of 3 slides hold several cases")
    for fold in prepare(found, config()).task.folds:
        assert found.groups is not None
        assert not set(found.groups[fold.train]) & set(found.groups[fold.test])


def test_the_basis_counts_slides_and_cases_on_both_sides(tmp_path: Path) -> None:
    pictures, columns = cohort()
    slides = [f"S{i}" for i in range(NUM - 1)] + [""]
    found = patches_of(write_patches(tmp_path, pictures, columns | {"slide_id": slides, "split": SPLITS}))
    embeddings = np.random.default_rng(0).normal(size=(NUM, 4)).astype(np.float32)
    assert patch_section(found, {"a": embeddings}, config(), "a").basis == {
        "patches": 24, "slides": 23, "cases": 12, "classes": 2, "patches to train on": 12, "cases to train on": 6,
        "slides to train on": 12, "patches scored": 12, "cases scored": 6, "slides scored": 11,
    }  # fmt: skip
