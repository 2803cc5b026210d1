"""A teacher that came from a file is found again by the store's note, and by nothing else than its hash is it right."""

import json
import shutil
from pathlib import Path

import pytest
from support.extraction import TEACHER, extract, plan_cohort, write_cohort, write_teacher
from support.stores import train_config

from pipeline.base.errors import ConfigError, EncoderError
from pipeline.config.model_names import PRETRAINED
from pipeline.store.store import Store
from pipeline.student.resolve import name_model, name_models
from pipeline.student.weights_place import NOTED_WEIGHTS, noted_place, remembered_weights, weights_note, weights_of_run
from pipeline.training.run_folder import RunFolder
from stages.train_student import train_student


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `teacher.safetensors`, `store.zarr` made by it, and `run`, a student of that."""
    folder = tmp_path_factory.mktemp("place")
    weights = write_teacher(folder / "teacher.safetensors")
    store = extract(plan_cohort(write_cohort(folder / "slides")), folder / "store.zarr", weights).store
    train_student(store, folder / "run", train_config(TEACHER, epochs=1, weights="scratch", batch_size=4))
    return folder


def test_the_note_is_absolute_and_decides_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert weights_note(None) == {}
    assert weights_note(Path("t.pth::teacher")) == {NOTED_WEIGHTS: str(place / "t.pth::teacher")}
    store = Store(place / "store.zarr")
    assert remembered_weights(store.first) == place / "teacher.safetensors"
    before = store.first.content_hash()
    store.first.attributes[NOTED_WEIGHTS] = str(place / "gone.pth")
    assert store.first.content_hash() == before
    assert remembered_weights(store.first) is None
    assert noted_place(store.first) == str(place / "gone.pth")
    del store.first.attributes[NOTED_WEIGHTS]  # of an earlier version
    assert remembered_weights(store.first) is None
    assert noted_place(store.first) == "teacher.safetensors"


def test_a_run_s_teacher_is_found_by_its_store_or_the_one_that_is_evaluated(place: Path, tmp_path: Path) -> None:
    named = name_model(f"teacher={place / 'run'}@teacher", None)
    assert named.weights == place / "teacher.safetensors"
    assert named.build().weights_sha256 == Store(place / "store.zarr").first.spec.teacher["weights_sha256"]
    alone = shutil.copytree(place / "run", tmp_path / "run")
    config = alone / "config.toml"
    config.write_text(config.read_text().replace(str(place / "store.zarr"), "gone.zarr"))
    with pytest.raises(ConfigError, match=rf"weights came from teacher.safetensors; say where .*{TEACHER}@FILE"):
        name_model(f"{alone}@teacher", None)
    (found,) = name_models([f"{alone}@teacher"], None, place / "store.zarr")
    assert found.weights == place / "teacher.safetensors"
    teacher = RunFolder(alone).read_identity()["teacher"]
    assert weights_of_run(RunFolder(alone), teacher | {"weights": PRETRAINED}, None) == PRETRAINED
    assert weights_of_run(RunFolder(alone), teacher | {"weights_sha256": "f" * 64}, place / "store.zarr") is None


def test_a_file_that_was_replaced_is_refused(place: Path, tmp_path: Path) -> None:
    store = shutil.copytree(place / "store.zarr", tmp_path / "store.zarr")
    other = write_teacher(tmp_path / "other.safetensors", seed=5)
    text = json.loads((store / "zarr.json").read_text())
    text["attributes"]["g2l"][NOTED_WEIGHTS] = str(other)
    (store / "zarr.json").write_text(json.dumps(text))
    with pytest.raises(EncoderError, match="its weights are not those that the run names"):
        name_model(f"{place / 'run'}@teacher", None, store).build()
