"""What `g2l evaluate` sees before anything is computed: copies of patches, splits of slides, a k that is too large."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import ConfigError, G2LError
from pipeline.config.base import to_toml
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.patch_benchmark.benchmark import PatchBenchmark
from pipeline.evaluate.patch_benchmark.data import PatchSet
from pipeline.evaluate.patch_benchmark.section import patch_section, prepare
from pipeline.evaluate.report_folder import start_folder
from pipeline.evaluate.robustness.benchmark import RobustnessBenchmark
from pipeline.evaluate.slide_benchmark import score as slide_benchmark
from pipeline.evaluate.slide_benchmark.benchmark import SlideBenchmark
from pipeline.features.read import read_features
from stages.evaluate import look_at_inputs

Pixels = NDArray[np.uint8]
NUM = 24
SPLITS = ["train"] * 12 + ["test"] * 12


def config(**options: Any) -> EvaluateConfig:
    return EvaluateConfig.build({"models": ["a"], "cost": False, "folds": 3, "resamples": 100} | options)


def noise(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def write_patches(folder: Path, pictures: list[Pixels], columns: dict[str, list[str]]) -> Path:
    """Images 0.png, 1.png, ... and a table of them with `columns`."""
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
    table = {"path": [f"{i}.png" for i in range(len(pictures))], **columns}
    lines = [",".join(table), *(",".join(row) for row in zip(*table.values(), strict=True))]
    path = folder / "patches.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def cohort(copies: dict[int, int] | None = None) -> tuple[list[Pixels], dict[str, list[str]]]:
    """24 patches of 12 cases in two classes; `copies` maps a patch to the one whose picture it has."""
    pictures = [noise((copies or {}).get(i, i)) for i in range(NUM)]
    cases = [f"C{i // 2}" for i in range(NUM)]
    return pictures, {"label": ["xy"[i // 2 % 2] for i in range(NUM)], "case_id": cases}


def patches_of(path: Path, **options: Any) -> PatchSet:
    (benchmark,) = look_at_inputs(config(patches=path, **options))
    assert isinstance(benchmark, PatchBenchmark)
    return benchmark.patch_set


# --- copies of patches ---


def test_copies_in_two_cases_are_an_error_with_pairs(tmp_path: Path) -> None:
    path = write_patches(tmp_path, *cohort({4: 0, 12: 8}))
    with pytest.raises(G2LError) as caught:
        patches_of(path)
    message = str(caught.value)
    assert "2 patches are copies, pixel for pixel, of another with a different case_id" in message
    assert f"{tmp_path / '0.png'} (case_id 'C0') and {tmp_path / '4.png'} (case_id 'C2')" in message
    assert f"{tmp_path / '8.png'} (case_id 'C4') and {tmp_path / '12.png'} (case_id 'C6')" in message
    assert "give both the same case_id" in message


def test_a_link_and_another_compression_are_copies(tmp_path: Path) -> None:
    path = write_patches(tmp_path, *cohort())
    (tmp_path / "4.png").unlink()
    (tmp_path / "4.png").symlink_to("0.png")
    with pytest.raises(G2LError, match="1 patch is a copy"):
        patches_of(path)
    (tmp_path / "4.png").unlink()
    Image.fromarray(noise(0)).save(tmp_path / "4.png", format="BMP")
    with pytest.raises(G2LError, match="1 patch is a copy"):
        patches_of(path)
    changed = noise(0)
    changed[3, 3, 1] ^= 1
    Image.fromarray(changed).save(tmp_path / "4.png")
    assert len(patches_of(path)) == NUM


def test_copies_under_two_labels_or_in_two_splits_are_an_error(tmp_path: Path) -> None:
    pictures, columns = cohort({1: 0})
    labels = columns["label"]
    path = write_patches(tmp_path, pictures, columns | {"label": ["y", *labels[1:]]})
    with pytest.raises(G2LError, match=r"different label:\n.*0\.png \(label 'y'\) and .*1\.png \(label 'x'\)"):
        patches_of(path)
    columns = {"label": labels, "split": ["Train"] + ["TEST"] * 11 + ["train"] * 12}
    path = write_patches(tmp_path, pictures, columns)
    with pytest.raises(G2LError, match=r"different split:\n.*\(split 'train'\) and .*\(split 'test'\)"):
        patches_of(path)


def test_copies_within_a_case_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = patches_of(write_patches(tmp_path, *cohort({1: 0, 3: 2})))
    (note,) = found.notes()
    assert note.startswith(
        "2 of 24 patches are copies, pixel for pixel, of another of the same class and of the same case"
    )
    assert note in capsys.readouterr().err


def test_copies_without_groups_stay_on_one_side(tmp_path: Path) -> None:
    pictures, columns = cohort({4: 0, 8: 0, 16: 12})
    found = patches_of(write_patches(tmp_path, pictures, {"label": columns["label"]}))
    assert any("3 of 24 patches are copies" in note and "kept on one side" in note for note in found.notes())
    bench = prepare(found, config())
    assert bench.resamples.num_groups == NUM - 3
    for rows in ([0, 4, 8], [12, 16]):
        assert len({int(bench.task.parts[row]) for row in rows}) == 1
    chosen = found.select(np.array([8, 4, 1]))
    assert len(set(chosen.groups_or_own().tolist())) == 2


def test_blank_patches_are_no_leak(tmp_path: Path) -> None:
    pictures, columns = cohort()
    blank = np.full((8, 8, 3), (250, 240, 250), np.uint8)
    for i in (0, 3, 4, 9):
        pictures[i] = blank
    found = patches_of(write_patches(tmp_path, pictures, columns))
    (note,) = found.notes()
    assert note.startswith("3 of 24 patches are of one colour throughout")
    alone = patches_of(write_patches(tmp_path, pictures, {"label": columns["label"]}))
    assert len(np.unique(alone.groups_or_own())) == NUM  # blank patches of all cases are not one group


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


# --- slides and robustness ---


def write_slides(folder: Path, csv: str) -> dict[str, Any]:
    """Options of a slide benchmark with features of the slides s0 to s7."""
    features = folder / "uni"
    features.mkdir(exist_ok=True)
    for i in range(8):
        with h5py.File(features / f"s{i}.h5", "w") as f:
            f["features"] = np.full((3, 2), i, np.float32)
    path = folder / "slides.csv"
    path.write_text(csv)
    return {"slides": path, "features": [f"uni={features}"]}


def slides_csv(splits: str) -> str:
    return "slide_id,PATIENT,label,split\n" + "".join(
        f"s{i},P{i},{'xy'[i % 2]},{split}\n" for i, split in enumerate(splits.split(";"))
    )


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ("train;train;train;train;test;test;;", "line 8: split is empty"),
        ("train;train;train;train;test;test;dev;0", "line 9: split '0' is not one of train, val, test"),
        ("train;train;train;train;val;val;val;val", "no example is of the split 'test'"),
        ("test;train;test;train;test;train;test;train", "test has classes that train lacks"),
    ],
)
def test_splits_of_slides_are_seen_early(tmp_path: Path, splits: str, words: str) -> None:
    with pytest.raises(G2LError, match=words):
        look_at_inputs(config(**write_slides(tmp_path, slides_csv(splits))))


def test_splits_may_be_in_capitals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = write_slides(tmp_path, slides_csv("Train;TRAIN;train;train;Test;Test;test;test"))
    look_at_inputs(config(**options))
    assert "warning" not in capsys.readouterr().err


def test_slides_without_a_case_are_told_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = "slide_id,subject,label\n" + "".join(f"s{i},P,{'xy'[i % 2]}\n" for i in range(8))
    look_at_inputs(config(**write_slides(tmp_path, csv)))
    said = capsys.readouterr().err
    assert "every slide counts as a case of its own" in said
    assert "Unused columns of the CSV: 'subject'" in said


def test_features_are_read_early_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file, one of NaN and a copy under another case are told; what cannot be scored is refused."""
    options = write_slides(
        tmp_path, "slide_id,case_id,label\n" + "".join(f"s{i},P{i},{'xy'[i % 2]}\n" for i in range(8))
    )
    options["folds"] = 2
    folder = tmp_path / "uni"
    (folder / "s0.h5").write_bytes(b"cut short")
    for slide, value in (("s1", np.nan), ("s3", 2.0)):  # s2 holds 2 as well
        with h5py.File(folder / f"{slide}.h5", "w") as f:
            f["features"] = np.full((3, 2), value, np.float32)
    reads: list[Path] = []

    def counted(path: Path) -> Any:
        reads.append(path)
        return read_features(path)

    monkeypatch.setattr(slide_benchmark, "read_features", counted)
    (benchmark,) = look_at_inputs(config(**options))
    assert isinstance(benchmark, SlideBenchmark)
    found = benchmark.surveyed.slide_set
    assert sorted(path.stem for path in reads) == [f"s{i}" for i in range(8)]
    assert found.slides == ["s4", "s5", "s6", "s7"]
    listed = {exclusion.what: exclusion.why for exclusion in found.exclusions}
    assert "not a readable feature file" in listed["slide s0 of case P0"]
    assert "NaN" in listed["slide s1 of case P1"]
    assert "exactly those of slide s3" in listed["slide s2 of case P2"]
    assert "8 slides and cases of" in capsys.readouterr().err
    for i in range(8):
        with h5py.File(folder / f"s{i}.h5", "w") as f:
            f["features"] = np.full((3, 2), np.nan, np.float32)
    with pytest.raises(G2LError, match="no case has both a label and features of every model"):
        look_at_inputs(config(**options))


def test_a_k_that_is_too_large_is_seen_early(tmp_path: Path) -> None:
    rows = ["path,slide_id,patch_id,biological_class,medical_center,subset"]
    for subset, per_slide in (("one", 2), ("two", 1)):
        for slide in range(4):
            for patch in range(per_slide):
                name = f"{subset}{slide}{patch}"
                Image.fromarray(noise(len(rows))).save(tmp_path / f"{name}.png")
                rows.append(f"{name}.png,{subset}{slide},{name},{'xy'[slide % 2]},{'mn'[slide // 2]},{subset}")
    path = tmp_path / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    look_at_inputs(config(robustness=path, ri_k=3))
    with pytest.raises(G2LError, match="only 3 patches of other slides within subset 'two'; take a k of at most 3"):
        look_at_inputs(config(robustness=path, ri_k=4))


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ({5: 0, 9: 0, 3: 2}, "3 patches are copies, pixel for pixel, of one on another slide"),  # 2, 3: of one slide
        ({1: 0, 3: 2}, ""),
        ({0: -1, 4: -1, 8: -1}, ""),  # blank
    ],
)
def test_copies_on_other_slides_are_told_of_a_robustness_set(
    tmp_path: Path, pictures: dict[int, int], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight slides of two patches, two classes by two centres."""
    rows = ["path,slide_id,patch_id,biological_class,medical_center"]
    for i in range(16):
        code = pictures.get(i, i)
        picture = np.full((8, 8, 3), 250, np.uint8) if code < 0 else noise(code)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,S{i // 2},{i},{'xy'[i % 2]},{'mn'[i // 2 % 2]}")
    path = tmp_path / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    (benchmark,) = look_at_inputs(config(robustness=path))
    assert isinstance(benchmark, RobustnessBenchmark)
    notes = benchmark.robustness_set.notes
    assert (words in " ".join(notes)) if words else notes == ()
    assert words in capsys.readouterr().err


def test_a_report_from_before_there_were_protocols_is_one_of_the_plain_one(tmp_path: Path) -> None:
    config = EvaluateConfig(models=["a"])
    record = {name: value for name, value in config.record().items() if name != "protocol"}
    (tmp_path / "evaluate.toml").write_text(to_toml({"evaluate": {"out": str(tmp_path)} | record}))
    (tmp_path / "report.json").write_text('{"settings": {"precision": "float32"}}')
    with pytest.raises(ConfigError, match="protocol: 'plain' -> 'balanced'"):
        start_folder(tmp_path, config, "float32")
    start_folder(tmp_path, EvaluateConfig(models=["a"], protocol="plain"), "float32")
