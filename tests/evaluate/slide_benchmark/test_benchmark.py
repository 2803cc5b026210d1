"""The slide benchmark: what it sees of its inputs before anything is computed, and how folders are named."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.benchmarks import look

from pipeline.base.errors import ConfigError, G2LError
from pipeline.evaluate.slide_benchmark import score as slide_benchmark
from pipeline.evaluate.slide_benchmark.benchmark import SlideBenchmark, named_folders, unmatched_notes
from pipeline.evaluate.slide_benchmark.options import SlideOptions
from pipeline.features.read import read_features
from pipeline.student.resolve import NamedModel


def write_slides(folder: Path, csv: str) -> dict[str, Any]:
    """Options of a slide benchmark with features of the slides s0 to s7."""
    features = folder / "uni"
    features.mkdir(exist_ok=True)
    for i in range(8):
        with h5py.File(features / f"s{i}.h5", "w") as f:
            f["features"] = np.full((3, 2), i + 1, np.float32)
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
        look(**write_slides(tmp_path, slides_csv(splits)))


def test_splits_may_be_in_capitals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = write_slides(tmp_path, slides_csv("Train;TRAIN;train;train;Test;Test;test;test"))
    look(**options, folds=5)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("folds", [3, 5])
def test_folds_beside_a_split_have_no_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str], folds: int) -> None:
    """The default is no number that anybody gave."""
    options = write_slides(tmp_path, slides_csv("train;train;train;train;test;test;test;test"))
    look(**options, folds=folds)
    note = f"warning: --folds {folds}: no effect, for {options['slides']} gives a split"
    assert (note in capsys.readouterr().err) == (folds != 5)
    options = write_slides(
        tmp_path, slides_csv("train;train;train;train;test;test;test;test").replace("split", "other")
    )
    look(**options, folds=4)
    assert "no effect" not in capsys.readouterr().err


def test_slides_without_a_case_are_told_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = "slide_id,subject,label\n" + "".join(f"s{i},P,{'xy'[i % 2]}\n" for i in range(8))
    look(**write_slides(tmp_path, csv))
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
    for slide, value in (("s1", np.nan), ("s3", 3.0)):  # s2 holds 3 as well
        with h5py.File(folder / f"{slide}.h5", "w") as f:
            f["features"] = np.full((3, 2), value, np.float32)
    reads: list[Path] = []

    def counted(path: Path) -> Any:
        reads.append(path)
        return read_features(path)

    monkeypatch.setattr(slide_benchmark, "read_features", counted)
    (benchmark,) = look(**options)
    assert isinstance(benchmark, SlideBenchmark)
    found = benchmark.bench.surveyed.slide_set
    assert sorted(path.stem for path in reads) == [f"s{i}" for i in range(8)]
    assert found.slides == ["s4", "s5", "s6", "s7"]
    listed = {exclusion.what: exclusion.why for exclusion in found.exclusions}
    assert "not a readable feature file" in listed["slide s0 of case P0"]
    assert "NaN" in listed["slide s1 of case P1"]
    assert "exactly those of slide s3" in listed["slide s2 of case P2"]
    assert "slides and cases together: 8; the report lists them" in capsys.readouterr().err
    for i in range(8):
        with h5py.File(folder / f"s{i}.h5", "w") as f:
            f["features"] = np.full((3, 2), np.nan, np.float32)
    with pytest.raises(G2LError, match="no case has both a label and features of every model"):
        look(**options)


def test_labels_and_features_belong_together(tmp_path: Path) -> None:
    assert SlideBenchmark.is_wanted(SlideOptions(slides=tmp_path / "s.csv", features=[f"uni={tmp_path}"]))
    assert not SlideBenchmark.is_wanted(SlideOptions())
    for alone in (
        SlideOptions(slides=tmp_path / "s.csv"),
        SlideOptions(features=[str(tmp_path)]),
        SlideOptions(slides=tmp_path / "s.csv", features=[]),
    ):
        with pytest.raises(ConfigError, match="--slides and --features belong together"):
            SlideBenchmark.is_wanted(alone)


def test_folders_are_called_by_their_label_or_their_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uni", "conch"):
        (tmp_path / name).mkdir()
    uni, conch = tmp_path / "uni", tmp_path / "conch"
    assert named_folders([f"UNI 2={uni}", str(conch)]) == [("UNI 2", uni), ("conch", conch)]
    monkeypatch.chdir(uni)
    assert named_folders(["."])[0][0] == "uni"
    assert named_folders([]) == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["{}/gone"], "gone is not a folder"),
        (["x={}/file"], "file is not a folder"),
        (["{}/uni", "uni={}/conch"], "two are called uni; name them: --features LABEL=DIR"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path: Path, texts: list[str], words: str) -> None:
    for name in ("uni", "conch"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=words):
        named_folders([text.format(tmp_path) for text in texts])


def test_features_of_no_model_stand_for_themselves_and_are_told(tmp_path: Path) -> None:
    csv = "slide_id,case_id,label\n" + "".join(f"s{i},P{i},{'xy'[i % 2]}\n" for i in range(8))
    benchmark = SlideBenchmark.look(SlideOptions(**write_slides(tmp_path, csv), folds=3, resamples=100), workers=1)
    assert benchmark.other_labels == ("uni",)
    assert benchmark.check_models([NamedModel("uni", "any", "scratch", 32)]) == []
    (note,) = benchmark.check_models([NamedModel("other", "any", "scratch", 32)])
    assert note == "The features uni are of none of the models (other) and stand for themselves."
    assert unmatched_notes([], ["a"]) == unmatched_notes(["a"], ["b", "a"]) == []
