"""Which student is exported: the last or the best by the held-out loss, whatever kills the run; and training longer."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.stores import make_store, plain_vit, run_files, train_config
from support.training import same_state, stop_after

from pipeline.base.draws import RUN_VERSION
from pipeline.base.errors import CheckpointError, ConfigError
from pipeline.config.stages import TrainConfig
from pipeline.evaluate.fidelity.notes import training_note
from pipeline.store.store import Store
from pipeline.student.folder import load_projector
from pipeline.student.resolve import name_model
from pipeline.student.student_json import read_student_json
from pipeline.training import run_folder
from pipeline.training.checkpoint import load_checkpoint, load_last_checkpoint, save_checkpoint
from pipeline.training.run_folder import RunFolder
from stages import train_student as stage
from stages.export import export_student
from stages.inspect import inspect_path
from stages.reports.train import Trained, train_report
from stages.train_student import train_student


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Three epochs of six steps."""
    source = plain_vit(tmp_path_factory.mktemp("source") / "vit")
    return train_config(source, epochs=3, batch_size=8, lr=1e-3, checkpoint_every=2)


@pytest.fixture(autouse=True, scope="module")
def _best_is_the_first_epoch() -> Iterator[None]:
    """Let the held-out loss rise by 10 with each further validation but that of the first epoch, whatever was learnt:
    by what the student is, so that a run that is continued gets the same.
    """
    real = stage.validate

    def rising(run: Any, log: Any, *, step: int, epoch: int) -> None:
        scored = stage.score_teachers
        stage.score_teachers = lambda *a, **k: [(f, x + 10.0 * abs(epoch - 1)) for f, x in scored(*a, **k)]
        try:
            real(run, log, step=step, epoch=epoch)
        finally:
            stage.score_teachers = scored

    stage.validate = rising
    yield
    stage.validate = real


def keeping_best(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"keep": "best"})


@pytest.fixture(scope="module")
def best(store: Store, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    trained = train_student(store, tmp_path_factory.mktemp("best") / "run", keeping_best(config))
    found = trained.run.best()
    assert found is not None
    assert (found.step, trained.num_steps) == (6, 18), "the best must be gone from the last checkpoints"
    return trained


def exported(run: RunFolder) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run.student / "model.safetensors")


def test_the_best_is_exported_with_its_figures(best: Trained, tmp_path: Path) -> None:
    run, found = best.run, best.run.best()
    assert found is not None
    vals = {line["step"]: line for line in run.metrics() if line["kind"] == "val"}
    assert found.loss == min(line["loss"] for step, line in vals.items() if step)
    ((_, after),) = best.held_out.values()
    assert after["loss"] == found.loss
    assert (best.step, run.exported_step()) == (found.step, found.step)
    assert same_state(exported(run), load_checkpoint(run.checkpoints, found.step)["student"])
    words = f"epoch {found.epoch} is exported"
    for text in (train_report(best), inspect_path(run.folder), (run.student / "README.md").read_text()):
        assert words in text
    assert f"| loss | {vals[0]['loss']:.4f} | {found.loss:.4f} |" in (run.student / "README.md").read_text()
    assert "gives the run's embeddings" in export_student(run.folder, tmp_path / "student")
    for folder in (run.student, tmp_path / "student"):
        training = read_student_json(folder).training
        assert (training.step, training.epoch) == (found.step, found.epoch)
        assert training.best is not None
        assert (training.best.step, training.best.epoch, training.best.loss) == (found.step, found.epoch, found.loss)
    last = load_last_checkpoint(run.checkpoints)
    assert last is not None
    assert last["step"] == best.num_steps
    assert len(list(run.checkpoints.glob("*.pt"))) == 3  # the last two and the best


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 6, 7, 13, 17])
def test_a_stopped_run_keeps_the_same_best(
    best: Trained, store: Store, config: TrainConfig, tmp_path: Path, steps: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", keeping_best(config))
    train_student(store, tmp_path / "run", keeping_best(config))
    assert run_files(tmp_path / "run") == run_files(best.run.folder)


@pytest.mark.slow
def test_the_last_is_kept_unless_told_and_the_other_can_be_had_later(
    best: Trained, store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    trained = train_student(store, tmp_path / "run", config)
    last = load_last_checkpoint(trained.run.checkpoints)
    assert last is not None
    assert same_state(exported(trained.run), last["student"])
    assert "the last epoch is exported" in train_report(trained)
    assert "--keep best exports that one" in train_report(trained)
    training = read_student_json(trained.run.student).training
    assert training.best is not None
    assert (training.step, training.epoch, training.best.step) == (18, 3, 6)
    train_student(store, tmp_path / "run", keeping_best(config))
    assert run_files(tmp_path / "run") == run_files(best.run.folder)
    train_student(store, tmp_path / "run", config)
    assert same_state(exported(trained.run), last["student"])


def test_an_earlier_checkpoint_finds_the_best_of_its_time(tmp_path: Path) -> None:
    for step, best_step in ((10, 10), (20, 20), (30, 20), (40, 40), (50, 40)):
        save_checkpoint(tmp_path, step, {"step": step}, best_step)
    names = {path.stem for path in tmp_path.glob("*.pt")}
    assert names == {"step-000000040", "step-000000050"}
    for step, best_step in ((60, 40), (70, 70)):
        save_checkpoint(tmp_path, step, {"step": step}, best_step)
    assert {path.stem for path in tmp_path.glob("*.pt")} == {f"step-0000000{n}" for n in (40, 60, 70)}
    with pytest.raises(CheckpointError, match=r"step-000000010\.pt: the checkpoint of this step is missing"):
        load_checkpoint(tmp_path, 10)


def test_the_best_of_nothing_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", val=())
    with pytest.raises(ConfigError, match="--keep best: no rows are held out"):
        train_student(store, tmp_path / "run", keeping_best(config))


# --- runs of earlier versions ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_version_1_continues_as_it_was_begun(
    store: Store, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its draws, its figures, and no version in its record."""
    short = config.model_copy(update={"epochs": 1})
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "RUN_VERSION", 1)
        whole = train_student(store, tmp_path / "whole", short).run
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", short)
    continued = train_student(store, tmp_path / "run", short).run
    assert run_files(continued.folder) == run_files(whole.folder)
    assert "version" not in continued.read_identity()
    val = [line for line in continued.metrics() if line["kind"] == "val"][-1]
    assert list(val)[4:] == ["rows", "explained_variance", "cosine", "retrieval_top1", "neighbour_overlap", "cka"]
    assert "explained variance, unscaled" in inspect_path(continued.folder)
    new = train_student(store, tmp_path / "new", short).run
    assert new.read_identity()["version"] == RUN_VERSION == 5
    assert run_files(new.folder)["student/model.safetensors"] != run_files(whole.folder)["student/model.safetensors"]


def test_a_run_of_a_later_version_is_refused(best: Trained, store: Store, config: TrainConfig, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(best.run.folder, tmp_path / "run")))
    run.identity_path.write_text(run.identity_path.read_text().replace('"version": 5', '"version": 6'))
    with pytest.raises(CheckpointError, match="a run of version 6; this G2L continues runs up to version 5"):
        train_student(store, run.folder, keeping_best(config))


@pytest.mark.slow
def test_other_versions_of_packages_are_told(
    store: Store, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", config)
    run = RunFolder(tmp_path / "run")
    timm_version = run.read_identity()["versions"]["timm"]
    run.identity_path.write_text(run.identity_path.read_text().replace(f'"timm": "{timm_version}"', '"timm": "0.1"'))
    train_student(store, tmp_path / "run", config)
    assert f"timm 0.1 -> {timm_version}" in capsys.readouterr().err


# --- longer ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "student"])
def test_a_new_run_goes_on_from_a_finished_one(
    best: Trained, store: Store, config: TrainConfig, tmp_path: Path, what: str
) -> None:
    """Student and projector start as they were exported; schedule and optimizer are new."""
    start = best.run.folder if what == "run" else best.run.student
    longer = config.model_copy(update={"weights": str(start), "epochs": 1, "lr": 1e-3, "seed": 5})
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", longer)
    first = load_checkpoint(tmp_path / "run" / "checkpoints", 0)
    trained = train_student(store, tmp_path / "run", longer)
    assert same_state(first["student"], exported(best.run))
    projector = load_projector(best.run.student)
    assert torch.equal(first["projector"]["linear.weight"], projector.linear.weight)
    ((before, _),), ((_, after),) = trained.held_out.values(), best.held_out.values()
    assert before["retrieval_top1"] == pytest.approx(after["retrieval_top1"], abs=0.15)
    assert before["r2_linear"] == pytest.approx(after["r2_linear"], abs=1e-4)
    assert list(trained.run.read_identity()["start"]) == ["test-teacher"]
    begun = read_student_json(trained.run.student).encoder.start
    assert begun.projectors == ("test-teacher",)
    assert begun.weights_sha256 == trained.run.read_identity()["student"]["weights_sha256"]
    assert "with its projector into the space of test-teacher" in (trained.run.student / "README.md").read_text()


@pytest.mark.slow
def test_a_projector_of_another_teacher_starts_anew(
    best: Trained, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    other = make_store(tmp_path / "store.zarr").folder / "zarr.json"
    record = json.loads(other.read_text())
    record["attributes"]["g2l"]["teacher"]["weights_sha256"] = "1" * 64
    other.write_text(json.dumps(record))
    longer = config.model_copy(update={"weights": str(best.run.folder), "epochs": 1})
    trained = train_student(Store(other.parent), tmp_path / "run", longer)
    assert "the projector into the space of test-teacher starts anew" in capsys.readouterr().err
    assert "start" not in trained.run.read_identity()
    assert np.isfinite(trained.run.validations()[-1]["loss"])


def test_more_epochs_of_a_finished_run_are_refused_with_the_way_to_train_longer(
    best: Trained, store: Store, config: TrainConfig, tmp_path: Path
) -> None:
    more = keeping_best(config).model_copy(update={"epochs": 9})
    with pytest.raises(CheckpointError, match=r"options.epochs: 3 -> 9(.|\n)*begin a new run .*--weights .*run --out"):
        train_student(store, best.run.folder, more)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text("{}")
    from_half = config.model_copy(update={"weights": str(tmp_path / "half")})
    with pytest.raises(ConfigError, match="this run is not finished"):
        train_student(store, tmp_path / "new", from_half)


@pytest.mark.slow
def test_held_out_cases_that_were_trained_on_before_are_told(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the plan of the run that is trained longer, that of the run before it, or as far as an export names its plan;
    and in the card.
    """
    one, other = make_store(tmp_path / "a.zarr"), make_store(tmp_path / "b.zarr", train=(16,), val=(16, 16, 16))
    short = config.model_copy(update={"epochs": 1})

    def trained(store: Store, out: str, weights: Path | None) -> tuple[str, str]:
        begun = short if weights is None else short.model_copy(update={"weights": str(weights)})
        train_student(store, tmp_path / out, begun)
        return capsys.readouterr().err, (tmp_path / out / "student" / "README.md").read_text()

    telling = "2 of 3 held-out cases were trained on before, by a plan that --weights come from"
    for store, out, weights, is_told in (
        (one, "first", None, False),
        (one, "longer", tmp_path / "first", False),
        (other, "second", tmp_path / "first", True),
        (other, "third", tmp_path / "second" / "student", True),
    ):
        said, card = trained(store, out, weights)
        assert (f"warning: {telling}" in said) == (telling in card) == is_told
    shutil.copytree(tmp_path / "first" / "student", tmp_path / "export")
    said, card = trained(other, "fourth", tmp_path / "export")
    assert "warning: --weights were trained on another plan, which is not at hand" in said
    assert "--weights were trained on another plan" in card
    shutil.rmtree(tmp_path / "first")
    said, _ = trained(other, "fifth", tmp_path / "second")  # of the same plan, and begun from what is gone
    assert f"warning: {telling}" in said
    note = "or a student that it was begun from was trained on 2 of the 3 held-out cases, by another plan"
    for student in (tmp_path / "second", tmp_path / "fifth" / "student"):
        assert training_note(name_model(str(student), None, option="--models"), other.first.plan).startswith(note)
