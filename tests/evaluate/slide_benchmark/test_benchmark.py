"""The slide benchmark: what it sees of its inputs before anything is computed, and how folders are named."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.labelled_patches import config

from pipeline.base.errors import G2LError
from pipeline.evaluate.slide_benchmark import score as slide_benchmark
from pipeline.evaluate.slide_benchmark.benchmark import SlideBenchmark
from pipeline.features.read import read_features
from stages.evaluate import look_at_inputs


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
    assert "not used: 'subject'" in said


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
