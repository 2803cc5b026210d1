"""All students of a study are scored alike, as `evaluate` does it, and what is kept belongs to the student."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.studies import base_values, study_store
from support.training import plain_curves

from pipeline.base.errors import BenchmarkError
from pipeline.config.stages import TrainConfig
from pipeline.evaluate.fidelity.score import StoreEmbeddings, TeacherSpace, row_figures
from pipeline.features.cache import read_arrays
from pipeline.store.store import Store
from pipeline.student.resolve import name_models
from pipeline.study.compare import estimate_score
from pipeline.study.yardstick import CaseSums, Computing, Yardstick, read_sums, scores_by_case, write_sums
from stages import train_student as stage

pytestmark = pytest.mark.usefixtures("one_thread")
KEY = {"run": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a student, and a finished run."""
    folder = tmp_path_factory.mktemp("yardstick")
    store = study_store(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "draw_curves", plain_curves)
        stage.train_student(store, folder / "run", TrainConfig(**base_values(folder)))
    return folder


def yardstick(folder: Path, most: int = 100) -> Yardstick:
    how = Computing(torch.device("cpu"), "float32", 2, None)
    return Yardstick(Store(folder / "store.zarr").first, most, folder / "embeddings", how)


def test_scores_are_those_of_evaluate(folder: Path) -> None:
    made = yardstick(folder)
    sums = made.score(folder / "run")
    (cached,) = (folder / "embeddings").glob("*.h5")
    embeddings, count = read_arrays(cached)[0]["features"], len(made.rows.train)
    (named,) = name_models([f"x={folder / 'run'}"], None)
    space = TeacherSpace(made.teacher, made.rows)
    student = StoreEmbeddings("x", embeddings[:count], embeddings[count:], False, None, named)
    figures = row_figures(space, student, space.fit_map(student).predict(student.val))
    expected = {
        "r2-linear": 1 - figures.residual.sum() / figures.total.sum(),
        "neighbour-overlap": figures.overlap.mean(),
        "retrieval": figures.top1.mean(),
        "cosine": figures.cosine.mean(),
    }
    for name, value in expected.items():
        assert estimate_score(scores_by_case([sums], name)).value == pytest.approx(value, rel=1e-6)
    assert len(made.cases) == 8
    assert sums.wholes["retrieval"].tolist() == [8.0] * 8


def test_sums_of_a_case_are_over_its_patches(folder: Path) -> None:
    made = yardstick(folder)
    sums = made.score(folder / "run")
    one = yardstick(folder, 5).score(folder / "run")
    assert one.wholes["cosine"].sum() == 5
    assert sums.parts["r2-linear"].sum() < sums.wholes["r2-linear"].sum()
    assert made.record() == yardstick(folder).record() != yardstick(folder, 5).record()


def test_kept_sums_are_read_back_for_the_same_run_only(folder: Path, tmp_path: Path) -> None:
    sums, path = yardstick(folder).score(folder / "run"), tmp_path / "0.json"
    assert read_sums(path, KEY) is None
    write_sums(path, sums, KEY)
    again = read_sums(path, KEY)
    assert again is not None
    for name, values in sums.parts.items():
        assert (again.parts[name] == values).all()
    assert read_sums(path, {"run": 2}) is None


@pytest.mark.parametrize("target", ["nowhere", "0.json"])
def test_sums_behind_a_broken_link_are_damaged_and_not_absent(target: str, tmp_path: Path) -> None:
    (tmp_path / "0.json").symlink_to(target)
    with pytest.raises(BenchmarkError, match=r"0\.json.*damaged"):
        read_sums(tmp_path / "0.json", KEY)


@pytest.mark.parametrize("change", ["cut", "nan", "other cases", "text"])
def test_damaged_sums_are_named(change: str, tmp_path: Path) -> None:
    path, ones = tmp_path / "0.json", {"cosine": np.ones(3)}
    write_sums(path, CaseSums(ones, ones), KEY)
    record = json.loads(path.read_text())
    if change == "nan":
        record["parts"]["cosine"][1] = float("nan")
    elif change == "other cases":
        record["parts"]["cosine"].append(1.0)
    elif change == "text":
        record["parts"]["cosine"][1] = "one"
    path.write_text(path.read_text()[:-20] if change == "cut" else json.dumps(record))
    with pytest.raises(BenchmarkError, match=r"0\.json.*damaged"):
        read_sums(path, KEY)
