"""The description of a run's student says what the run's records and the student's files say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
from support.stores import make_store, plain_vit, train_config
from support.training import train_once

from pipeline.base.errors import EncoderError
from pipeline.student.describe import describe_run_student, projector_shape, split_facts, takes_alpha
from pipeline.student.student_json import STUDENT_JSON, read_student_json
from pipeline.training.run_folder import RunFolder
from stages.export import export_student
from stages.train_student import train_student


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of one teacher."""
    return RunFolder(train_once(tmp_path_factory.mktemp("trained"), loss="mse") / "run")


def test_it_says_what_the_run_says(run: RunFolder) -> None:
    identity, config = run.read_identity(), json.loads((run.student / "config.json").read_text())
    content = read_student_json(run.student)
    encoder, (teacher,) = content.encoder, content.teachers
    assert encoder.name == identity["student"]["name"]
    assert encoder.architecture == config["architecture"]
    assert (encoder.width, encoder.patch_px, encoder.mpp) == (32, 32, config["mpp"])
    assert [*encoder.mean, *encoder.std] == config["pretrained_cfg"]["mean"] + config["pretrained_cfg"]["std"]
    assert encoder.embedding == config["embedding"]
    assert encoder.start.projectors == ()
    assert (teacher.name, teacher.weights_sha256) == ("test-teacher", identity["teacher"]["weights_sha256"])
    assert (teacher.width, teacher.loss_weight, teacher.store_content) == (12, 1, identity["store"])
    assert content.plan_hash == identity["plan"]
    assert (content.training.loss, content.training.alpha) == ("mse", None)
    assert content.training.step == run.exported_step()
    assert content.split is not None
    assert (content.split.by, content.split.cases.known) == ("case", True)
    card = (run.student / "README.md").read_text()
    assert f"{content.split.train_rows} patches (slides: {content.split.train_slides}," in card
    assert f"Held out: {content.split.val_rows} patches (slides: {content.split.val_slides}," in card


def test_an_export_keeps_it_and_a_run_of_an_earlier_version_gets_one(run: RunFolder, tmp_path: Path) -> None:
    export_student(run.folder, tmp_path / "new")
    assert (tmp_path / "new" / STUDENT_JSON).read_bytes() == (run.student / STUDENT_JSON).read_bytes()
    earlier = RunFolder(Path(shutil.copytree(run.folder, tmp_path / "run")))
    (earlier.student / STUDENT_JSON).unlink()
    export_student(earlier.folder, tmp_path / "renewed")
    content, renewed = read_student_json(run.student), read_student_json(tmp_path / "renewed")
    assert content.encoder.resampling == "lanczos-torch"
    encoder = content.encoder.model_copy(update={"resampling": "lanczos-pillow"})  # as all earlier versions did
    assert renewed == content.model_copy(update={"split": None, "encoder": encoder})
    assert "resampling" not in (tmp_path / "renewed" / STUDENT_JSON).read_text()
    half = describe_run_student(run, run.student, 1, None, "lanczos-torch", "half")
    assert (content.encoder.decode, half.encoder.decode) == ("full", "half")
    assert "decode" not in (run.student / STUDENT_JSON).read_text()
    assert f"  {STUDENT_JSON}\n" in (tmp_path / "renewed" / "README.md").read_text()
    assert not (earlier.student / STUDENT_JSON).exists()


def test_a_run_with_another_projector_is_not_exported(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(Path(shutil.copytree(run.folder, tmp_path / "run")))
    path = other.student / "projector" / "projector.safetensors"
    state = safetensors.torch.load_file(path)
    safetensors.torch.save_file(state | {"linear.bias": state["linear.bias"] + 1}, path)
    with pytest.raises(EncoderError, match=r"not the projector that student\.json names"):
        export_student(other.folder, tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.slow
def test_nothing_is_held_out(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", val=())
    trained = train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "start"), epochs=2))
    content = read_student_json(trained.run.student)
    assert (content.training.best, content.training.epoch) == (None, 2)
    assert content.split is not None
    assert (content.split.by, content.split.val_rows) == ("none", 0)


@pytest.mark.parametrize(
    ("strip", "val_rows", "by"), [(None, 4, "case"), (0.2, 4, "strip"), (None, 0, "none"), (0.2, 0, "none")]
)
def test_how_rows_were_split_is_one_word(strip: float | None, val_rows: int, by: str) -> None:
    cases = {"slides": 3, "unknown": 1, "not_recorded": 0, "repeats_ids": False, "barcodes": 0}
    counts = {"train_rows": 8, "train_slides": 2, "val_rows": val_rows, "val_slides": 1}
    facts = split_facts({"cases": cases, "val_strip": strip, "more": "left out", **counts})
    assert (facts["by"], facts["val_strip"]) == (by, strip)
    assert {name: facts[name] for name in counts} == counts
    assert facts["cases"] == {"known": False, "slides": 3, "unknown": 1, "not_recorded": 0, "repeats_ids": False}


def test_the_shape_of_a_projector_is_read_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "projector.safetensors"
    with pytest.raises(EncoderError, match=r"projector\.safetensors: not the projector of an exported student"):
        projector_shape(path)
    safetensors.numpy.save_file({"linear.weight": np.zeros((7, 3), np.float32)}, path)
    assert projector_shape(path) == (7, 3)
    for state in ({"linear.weight": np.zeros(7, np.float32)}, {"other": np.zeros((7, 3), np.float32)}):
        safetensors.numpy.save_file(state, path)
        with pytest.raises(EncoderError, match=r"projector\.safetensors: not the projector"):
            projector_shape(path)


def test_only_some_losses_have_an_exponent() -> None:
    assert [takes_alpha(loss) for loss in ("log-sum", "mse", "a loss of an earlier version")] == [True, False, False]
