"""Feature files of a slide benchmark: surveyed once, compared, and read again unchanged."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.slide_sets import NUM_CASES, WIDTH, Features, prepared, run, write_features, write_labelled_slides

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.slide_benchmark import score as slide_benchmark
from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.evaluate.slide_benchmark.score import BagReader, bag_moments, sha256_of, slide_folds, survey
from pipeline.evaluate.slide_benchmark.section import slide_section


def test_features_of_several_models_in_one_folder(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    write_features(tmp_path / "uni", "case_03-DX1", np.ones((4, WIDTH), np.float32), "conch")
    with pytest.raises(BenchmarkError, match=r"uni: .*several encoders \(uni in .*, conch in .*case_03-DX1\.h5\)"):
        run(path, features)
    write_features(tmp_path / "uni", "case_03-DX1", np.ones((4, 8), np.float32), "uni")
    with pytest.raises(BenchmarkError, match=r"uni: .*several widths \(16 in .*, 8 in .*case_03-DX1\.h5\)"):
        run(path, features)


def test_bags_hold_all_patches_of_their_slides_whether_kept_or_read_again(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    found, surveys = survey(read_slide_set(path, "tp53", features))
    content = surveys["uni"].content
    expected = []
    for slide in found.bags[5].slides:
        with h5py.File(tmp_path / "uni" / f"{slide}.h5") as f:
            expected.append(f["features"][()])
    assert len(expected) == 2
    keeping, reading = (BagReader(found.bags, found.files["uni"], content, kept) for kept in (1 << 20, 0))
    for reader in (keeping, reading):
        np.testing.assert_array_equal(reader(5), np.concatenate(expected))
    assert keeping(5) is keeping(5)
    assert reading(5) is not reading(5)


@pytest.mark.slow
def test_what_is_kept_changes_no_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, features = write_labelled_slides(tmp_path)
    kept = run(path, features[:1])
    monkeypatch.setattr(slide_benchmark, "KEPT_BYTES", 0)
    assert run(path, features[:1]).record() == kept.record()


@pytest.mark.slow
def test_files_that_change_after_they_were_looked_at_are_told(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    bench = prepared(path, features)
    write_features(tmp_path / "noise", "case_04-DX1", np.ones((4, WIDTH), np.float32))
    with pytest.raises(BenchmarkError, match=r"noise/case_04-DX1\.h5: its features have changed since"):
        slide_section(bench, None, torch.device("cpu"))


def copy_features(folders: Features, source: str, target: str) -> None:
    """Give a slide the features of another, in a file of other bytes."""
    for _, folder in folders:
        with h5py.File(folder / f"{source}.h5") as f:
            features = f["features"][()]
        write_features(folder, target, features, "uni" if folder.name == "uni" else None)
        with h5py.File(folder / f"{target}.h5", "a") as f:
            f.attrs["note"] = "copied"


@pytest.mark.slow
def test_copies_under_two_cases_are_left_out_by_name(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    copy_features(features[:1], "case_03-DX1", "case_09-DX1")
    section = run(path, features)
    assert [(e.what, e.by_rule) for e in section.exclusions] == [
        ("slide case_03-DX1 of case case_03", False),
        ("slide case_09-DX1 of case case_09", False),
        ("case case_03", False),
        ("case case_09", False),
    ]
    assert section.exclusions[0].why.startswith(
        "uni: its features are exactly those of slide case_09-DX1 of case case_09."
    )
    assert section.basis["cases"] == NUM_CASES - 2


def test_a_slide_of_zeros_is_left_out_by_name(tmp_path: Path) -> None:
    """It has no direction, which would end the kNN of all slides."""
    path, features = write_labelled_slides(tmp_path)
    write_features(tmp_path / "uni", "case_04-DX1", np.zeros((4, WIDTH), np.float32))
    found, _ = survey(read_slide_set(path, "tp53", features))
    (left_out,) = [exclusion for exclusion in found.exclusions if exclusion.what.startswith("slide")]
    assert left_out.what == "slide case_04-DX1 of case case_04"
    assert left_out.why.endswith("uni/case_04-DX1.h5: all features are zero. Embed it again")
    assert "case_04" not in found.cases


@pytest.mark.slow
def test_copies_within_a_case_are_counted(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    copy_features(features, "case_05-DX1", "case_05-DX2")
    section = run(path, features)
    assert not section.exclusions
    assert [note for note in section.notes if "same features as" in note] == [
        f"{model}: 1 slide has the same features as another of the same case; each counts."
        for model in ("uni", "noise")
    ]


def test_a_cohort_of_copies_is_refused_with_the_reason(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    for slide in [file.stem for file in features[0][1].glob("*.h5")]:
        write_features(features[0][1], slide, np.ones((8, WIDTH), np.float32))
    with pytest.raises(BenchmarkError, match="its features are exactly those of") as caught:
        run(path, features)
    assert "Compare the ids" not in str(caught.value)


def test_files_that_took_a_class_with_them_are_named(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    for case in range(3, NUM_CASES, 2):
        for file in features[0][1].glob(f"case_{case:02d}-*"):
            file.write_bytes(b"no features")
    with pytest.raises(BenchmarkError, match=r"'mut' has 1(.|\n)*Left out before:\n.*case_03(.|\n)* more"):
        prepared(path, features)


def test_the_moments_of_a_bag_are_those_of_all_its_patches(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    found, surveys = survey(read_slide_set(path, "tp53", features))
    surveyed = surveys["uni"]
    assert (surveyed.width, surveyed.encoder, surveys["noise"].encoder) == (WIDTH, "uni", None)
    reader = BagReader(found.bags, found.files["uni"], surveyed.content)
    moments = bag_moments(found, surveyed)
    assert len(moments) == NUM_CASES
    for bag, of_bag in enumerate(moments):
        patches = reader(bag).astype(np.float64)
        assert of_bag.count == len(patches)
        assert of_bag.mean == pytest.approx(patches.mean(0))
        assert of_bag.squares == pytest.approx(((patches - patches.mean(0)) ** 2).sum(0))


def test_the_hash_of_features_is_of_values_and_shape() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert sha256_of(values) == sha256_of(np.asfortranarray(values))
    assert sha256_of(values) != sha256_of(values.reshape(4, 3))
    assert sha256_of(values) != sha256_of(values + 1)


def test_a_split_of_the_table_goes_before_folds(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    whole = read_slide_set(path, "tp53", features)
    assert not whole.has_split
    assert len(slide_folds(whole, 4, seed=0)) == 4
    head, *lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([f"{head},split", *(f"{line},{'train' if line < 'case_12' else 'test'}" for line in lines)])
    )
    split = read_slide_set(path, "tp53", features)
    assert split.has_split
    (fold,) = slide_folds(split, 4, seed=0)
    assert [split.bags[i].name for i in fold.test.tolist()] == [f"case_{i}" for i in range(12, NUM_CASES)]
    assert len(fold.train) == 12
