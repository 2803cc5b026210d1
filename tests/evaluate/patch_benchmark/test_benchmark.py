"""The patch benchmark: what it sees of its inputs before anything is computed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.labelled_patches import NUM, cohort, options, patches_of, write_patches
from support.pixels import noise

from pipeline.base.errors import G2LError
from pipeline.evaluate.patch_benchmark.benchmark import PatchBenchmark
from pipeline.evaluate.patch_benchmark.section import patch_bench, patch_section

SPLITS = ["train"] * 12 + ["test"] * 12


def test_folds_go_by_the_case_and_slides_are_counted(tmp_path: Path) -> None:
    pictures, columns = cohort()
    more = {"group": [f"roi{i}" for i in range(NUM)], "Slide_ID": [f"S{i}" for i in range(NUM)]}
    found = patches_of(write_patches(tmp_path, pictures, columns | more))
    assert found.group_column == "case_id"
    assert {words: len(set(names)) for words, names in found.within.items()} == {"groups": NUM, "slides": NUM}
    assert found.notes() == ["The column group divides cases, so that folds and intervals go by case_id, not by it."]
    assert found.unused_columns == ()
    for fold in patch_bench(found, options()).task.folds:
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


def test_images_that_took_a_class_with_them_are_named(tmp_path: Path) -> None:
    pictures, columns = cohort()
    columns["label"] = ["x"] * (NUM - 1) + ["y"]
    path = write_patches(tmp_path, pictures, columns | {"split": SPLITS})
    (tmp_path / f"{NUM - 1}.png").write_bytes(b"no image")
    with pytest.raises(G2LError, match=rf"of one class(.|\n)*Left out before:\n.*{NUM - 1}\.png: "):
        patches_of(path)


def test_folds_beside_a_split_have_no_effect(tmp_path: Path) -> None:
    pictures, columns = cohort()
    split, plain = tmp_path / "split", tmp_path / "plain"
    for folder in (split, plain):
        folder.mkdir()
    path = write_patches(split, pictures, columns | {"split": SPLITS})
    note = f"--folds 3: no effect, for {path} gives a split"
    assert note in PatchBenchmark.look(options(path), 1).notes
    unsplit = write_patches(plain, pictures, columns)
    assert not any("no effect" in note for note in PatchBenchmark.look(options(unsplit), 1).notes)


def test_a_tissue_microarray_goes_by_patients(tmp_path: Path) -> None:
    pictures, columns = cohort()
    slides = [f"TMA{i % 3}" for i in range(NUM)]
    found = patches_of(write_patches(tmp_path, pictures, columns | {"slide_id": slides}))
    assert found.group_column == "case_id"
    (note,) = found.notes()
    assert note.startswith("3 of 3 slides hold several cases")
    for fold in patch_bench(found, options()).task.folds:
        assert found.groups is not None
        assert not set(found.groups[fold.train]) & set(found.groups[fold.test])


def test_the_basis_counts_slides_and_cases_on_both_sides(tmp_path: Path) -> None:
    pictures, columns = cohort()
    slides = [f"S{i}" for i in range(NUM - 1)] + [""]
    found = patches_of(write_patches(tmp_path, pictures, columns | {"slide_id": slides, "split": SPLITS}))
    embeddings = np.random.default_rng(0).normal(size=(NUM, 4)).astype(np.float32)
    assert patch_section(patch_bench(found, options()), {"a": embeddings}, "a").basis == {
        "patches": 24,
        "slides": 23,
        "cases": 12,
        "classes": 2,
        "patches to train on": 12,
        "cases to train on": 6,
        "slides to train on": 12,
        "patches scored": 12,
        "cases scored": 6,
        "slides scored": 11,
    }


def test_patches_ask_for_it_and_images_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    assert not PatchBenchmark.is_wanted(options())
    path = write_patches(tmp_path, *cohort())
    (tmp_path / "3.png").write_bytes(b"no image")
    asked = options(path)
    assert PatchBenchmark.is_wanted(asked)
    benchmark = PatchBenchmark.look(asked, workers=1)
    assert [name.name for name in benchmark.bench.patch_set.paths] == [f"{i}.png" for i in range(NUM) if i != 3]
    assert [exclusion.what for exclusion in benchmark.images.exclusions] == [str(tmp_path / "3.png")]
    assert any(f"left out of {path}: 1 of {NUM} images" in note for note in benchmark.notes)
    source = benchmark.patch_source()
    assert source is not None
    assert len(source.rows) == NUM - 1
    patch = np.zeros((8, 8, 3), np.uint8)
    source.read(source.rows[3], patch)
    assert np.array_equal(patch, noise(8, 8, 3, seed=4))  # the one after what is left out


def test_classes_that_cannot_be_told_apart_are_refused_before_models_are_built(tmp_path: Path) -> None:
    pictures, columns = cohort()
    path = write_patches(tmp_path, pictures, columns | {"label": ["x"] * NUM})
    with pytest.raises(G2LError, match="of one class, 'x'"):
        PatchBenchmark.look(options(path), workers=1)
    for i in range(NUM):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(G2LError, match=f"none of its {NUM} images can be used"):
        PatchBenchmark.look(options(path), workers=1)
    Image.fromarray(pictures[0]).save(tmp_path / "0.png")
    with pytest.raises(G2LError, match="of one class, 'x'"):
        PatchBenchmark.look(options(path), workers=1)
